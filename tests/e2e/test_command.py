"""`pairscore` as a process: every exit code, and what is on disk after it."""

import csv
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pairscore
from tests.fetching import wait_until
from tests.image_server import ImageServer, image_server, picture

DEADLINE = 60
COMMAND = [sys.executable, "-m", "pairscore"]
LOOPBACK = ("--model", "demo", "--allow-net", "127.0.0.0/8", "--timeout", "5")
# At int8 a pair's number does not depend on its batch, to the last digit; at fp32 it may by 1e-3.
EXACT = (*LOOPBACK, "--precision", "int8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported models, made once for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            env=surroundings(cache, **environment),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


def surroundings(cache: Path, **more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PAIRSCORE_")}
    return {**clean, "PAIRSCORE_CACHE_DIR": str(cache), **more}


@contextmanager
def started(*arguments: str | Path, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A command that runs while the block does, and never longer."""
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def write_set(folder: Path, server: ImageServer, rows: int) -> Path:
    path = folder / "challenge_set.csv"
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(min(rows, 20))]
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["url", "caption"])
        writer.writerows((urls[n % len(urls)], f"a red circle {n}") for n in range(rows))
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def one_line(stderr: str) -> str:
    """The complaint, which must be all there is of it: one line and no traceback."""
    assert "Traceback" not in stderr
    complaints = [line for line in stderr.splitlines() if line.startswith("pairscore: ")]
    assert len(complaints) == 1, stderr
    return complaints[0]


def test_score_writes_a_score_or_a_reason_and_exits_0(run, server, tmp_path):
    good = server.add("/good.jpg", picture(1))
    source = tmp_path / "challenge_set.csv"
    source.write_text(
        f"id,url,caption\n1,{good},a red circle\n2,{server.url('/gone')},x\n3,,y\n\n5,{good}\n"
    )
    ended = run("score", source, *LOOPBACK, "--json")
    assert ended.returncode == 0, ended.stderr
    rows = read(tmp_path / "challenge_scored.csv")
    assert [row["error"].partition(":")[0] for row in rows] == [
        "",
        "http_error",
        "invalid_url",
        "malformed_row",
        "malformed_row",
    ]
    assert float(rows[0]["similarity"])
    summary = json.loads(ended.stdout)
    assert summary["rows"] == 5
    assert summary["scored"] == 1
    assert summary["failed"] == {"malformed_row": 2, "http_error": 1, "invalid_url": 1}
    digest = hashlib.sha256((tmp_path / "challenge_scored.csv").read_bytes()).hexdigest()
    assert summary["output_sha256"] == digest
    assert "--allow-net" not in ended.stderr
    assert "only knows coloured shapes" in ended.stderr


def test_score_says_what_it_guessed_and_sums_up_for_people(run, server, tmp_path):
    source = tmp_path / "pairs.csv"
    source.write_text(f"image_url\ttitle\n{server.add('/1.jpg', picture(1))}\ta red circle\n")
    ended = run("score", source, *LOOPBACK)
    assert ended.returncode == 0, ended.stderr
    assert "'image_url'" in ended.stderr
    assert "'title'" in ended.stderr
    assert "rows in" in ended.stdout
    assert "pairs_scored.csv" in ended.stdout


def test_rows_that_lead_inside_are_counted_with_what_opens_a_network(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("url,caption\nhttp://10.0.0.1/a.jpg,x\n")
    ended = run("score", "pairs.csv", "--model", "demo")
    assert ended.returncode == 0
    assert "1 rows lead to addresses that are not public; --allow-net" in ended.stderr


def test_details_are_added_when_asked_for(run, server, tmp_path):
    body = picture(1)
    source = tmp_path / "pairs.csv"
    source.write_text(f"url,caption\n{server.add('/1.jpg', body)},{'red circle ' * 100}\n")
    assert run("score", source, *LOOPBACK, "--details").returncode == 0
    (row,) = read(tmp_path / "pairs_scored.csv")
    assert row["caption_truncated"] == "true"
    assert row["image_sha256"] == hashlib.sha256(body).hexdigest()
    assert row["attempts"] == "1"
    assert -1 <= float(row["cosine"]) <= 1


@pytest.mark.parametrize(
    ("text", "options", "complaint"),
    [
        (None, (), "No such file"),
        ("url,caption\n\0,x\n", (), "NUL"),
        ("link,words\nhttp://a/,b\n", (), "--caption-column"),
        ("http://a.example/1.jpg,a cat\nhttp://a.example/2.jpg,a dog\n", (), "header"),
        ("url,caption\nhttp://a/,b\n", ("--url-column", "image"), "image"),
        ("url,caption,similarity\nhttp://a/,b,1\n", (), "similarity"),
        ("url,caption\nhttp://a/,b\n", ("--timeout", "-1"), "--timeout"),
        ("url,caption\nhttp://a/,b\n", ("--allow-net", "10.0.0.1/8"), "--allow-net"),
        ("url,caption\nhttp://a/,b\n", ("--precision", "fp8"), "--precision"),
        ("url,caption\nhttp://a/,b\n", ("--device", "cpu", "--precision", "fp16"), "fp16"),
        ("url,caption\nhttp://a/,b\n", ("--no-such-option",), "--no-such-option"),
    ],
)
def test_bad_input_or_settings_are_one_line_and_exit_2(run, tmp_path, text, options, complaint):
    source = tmp_path / "pairs.csv"
    if text is not None:
        source.write_text(text)
    ended = run("score", source, "--model", "demo", *options)
    assert ended.returncode == 2
    assert complaint in one_line(ended.stderr)
    assert ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ([source.name] if text else [])


def test_standard_input_by_its_file_name_is_refused_too(tmp_path, cache):
    source = tmp_path / "pairs.csv"
    source.write_text("url,caption\n")
    with source.open() as lines:
        ended = subprocess.run(
            [*COMMAND, "score", "/dev/stdin", "-o", "out.csv", "--model", "demo"],
            stdin=lines,
            env=surroundings(cache),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert ended.returncode == 2
    assert "/dev/stdin" in one_line(ended.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]


def test_bad_environment_variable_is_named(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("url,caption\n")
    ended = run("score", "pairs.csv", PAIRSCORE_FETCH__ATTEMPTS="many")
    assert ended.returncode == 2
    assert "PAIRSCORE_FETCH__ATTEMPTS" in one_line(ended.stderr)


def test_existing_output_is_left_alone_unless_overwriting_is_allowed(run, server, tmp_path):
    source = write_set(tmp_path, server, 2)
    output = tmp_path / "challenge_scored.csv"
    output.write_text("precious\n")
    ended = run("score", source, *LOOPBACK)
    assert ended.returncode == 2
    assert "--overwrite" in one_line(ended.stderr)
    assert output.read_text() == "precious\n"
    assert run("score", source, *LOOPBACK, "--overwrite").returncode == 0
    assert len(read(output)) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--model", "./no-such-folder"), "no-such-folder"),
        (("--model", "."), "config.json"),
        (("--model", "demo", "--device", "cuda"), "cuda"),
    ],
)
def test_model_or_machine_that_will_not_do_is_one_line_and_exits_3(
    run, tmp_path, options, complaint
):
    if complaint == "cuda":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
    (tmp_path / "pairs.csv").write_text("url,caption\nhttp://a.example/,b\n")
    ended = run("score", "pairs.csv", *options)
    assert ended.returncode == 3
    assert complaint in one_line(ended.stderr)
    assert not (tmp_path / "pairs_scored.csv").exists()


def test_model_of_the_hub_that_cannot_be_had_exits_3(run, tmp_path):
    (tmp_path / "pairs.csv").write_text("url,caption\nhttp://a.example/,b\n")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path / "hub")}
    ended = run("score", "pairs.csv", **nowhere)
    assert ended.returncode == 3
    assert "openai/clip-vit-base-patch32" in one_line(ended.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_exits_130_and_resumes_to_the_same_file(
    run, server, tmp_path, cache, number
):
    source = write_set(tmp_path, server, 400)
    whole = tmp_path / "whole.csv"
    assert run("score", source, "-o", whole, *EXACT).returncode == 0
    held = server.url("/19.jpg")
    text = source.read_text()
    output = tmp_path / "challenge_scored.csv"
    server.bodies["/held.jpg"] = server.bodies["/19.jpg"]
    head, tail = text.split(f"{held},a red circle 199\n")
    source.write_text(f"{head}{server.url('/held.jpg')},a red circle 199\n{tail}")
    server.statuses["/held.jpg"] = [503] * 1000
    slow = surroundings(cache, PAIRSCORE_FETCH__BACKOFF_BASE="0.05", PAIRSCORE_WINDOW="50")
    arguments = ("score", source, *EXACT, "--attempts", "100")
    with started(*arguments, env=slow, stderr=subprocess.PIPE) as process:
        # It is asked for once the window reaches it; by then at least 149 rows are done.
        wait_until(lambda: server.hits["/held.jpg"] >= 3 or process.poll() is not None, DEADLINE)
        assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert one_line(stderr) == "pairscore: interrupted"
    assert "Traceback" not in stderr
    assert not output.exists()
    server.statuses.clear()
    ended = run("score", source, *EXACT, "--resume", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["resumed_rows"] >= 149
    assert output.read_text().replace("/held.jpg", "/19.jpg") == whole.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "challenge_scored.csv",
        "challenge_set.csv",
        "whole.csv",
    ]


def has_rows(partial: Path) -> bool:
    return partial.exists() and partial.stat().st_size > 1_000


def test_killed_run_resumes_to_the_same_file(run, server, tmp_path, cache):
    source = write_set(tmp_path, server, 3_000)
    whole = tmp_path / "whole.csv"
    assert run("score", source, "-o", whole, *EXACT).returncode == 0
    partial = tmp_path / "challenge_scored.csv.partial"
    narrow = surroundings(cache, PAIRSCORE_WINDOW="16")
    with started("score", source, *EXACT, env=narrow, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: has_rows(partial) or process.poll() is not None, DEADLINE)
        assert process.poll() is None
        process.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL
    assert run("score", source, *EXACT, "--resume").returncode == 0
    assert (tmp_path / "challenge_scored.csv").read_bytes() == whole.read_bytes()


def test_demo_data_set_comes_out_as_it_says(run, tmp_path):
    ended = run("demo", "data", "--score")
    assert ended.returncode == 0, ended.stderr
    expected = [row["expected"] for row in read(tmp_path / "data" / "expected.csv")]
    scored = read(tmp_path / "data" / "challenge_scored.csv")
    assert [row["error"].partition(":")[0] for row in scored] == expected
    assert all(bool(row["similarity"]) != bool(row["error"]) for row in scored)
    assert len(scored) == 300
    for words in ("rows in", "too_many_pixels", "rows/s", "best 5", "worst 5"):
        assert words in ended.stdout


def test_demo_does_not_touch_a_folder_that_is_not_its_own(run, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    ended = run("demo", ".")
    assert ended.returncode == 2
    assert "empty" in one_line(ended.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_demo_can_be_served_and_scored_in_two_steps(run, tmp_path, cache):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    made = run("demo", "data", "--rows", "3", "--port", port)
    assert made.returncode == 0
    assert f"pairscore demo data --rows 3 --seed 0 --port {port} --serve" in made.stdout
    serve = ("demo", "data", "--rows", "3", "--port", port, "--serve")
    options = {"env": surroundings(cache), "cwd": tmp_path, "stdout": subprocess.PIPE}
    with started(*serve, **options) as process:
        assert process.stdout is not None
        assert f"serving data at http://127.0.0.1:{port}" in process.stdout.readline()
        ended = run("score", "data/challenge_set.csv", *LOOPBACK, "--json")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert json.loads(ended.stdout)["scored"] == 3


def test_doctor_says_what_would_be_used_and_why(run):
    ended = run("doctor", "--model", "demo", "--device", "cpu", "--precision", "int8")
    assert ended.returncode == 0
    for words in ("torch", "onnxruntime", "libcurl", "cores", "int8: asked for", "onnx"):
        assert words in ended.stdout
    report = json.loads(run("doctor", "--model", "demo", "--json").stdout)
    assert report["versions"]["pairscore"] == pairscore.__version__
    assert report["problem"] is None


def test_doctor_shows_the_dead_end_and_exits_3(run):
    ended = run("doctor", "--model", "./nowhere")
    assert ended.returncode == 3
    assert "versions" in ended.stdout
    assert "nowhere" in one_line(ended.stderr)


def test_version_and_help(run):
    assert run("--version").stdout == f"pairscore {pairscore.__version__}\n"
    assert "score" in run().stdout
    assert "Exit codes" in run("--help").stdout
    assert run("scroe").returncode == 2


def test_defect_is_a_traceback_and_exit_1(run, server, tmp_path):
    source = write_set(tmp_path, server, 3)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import pairscore.scorer.encode as e\n"
        "def fail(*_): raise ZeroDivisionError('defect')\n"
        "e.EncodeStage._encode_images = fail\n"
    )
    ended = run("score", source, *LOOPBACK, PYTHONPATH=str(broken))
    assert ended.returncode == 1
    assert "ZeroDivisionError: defect" in ended.stderr
    assert not (tmp_path / "challenge_scored.csv").exists()


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "| true", ">&- 2>&-", "2>/dev/full"])
def test_streams_that_are_gone_change_neither_the_rows_nor_the_exit_code(
    server, tmp_path, cache, redirection
):
    source = write_set(tmp_path, server, 3)
    command = shlex.join([*COMMAND, "score", str(source), *LOOPBACK])
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {redirection}"],
        env=surroundings(cache),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert len(read(tmp_path / "challenge_scored.csv")) == 3


def test_exit_code_says_what_closed_streams_cannot(tmp_path, cache):
    command = shlex.join([*COMMAND, "score", str(tmp_path / "none.csv")])
    ended = subprocess.run(
        ["bash", "-c", f"{command} >&- 2>&-"],
        env=surroundings(cache),
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 2


def test_path_that_the_terminal_has_no_letters_for_is_shown_escaped(run, server, tmp_path):
    source = tmp_path / "猫 pairs.csv"
    source.write_text(f"url,caption\n{server.add('/1.jpg', picture(1))},a red circle\n")
    ended = run("score", source, *LOOPBACK, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert ended.returncode == 0, ended.stderr
    assert "\\u732b pairs_scored.csv" in ended.stdout
    assert (tmp_path / "猫 pairs_scored.csv").exists()


def test_doctor_says_which_package_is_missing(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'onnxruntime': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    ended = run("doctor", "--model", "demo", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert any(
        line.split() == ["onnxruntime", "not", "installed"] for line in ended.stdout.splitlines()
    )


def test_demo_is_made_anew_when_something_else_is_asked_for(run, tmp_path):
    run("demo", "data", "--rows", "4", "--port", "9999")
    first = read(tmp_path / "data" / "challenge_set.csv")
    run("demo", "data", "--rows", "4", "--port", "9999")
    assert read(tmp_path / "data" / "challenge_set.csv") == first
    run("demo", "data", "--rows", "5", "--port", "9998")
    second = read(tmp_path / "data" / "challenge_set.csv")
    assert len(second) == 5
    assert all(":9999/" not in row["url"] for row in second)
