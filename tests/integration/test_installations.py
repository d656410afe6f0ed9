"""What is installed is enough, and no more than is needed: what does not score has no torch."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

from deploy.local.ports import free_ports
from tests.commands import run, started
from tests.fetching import wait_until
from tests.installations import PYTHON, install
from tests.sinking import DEADLINE, place, plain_job

SCORING = {"numpy", "onnxruntime", "pycurl", "simplejpeg", "torch", "transformers"}


def have(folder: Path) -> set[str]:
    return {path.stem.partition(".")[0] for path in folder.iterdir()}


def test_services_that_score_nothing_need_no_package_that_scores(kafka, topic_prefix, tmp_path):
    where = place(kafka.bootstrap_servers, topic_prefix, tmp_path)
    packages = tmp_path / "packages"
    installed = install(packages, "producer", "sink")
    assert have(packages) & SCORING == set()
    [port] = free_ports(1)
    keys = tmp_path / "keys.json"
    environment = {
        **where.environment(PAIRSCORE_API__PORT=str(port), PAIRSCORE_API__KEYS=str(keys)),
        "PYTHONPATH": installed["PYTHONPATH"],
    }

    def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = run([*PYTHON, *arguments], environment, within=DEADLINE)
        assert done.returncode == 0, done.stderr
        return done

    def service(*arguments: str) -> Sequence[str]:
        return [*PYTHON, "-m", *arguments]

    job = plain_job("light", 50, tmp_path / "in")
    source = tmp_path / "in" / "light.csv"
    python("-m", "producer", "csv", str(source), "--job", "other")
    where.publish([job.begun, *job.scores, job.closed])
    python("-m", "producer", "cancel", "other")
    with started(service("sink", "csv"), environment):
        wait_until(lambda: where.complete("light"), within=DEADLINE)
    where.assert_exact(job)
    assert "light" in python("-m", "sink", "status").stdout
    key = python("-m", "producer", "keys", "add", "me", "--file", str(keys)).stdout.split()[-1]
    with started(service("producer", "api"), environment):
        headers = {"Authorization": f"Bearer {key}"}

        def jobs() -> int:
            try:
                url = f"http://127.0.0.1:{port}/v1/jobs"
                return requests.get(url, headers=headers, timeout=5).status_code
            except requests.ConnectionError:
                return 0

        wait_until(lambda: jobs() == 200, within=DEADLINE)


@pytest.mark.parametrize(
    ("extras", "code"),
    [
        (("client",), "import pairscore.client; pairscore.client.Client('http://127.0.0.1:1')"),
        ((), "import pairscore; pairscore.Score"),
        (("score",), "import pairscore; pairscore.Scorer"),
        (("spark",), "import pairscore.spark"),
        (("worker",), "import worker.__main__"),
    ],
)
def test_each_extra_brings_what_it_needs(tmp_path, extras, code):
    environment = install(tmp_path / "packages", *extras)
    done = run([*PYTHON, "-c", code], environment, within=DEADLINE)
    assert done.returncode == 0, done.stderr


def test_without_the_packages_that_score_one_line_says_what_to_install(tmp_path):
    environment = install(tmp_path / "packages")
    assert have(tmp_path / "packages") & SCORING == set()
    source = tmp_path / "a.csv"
    source.write_text("url,caption\nhttp://a/1,a cat\n")
    command = [*PYTHON, "-m", "pairscore"]
    assert run([*command, "--help"], environment, within=DEADLINE).returncode == 0
    install_it = "install them with: pip install 'pairscore[score]'\n"
    for arguments in (["score", str(source), "--model", "demo"], ["doctor"]):
        done = run([*command, *arguments], environment, within=DEADLINE)
        assert done.returncode == 3, done.stderr
        assert done.stderr.startswith("pairscore: scoring needs ")
        assert done.stderr.endswith(install_it)
        assert done.stderr.count("\n") == 1
    for name in ("Scorer", "score_pairs"):
        code = f"from pairscore import {name}"
        done = run([*PYTHON, "-c", code], environment, within=DEADLINE)
        assert done.stderr.endswith(install_it), done.stderr
        assert done.stderr.splitlines()[-1].startswith("ImportError: scoring needs ")
