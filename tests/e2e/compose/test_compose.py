"""`docker compose up`, with a real engine: the README's commands, and what is killed meanwhile."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import requests

from deploy.local.ports import free_ports
from tests import commands
from tests.comparing import compare, read
from tests.faults.reader import Scores, consumer
from tests.faults.telling import teller
from tests.fetching import wait_until
from tests.services import must_have_docker

ROWS: Final = 2_000
RATE: Final = 10
JOB: Final = "killed"
PARTITIONS: Final = 48
BUILD_SECONDS: Final = 1_800.0
UP_SECONDS: Final = 300.0
JOB_SECONDS: Final = 600.0
ASK_SECONDS: Final = 60.0
_BETWEEN: Final = 30

# Of the first test that asks for it too: images of 6 GB are built.
pytestmark = pytest.mark.timeout(BUILD_SECONDS + UP_SECONDS + 2 * JOB_SECONDS)


class Stack:
    """The compose file as a project of its own, which shares nothing with others."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"
        self.results.mkdir()
        self.name = f"pairscore-test-{uuid.uuid4().hex[:8]}"
        self.kafka_port, postgres_port, self.api_port = free_ports(3)
        subnet = f"172.31.{200 + uuid.uuid4().int % 50}.0/24"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PAIRSCORE_")}
        self.environment = {
            **clean,
            "COMPOSE_PROJECT_NAME": self.name,
            "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0"),
            "RESULTS": str(self.results),
            "KAFKA_PORT": str(self.kafka_port),
            "POSTGRES_PORT": str(postgres_port),
            "API_PORT": str(self.api_port),
            "SUBNET": subnet,
            "PAIRSCORE_FETCH__ALLOW_NETWORKS": subnet,
            "DEMO_ROWS": str(ROWS),
        }

    def command(self, *arguments: str) -> list[str]:
        return [
            "docker",
            "compose",
            "--env-file",
            "deploy/demo.env",
            "--profile",
            "demo",
            *arguments,
        ]

    def run(self, *arguments: str, within: float = ASK_SECONDS) -> str:
        ended = commands.run(self.command(*arguments), self.environment, within=within)
        assert ended.returncode == 0, f"{arguments}: {ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        return ended.stdout

    def up(self, *, workers: int) -> None:
        self.run("up", "-d", "--wait", "--scale", f"worker={workers}", within=UP_SECONDS)

    def containers(self, service: str) -> list[str]:
        return self.run("ps", "-q", service).split()

    def kill(self, service: str) -> None:
        """`docker kill` one of its containers, which Docker does not start again by itself."""
        container = self.containers(service)[0]
        docker("kill", container)

    def query(self, sql: str) -> str:
        asked = ("exec", "-T", "postgres", "psql", "-U", "pairscore", "-tAc", sql)
        return self.run(*asked).strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    must_have_docker()
    if shutil.which("docker") is None:
        pytest.skip("there is an engine, but no docker command")
    stack = Stack(tmp_path_factory.mktemp("compose"))
    stack.run("build", within=BUILD_SECONDS)
    try:
        stack.up(workers=1)
        yield stack
    finally:
        stack.run("down", "-v", "--timeout", "5", within=UP_SECONDS)


def docker(*arguments: str, within: float = ASK_SECONDS) -> str:
    ended = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=within, check=False
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout.strip()


@pytest.mark.parametrize("service", ["producer", "api", "sink", "worker"])
def test_image_has_what_its_service_needs_and_no_more(stack: Stack, service: str) -> None:
    def say(script: str) -> str:
        shell = ("--rm", "--read-only", "--network", "none", "--entrypoint", "sh")
        return docker("run", *shell, f"pairscore-{service}", "-c", script)

    assert say("id -u") == "10001"
    assert say("for name in gcc g++ cc make; do command -v $name; done; true") == ""
    has_torch = "python -c 'import importlib.util as u; print(bool(u.find_spec(\"torch\")))'"
    assert say(has_torch) == str(service == "worker")
    labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", f"pairscore-{service}"))
    assert labels["org.opencontainers.image.title"].startswith("pairscore ")


