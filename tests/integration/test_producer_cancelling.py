"""`python -m producer cancel JOB`: what it says, and what comes of the job."""

import csv
import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from deploy.local.ports import free_ports
from shared.clients import make_producer
from shared.messages import CancellationMessage, JobMessage, JobState
from tests import commands
from tests.fetching import wait_until
from tests.producing import DEADLINE, Place, place, understood, write_set

ROWS = 50


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def cancel(here: Place, job: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "producer", "cancel", job]
    return commands.run(command, here.environment(**more), within=DEADLINE)


def cancelled(here: Place) -> list[tuple[bytes | str | None, str]]:
    records = here.records(here.topics.cancellations)
    return [(record.key(), understood(CancellationMessage, record).job) for record in records]


def test_job_that_is_cancelled_completes_with_every_row_cancelled(here, tmp_path):
    source = write_set(tmp_path / "in.csv", ROWS)
    results = tmp_path / "results"
    assert here.run(source, "--job", "a-job").returncode == 0
    ended = cancel(here, "a-job")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "job a-job is cancelled: what is not scored of its 50 rows comes out as `cancelled`\n"
    )
    assert cancelled(here) == [(b"a-job", "a-job")]
    environment = here.environment(
        PAIRSCORE_RESULTS=str(results), PAIRSCORE_TELEMETRY__PORT="0", PAIRSCORE_MODEL="demo"
    )
    worker, sink = [[sys.executable, "-m", *each] for each in (["worker"], ["sink", "csv"])]
    manifest = results / "a-job" / "manifest.json"
    with (
        commands.started(worker, environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        commands.started(sink, environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    ):
        wait_until(manifest.exists, within=DEADLINE)
    said = json.loads(manifest.read_text())
    assert (said["rows"], said["scored"], said["failed"]) == (ROWS, 0, {"cancelled": ROWS})
    with (results / "a-job" / "in_scored.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == ["cancelled"] * ROWS


def test_job_of_an_api_that_still_publishes_may_be_cancelled_too(here):
    job = JobMessage(
        job="batch-17",
        source="api",
        rows_published=1,
        state=JobState.OPEN,
        created_at=datetime.now(UTC),
    )
    producer = make_producer(here.connection, transactional_id=None)
    producer.produce(here.topics.jobs, job.encode(), job.job)
    producer.flush(DEADLINE)
    for _ in range(2):
        assert cancel(here, "batch-17").stdout == (
            "job batch-17 is cancelled: what is not scored of its 1 row comes out as `cancelled`; "
            "so do those that are still published\n"
        )
    assert {job for _, job in cancelled(here)} == {"batch-17"}


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("no-such-job", "knows no job no-such-job, so nothing is cancelled"),
        ("a/b", "JOB: 'a/b' cannot be a job's name"),
    ],
)
def test_job_that_is_not_there_is_one_line(here, job, said):
    ended = cancel(here, job)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr
    assert cancelled(here) == []


def test_job_that_cannot_be_understood_is_left_alone(here):
    producer = make_producer(here.connection, transactional_id=None)
    producer.produce(here.topics.jobs, b'{"v": 2}', b"later")
    producer.flush(DEADLINE)
    ended = cancel(here, "later")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "cannot be understood (version 2, known is 1)" in ended.stderr
    assert cancelled(here) == []


def test_kafka_that_is_away_is_one_line(here):
    [port] = free_ports(1)
    ended = cancel(here, "a-job", PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1
    assert "no Kafka broker answers at" in ended.stderr
