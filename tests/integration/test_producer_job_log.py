"""What is said of a job is found wherever it stands in `jobs`, whoever else publishes there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer

from pairscore.errors import EnvironmentFault, InputError
from producer import job_log
from producer.job import CsvJob
from producer.job_log import JobLog
from producer.pulse import Pulse
from shared.clients import make_producer
from shared.messages import CsvFormat, JobMessage, JobState
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from tests.fetching import wait_until
from tests.producing import Place, place

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


@pytest.fixture
def stop():
    return StopSignal()


@pytest.fixture
def log(here, stop) -> JobLog[CsvJob]:
    return JobLog(here.connection, here.admin, here.topics.jobs, Pulse(stop, Health()), CsvJob)


def csv_job(name: str, rows: int) -> CsvJob:
    return CsvJob(
        job=name,
        source="in.csv",
        csv=CsvFormat(output_name="out.csv"),
        rows_published=rows,
        state=JobState.OPEN,
        created_at=NOW,
        url_column=0,
        caption_column=1,
    )


@contextmanager
def transaction(here: Place, who: str) -> Iterator[Producer]:
    """An open transaction; the block commits or aborts it."""
    producer = make_producer(here.connection, transactional_id=who)
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer


def say(here: Place, *values: bytes | None, job: str = "a-job") -> None:
    with transaction(here, f"of-{job}") as producer:
        for value in values:
            producer.produce(here.topics.jobs, value, job.encode())
        producer.commit_transaction(20)


def test_of_an_unknown_job_nothing_is_said(here, log):
    assert log.latest("a-job") is None
    say(here, csv_job("other", 1).encode(), job="other")
    assert log.latest("a-job") is None


def test_the_latest_message_of_the_job_counts(here, log):
    for rows in range(5):
        say(here, csv_job("a-job", rows).encode())
        say(here, csv_job("other", 100).encode(), job="other")
    found = log.latest("a-job")
    assert found == csv_job("a-job", 4)


def test_what_was_aborted_was_never_said(here, log):
    say(here, csv_job("a-job", 1).encode())
    with transaction(here, "of-a-job") as producer:
        producer.produce(here.topics.jobs, csv_job("a-job", 2).encode(), b"a-job")
        producer.flush(20)
        producer.abort_transaction(20)
    assert log.latest("a-job") == csv_job("a-job", 1)


def test_a_message_behind_the_open_transaction_of_another_is_waited_for(
    here, log, monkeypatch, caplog
):
    monkeypatch.setattr(job_log, "_SAY_AFTER", 0.3)
    say(here, csv_job("a-job", 1).encode())
    with transaction(here, "of-other") as producer:
        producer.produce(here.topics.jobs, csv_job("other", 1).encode(), b"other")
        producer.flush(20)
        say(here, csv_job("a-job", 2).encode())
        found: list[CsvJob | None] = []
        reader = threading.Thread(target=lambda: found.append(log.latest("a-job")))
        reader.start()
        wait_until(lambda: "waiting for another producer's transaction" in caplog.text)
        assert found == []
        producer.commit_transaction(20)
    reader.join(20)
    assert found == [csv_job("a-job", 2)]


def test_a_transaction_that_never_ends_is_not_waited_for_for_ever(here, log, monkeypatch):
    with transaction(here, "of-other") as producer:
        producer.produce(here.topics.jobs, csv_job("other", 1).encode(), b"other")
        producer.flush(20)
        with monkeypatch.context() as patch:
            patch.setattr(job_log, "READ_SECONDS", 3.0)
            with pytest.raises(EnvironmentFault, match=r"jobs: a transaction has been open for m"):
                log.latest("a-job")
        producer.abort_transaction(20)
    assert log.latest("a-job") is None


def test_who_is_asked_to_end_does_not_wait(here, log, stop):
    say(here, csv_job("a-job", 1).encode())
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        log.latest("a-job")


def test_a_job_that_was_deleted_is_unknown(here, log):
    say(here, csv_job("a-job", 1).encode(), None)
    assert log.latest("a-job") is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"{", "cannot be understood"),
        (b'{"v": 2}', "cannot be understood \\(version 2"),
        (
            JobMessage(
                job="a-job",
                source="api",
                rows_published=1,
                rows=1,
                state=JobState.CLOSED,
                created_at=NOW,
            ).encode(),
            "comes from 'api', not from such a file",
        ),
    ],
)
def test_a_job_that_is_no_csv_of_ours_is_left_alone(here, log, value, why):
    say(here, value)
    with pytest.raises(InputError, match=rf"^job a-job is there already and {why}.*--job"):
        log.latest("a-job")