def test_api_scores_in_line(stack: Stack) -> None:
    lines = stack.run("exec", "-T", "demo", "head", "-n", "50", "/demo/challenge_set.csv")
    row = next(row for row in csv.DictReader(lines.splitlines()) if "/images/" in row["url"])
    body = {"pairs": [{"url": row["url"], "caption": row["caption"]}]}
    url = f"http://127.0.0.1:{stack.api_port}/v1/scores"
    answer = requests.post(url, json=body, timeout=ASK_SECONDS)
    assert answer.status_code == 200, answer.text
    [outcome] = answer.json()["outcomes"]
    assert outcome["status"] == "scored", outcome
    assert outcome["similarity"] > 0


def test_service_that_dies_is_started_again(stack: Stack) -> None:
    [container] = stack.containers("sink")

    def state(what: str) -> str:
        return docker("inspect", "-f", "{{" + what + "}}", container)

    # From outside of the container: inside, the first process cannot be killed.
    os.kill(int(state(".State.Pid")), signal.SIGKILL)
    wait_until(lambda: state(".RestartCount") == "1", within=ASK_SECONDS)
    wait_until(lambda: state(".State.Health.Status") == "healthy", within=ASK_SECONDS)


def test_workers_end_in_order_when_they_are_stopped(stack: Stack) -> None:
    containers = stack.containers("worker")
    started = time.monotonic()
    stack.run("stop", "worker")
    assert time.monotonic() - started < 20
    for container in containers:
        assert docker("inspect", "-f", "{{.State.ExitCode}}", container) == "0"


def test_every_row_comes_out_once_whatever_is_killed(
    stack: Stack, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stack.up(workers=1)
    publish = stack.command(
        *("run", "--rm", "-T", "producer", "csv", "/demo/challenge_set.csv", "--job", JOB),
        *("--wait", "--limit-rate", str(RATE)),
    )
    said = tmp_path / "producer.log"
    log = said.open("w")
    with (
        log,
        consumer(f"127.0.0.1:{stack.kafka_port}") as client,
        commands.started(
            publish, stack.environment, stdout=log.fileno(), stderr=log.fileno()
        ) as producer,
    ):
        scores = Scores(client, "scores", PARTITIONS)

        def go_on(rows: int) -> None:
            wanted = scores.count(JOB) + rows
            wait_until(
                lambda: scores.count(JOB) >= wanted or producer.poll() is not None,
                within=JOB_SECONDS,
            )
            assert producer.poll() is None, said.read_text()[-2000:]

        go_on(_BETWEEN)
        stack.up(workers=3)
        assert len(stack.containers("worker")) == 3
        go_on(_BETWEEN)
        for service in ("worker", "sink", "sink-postgres", "redis", "kafka"):
            stack.kill(service)
            stack.up(workers=3)
            go_on(_BETWEEN)
        assert producer.wait(JOB_SECONDS) == 0, said.read_text()[-4000:]
        found = scores.count(JOB)

    assert (found, scores.lost(JOB, ROWS), scores.copies(JOB)) == (ROWS, [], [])
    stored = "SELECT count(*), count(DISTINCT row) FROM pairscore.scores WHERE job = '%s'"
    wait_until(lambda: stack.query(stored % JOB) == f"{ROWS}|{ROWS}", within=JOB_SECONDS)
    alone = score_alone(stack, tmp_path)
    worst = compare(read(alone), read(stack.results / JOB / "challenge_scored.csv"))
    told = f"compose, killed in turn: lost 0, duplicated {scores.duplicated(JOB)} of {ROWS:,} rows"
    teller(request)(f"{told}; similarities within {worst:.4f} of the one-machine command's")


def score_alone(stack: Stack, folder: Path) -> Path:
    """What `pairscore score` writes, in the workers' image."""
    folder.chmod(0o777)
    volumes = (f"{stack.name}_demo:/demo:ro", f"{folder}:/out")
    stack.run(
        *("run", "--rm", "-T", "--no-deps", *(part for each in volumes for part in ("-v", each))),
        *("--entrypoint", "python", "worker", "-m", "pairscore"),
        *("score", "/demo/challenge_set.csv", "--output", "/out/alone.csv"),
        within=JOB_SECONDS,
    )
    return folder / "alone.csv"
