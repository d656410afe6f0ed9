"""`python -m producer csv` as a process: every exit code, every dead end, and being killed."""

import gzip
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from shared.messages import JobState
from tests.fetching import wait_until
from tests.producing import Place, place, write_set


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def one_line(ended: "subprocess.CompletedProcess[str]") -> str:
    """The complaint, which must be all there is of it."""
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("taking ")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("producer: ")
    assert ended.stdout == ""
    return lines[0]


def test_a_file_is_published_once_and_only_once(here, tmp_path):
    source = write_set(tmp_path / "challenge_set.csv", 1234)
    ended = here.run(source)
    assert ended.returncode == 0, ended.stderr
    [job] = here.jobs().values()
    assert job.job.startswith("challenge_set-")
    assert ended.stdout.splitlines() == [
        f"job {job.job}: 1,234 rows published",
        "the same command with --wait shows its outcomes come",
    ]
    again = here.run(source)
    assert again.returncode == 0
    assert f"job {job.job}: already published, 1,234 rows" in again.stdout
    assert [row.row for row in here.pairs()] == list(range(1234))


def test_options_decide_what_is_published(here, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("a;b;error\nu;c;old\n")
    ended = here.run(
        source,
        *("--job", "my-job", "--delimiter", ";", "--url-column", "b", "--caption-column", "a"),
        *("--details", "--overwrite"),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "leaving out the input's own 'error'\n"
    [row] = here.pairs()
    assert (row.job, row.url, row.caption) == ("my-job", "c", "u")
    format = here.jobs()["my-job"].csv  # noqa: A001 - the field's word
    assert format is not None
    assert (format.details, format.dropped) == (True, (2,))


def test_ten_kills_at_random_moments_lose_and_double_no_row(here, tmp_path):
    rows = 12_000
    source = write_set(tmp_path / "in.csv", rows)
    settings = {"PAIRSCORE_PRODUCER__TRANSACTION_ROWS": "50"}
    arguments = (source, "--job", "a-job", "--limit-rate", "1500")
    rng = random.Random(7)
    progress = [0]
    for _ in range(10):
        with here.started(*arguments, **settings) as process:
            # Once it publishes, so that moments of all kinds are hit, and not only starting. It may
            # have to give up a client of Kafka's first, and wait for what that left open.
            wait_until(lambda: here.rows_published() > progress[-1], within=90)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            assert process.wait(20) == -signal.SIGKILL
        progress.append(here.rows_published())
    assert progress == sorted(set(progress))
    assert progress[-1] < rows, "the job was over before all kills were done"
    ended = here.run(source, "--job", "a-job", **settings)
    assert ended.returncode == 0, ended.stderr
    assert "rows are published already: going on with the next" in ended.stderr
    assert [row.row for row in here.pairs()] == list(range(rows))
    assert here.jobs()["a-job"].rows == rows


def test_a_kill_after_the_last_commit_leaves_nothing_to_do(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 100)
    results = {"PAIRSCORE_RESULTS": str(tmp_path / "results")}
    with here.started(source, "--job", "a-job", "--wait", **results) as process:
        wait_until(lambda: closed(here, "a-job"), within=60)
        process.kill()
        process.wait(20)
    assert "already published, 100 rows" in here.run(source, "--job", "a-job").stdout
    assert len(here.pairs()) == 100


def closed(here: Place, job: str) -> bool:
    found = here.jobs().get(job)
    return found is not None and found.state is JobState.CLOSED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_says_how_to_go_on_and_leaves_nothing_open(here, tmp_path, number):
    source = write_set(tmp_path / "in.csv", 2000)
    arguments = (source, "--job", "a-job")
    with here.started(*arguments, "--limit-rate", "500") as process:
        wait_until(lambda: here.rows_published() > 0, within=60)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    *_, progress, last = said.splitlines()
    assert last == "producer: interrupted"
    published = here.rows_published()
    assert progress == (
        f"{published:,} of 2,000 rows of job a-job are published; "
        "the same command goes on from there"
    )
    wait_until(lambda: not here.left_open(), within=5)
    ended = here.run(*arguments)
    assert f"2,000 rows published, {published:,} of them before" in ended.stdout
    assert [row.row for row in here.pairs()] == list(range(2000))


def test_a_second_command_takes_over_and_the_first_says_so(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 3000)
    arguments = (source, "--job", "a-job")
    with here.started(*arguments, "--limit-rate", "300") as first:
        wait_until(lambda: here.rows_published() > 0, within=60)
        second = here.run(*arguments)
        _, said = first.communicate(timeout=30)
    assert second.returncode == 0, second.stderr
    assert first.returncode == 3
    assert "producer: another producer has taken over the job" in said.splitlines()[-1]
    assert [row.row for row in here.pairs()] == list(range(3000))


def test_other_content_under_the_same_name_is_refused(here, tmp_path):
    assert here.run(write_set(tmp_path / "in.csv", 10), "--job", "a-job").returncode == 0
    ended = here.run(write_set(tmp_path / "in.csv", 11), "--job", "a-job")
    assert ended.returncode == 2
    assert "choose another name with --job" in one_line(ended)
    assert len(here.pairs()) == 10


def test_a_broker_that_is_not_there_is_one_line(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    address = f"127.0.0.1:{free_port()}"
    begun = time.monotonic()
    ended = here.run(source, PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=address)
    assert time.monotonic() - begun < 30
    assert ended.returncode == 3
    assert f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at {address}" in (
        one_line(ended)
    )


def test_topics_that_are_not_there_or_too_small_are_one_line(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    ended = here.run(source, PAIRSCORE_KAFKA__TOPIC_PREFIX="none.")
    assert ended.returncode == 3
    assert "topic none.pairs does not exist" in one_line(ended)
    ended = here.run(source, PAIRSCORE_KAFKA__PARTITIONS="5")
    assert ended.returncode == 3
    assert "setting PAIRSCORE_KAFKA__PARTITIONS" in one_line(ended)
    ended = here.run(source, PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES="50000000")
    assert ended.returncode == 3
    assert "setting PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES: 50,000,000" in one_line(ended)


@pytest.mark.parametrize(
    ("data", "arguments", "said"),
    [
        ("a,b\nu,c\n", (), "line 1: no column has a usual name for image URLs"),
        ("url,caption\nu,c\n", ("--url-column", "x"), "there is no column 'x'"),
        ("url,caption,error\nu,c,e\n", (), "the header has 'error' already"),
        ('url,caption\nu,"c\n', (), "line 2: a quote"),
        ("url,caption\nu,c\n", ("--job", "a/b"), "--job: 'a/b' cannot be a job's name"),
        (
            "url,caption\nu,c\n",
            ("--limit-rate", "0"),
            "--limit-rate: Input should be greater",
        ),
        ("url,caption\nu,c\n", ("--what",), "--what"),
        ("", (), "the file is empty"),
        (f"url,caption,{'c' * 1_100_000}\n", (), "line 1: the header makes a message of 1,"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line(here, tmp_path, data, arguments, said):
    source = tmp_path / "in.csv"
    source.write_text(data)
    ended = here.run(source, *arguments)
    assert ended.returncode == 2
    assert said in one_line(ended)
    assert here.jobs() == {}


def test_a_row_that_is_too_long_is_named_before_anything_is_published(here, tmp_path):
    source = tmp_path / "in.csv"
    longest = 4_194_304 // 2 - 1000
    source.write_text(f"url,caption\nu,c\nu,{'x' * longest}\n" + '\nu,"two\nlines"\nu,')
    assert here.run(source, "--job", "fits").returncode == 0
    with source.open("a") as file:
        file.write("x" * (longest + 1000))
    ended = here.run(source, "--job", "does-not")
    assert ended.returncode == 2
    line = one_line(ended)
    assert "line 7: a row starts here that is 4,194,4" in line
    assert "PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES" in line
    with source.open("a") as file:
        file.write(f"\nu,c\nu,{'x' * (longest + 2000)}")
    ended = here.run(source, "--job", "does-not")
    assert "line 7: the first of 2 rows starts here that are up to 4,196,4" in one_line(ended)
    assert set(here.jobs()) == {"fits"}


def test_the_smallest_limit_holds_for_rows_that_do_not_pack(kafka, topic_prefix, tmp_path):
    small = place(kafka.bootstrap_servers, topic_prefix, max_message_bytes=10_000)
    rng = random.Random(1)
    source = tmp_path / "in.csv"
    source.write_text(
        "url,caption\n" + "".join(f"u,{rng.randbytes(2200).hex()}\n" for _ in range(500))
    )
    ended = small.run(source)
    assert ended.returncode == 0, ended.stderr
    assert [row.row for row in small.pairs()] == list(range(500))


def test_an_unknown_setting_is_one_line(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    ended = here.run(source, PAIRSCORE_KAFKAA__TOPIC_PREFIX="x")
    assert ended.returncode == 2
    assert "setting PAIRSCORE_KAFKAA__TOPIC_PREFIX" in one_line(ended)


def test_words_that_nobody_reads_do_not_end_it(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    reading, writing = os.pipe()
    os.close(reading)
    with here.started(source, "--job", "a-job", stdout=writing, stderr=writing) as process:
        os.close(writing)
        assert process.wait(60) == 0
    assert here.jobs()["a-job"].rows == 10


def test_metrics_and_health_are_served_where_a_port_is_set(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 2000)
    port = free_port()
    settings = {"PAIRSCORE_TELEMETRY__PORT": str(port)}
    with here.started(source, "--limit-rate", "200", **settings):
        wait_until(lambda: here.rows_published() > 0, within=60)
        assert ask(port, "/readyz") == "ready\n"
        assert ask(port, "/livez") == "alive\n"
        figures = ask(port, "/metrics")
    [rows] = [line for line in figures.splitlines() if line.startswith("pairscore_producer_rows")]
    assert float(rows.split()[1]) > 0
    assert 'pairscore_producer_transactions_total{result="committed"}' in figures


def ask(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read(), "ascii")


def test_a_file_that_is_still_being_checked_can_be_left(here, tmp_path):
    source = tmp_path / "in.csv.gz"
    with gzip.open(source, "wb", compresslevel=1) as file:
        file.write(b"url,caption\n")
        for _ in range(100):
            file.write(b"u,c\n" * 100_000)
    port = free_port()
    with here.started(source, PAIRSCORE_TELEMETRY__PORT=str(port)) as process:
        wait_until(lambda: listens(port), within=60)
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "producer: interrupted"
    assert here.jobs() == {}


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
