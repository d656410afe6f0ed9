"""Requests whose transaction fails, is committed without a word, or is another process's."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from pairscore.errors import EnvironmentFault
from producer.api.answers import Answers
from producer.api.lots import Lot, LotPublisher, Pace, Placed, is_inline
from producer.api.problems import InDoubt
from producer.encoding import encode_pair
from producer.faults import TakenOver
from producer.job import OwnJob
from producer.pulse import Pulse
from producer.transactions import NO_HEADERS
from shared.messages import API, JobState, PairMessage, decode
from shared.settings import KafkaSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.traces import Headers, Tracer
from shared.topics import Topics
from tests.fetching import wait_until

TOPICS = Topics.of(KafkaSettings())


class Kafka:
    """What is on the topics, and how the next transactions end."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, bytes]] = []
        self.endings: list[str] = []
        self.away = False
        self.begun = 0
        self.gate = threading.Event()

    def transactions(self) -> "Transactions":
        return Transactions(self)

    # As the log of jobs has it.
    def latest(self, job: str) -> OwnJob | None:
        found = [value for topic, key, value in self.records if key == job.encode()]
        latest = decode(OwnJob, found[-1]) if found else None
        assert latest is None or isinstance(latest, OwnJob)
        return latest

    def open_jobs(self, wanted: Callable[[str], bool]) -> list[OwnJob]:
        names = {key.decode() for topic, key, _ in self.records if topic == TOPICS.jobs}
        jobs = [self.latest(name) for name in names if wanted(name)]
        return [job for job in jobs if job is not None and job.state is JobState.OPEN]

    def rows(self) -> list[tuple[str, int]]:
        found = [json.loads(value) for topic, _, value in self.records if topic != TOPICS.jobs]
        return [(each["job"], each["row"]) for each in found]


class Transactions:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._open: list[tuple[str, bytes, bytes]] = []
        self.in_doubt = False

    def start(self) -> None:
        if self._kafka.away:
            raise EnvironmentFault("Kafka does not answer")
        self._kafka.begun += 1

    def begin(self) -> None:
        self._open = []

    def add(self, topic: str, key: bytes, value: bytes, _headers: Headers = NO_HEADERS) -> None:
        self._open.append((topic, key, value))

    def commit(self, _settled: Callable[[], bool]) -> None:
        ending = self._kafka.endings.pop(0) if self._kafka.endings else "committed"
        if ending == "held":
            assert self._kafka.gate.wait(10)
            ending = "committed"
        if ending in {"committed", "committed without a word"}:
            self._kafka.records += self._open
        if ending == "taken over":
            raise TakenOver
        self.in_doubt = ending not in {"committed", "not acknowledged"}
        if ending != "committed":
            raise EnvironmentFault("Kafka does not answer")


class Settled:
    """What a lot was told."""

    def __init__(self) -> None:
        self.results: list[Placed | EnvironmentFault] = []

    def __call__(self, result: Placed | EnvironmentFault) -> None:
        self.results.append(result)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


def held(kafka: Kafka, publisher: LotPublisher, then: str) -> None:
    """Hold a transaction, so that what is put now is in the next, which ends so."""
    kafka.endings = ["held", then]
    put(publisher, 1, a_job("first"))
    wait_until(lambda: len(kafka.endings) == 1)


@contextmanager
def publishing(
    kafka: Kafka, name: str = "one", rows: int = 100
) -> Iterator[tuple[LotPublisher, list[BaseException]]]:
    crashes: list[BaseException] = []
    ending = StopSignal()
    made: Any = kafka
    publisher = LotPublisher(
        name,
        make_transactions=made.transactions,
        log=made,
        topics=TOPICS,
        partition=3,
        answers=Answers("me"),
        pace=Pace(rows, 3_600.0),
        pulse=Pulse(ending, Health()),
        health=Health(),
        published=lambda _job, _rows: None,
        on_crash=crashes.append,
        tracer=Tracer(),
    )
    publisher.start()
    try:
        yield publisher, crashes
    finally:
        ending.ask()
        publisher.close()


def put(publisher: LotPublisher, count: int, job: OwnJob | None = None) -> Settled:
    settled = Settled()
    pairs = [(f"http://e.org/{row}", "c") for row in range(count)]
    publisher.put(Lot(pairs, settled, job=job))
    return settled


def put_and_lose(kafka: Kafka, publisher: LotPublisher, ending: str) -> Settled:
    """Put a lot whose transaction ends so, after which Kafka is away."""
    held(kafka, publisher, ending)
    told = put(publisher, 2)
    kafka.away = True
    kafka.gate.set()
    return told


def a_job(name: str) -> OwnJob:
    return OwnJob(
        job=name, source=API, rows_published=0, state=JobState.OPEN, created_at=datetime.now(UTC)
    )


def test_rows_of_requests_follow_each_other_in_one_job(kafka):
    with publishing(kafka) as (publisher, _):
        told = [put(publisher, count) for count in (3, 2, 1)]
        wait_until(lambda: all(each.results for each in told))
    places = [each.results[0] for each in told]
    assert [each.first for each in places if isinstance(each, Placed)] == [0, 3, 5]
    (job,) = {job for job, _ in kafka.rows()}
    assert is_inline(job)
    assert [row for _, row in kafka.rows()] == list(range(6))
    closed = kafka.latest(job)
    assert closed is not None
    assert (closed.state, closed.rows) == (JobState.CLOSED, 6)


def test_commit_that_came_about_without_a_word_is_told_when_it_is_known(kafka):
    with publishing(kafka) as (publisher, _):
        held(kafka, publisher, "committed without a word")
        inline, whole = put(publisher, 2), put(publisher, 2, a_job("whole"))
        kafka.away = True
        kafka.gate.set()
        wait_until(lambda: publisher.fault is not None)
        # Nobody knows yet.
        assert not inline.results
        assert not whole.results
        later = put(publisher, 1)
        wait_until(lambda: bool(later.results))
        assert isinstance(later.results[0], EnvironmentFault)
        kafka.away = False
        wait_until(lambda: bool(inline.results and whole.results), within=10)
        assert all(isinstance(each.results[0], Placed) for each in (inline, whole))
        again = put(publisher, 1)
        wait_until(lambda: bool(again.results))
        assert isinstance(again.results[0], Placed)
        assert again.results[0].first == 0, "an in-line job whose end was not known is closed"
    assert len(kafka.rows()) == len(set(kafka.rows())) == 6


def test_commit_that_nobody_knows_of_at_the_end_is_said_to_be_in_doubt(kafka):
    with publishing(kafka) as (publisher, _):
        told = put_and_lose(kafka, publisher, "committed without a word")
        wait_until(lambda: publisher.fault is not None)
    assert isinstance(told.results[0], InDoubt)


def test_what_kafka_did_not_acknowledge_is_refused_at_once(kafka):
    with publishing(kafka) as (publisher, _):
        told = put_and_lose(kafka, publisher, "not acknowledged")
        wait_until(lambda: bool(told.results))
        [refused] = told.results
        assert isinstance(refused, EnvironmentFault)
        assert not isinstance(refused, InDoubt)


def test_commit_that_did_not_come_about_is_refused(kafka):
    with publishing(kafka) as (publisher, _):
        kafka.endings = ["aborted"]
        lost = put(publisher, 2)
        wait_until(lambda: bool(lost.results), within=10)
        assert isinstance(lost.results[0], EnvironmentFault)
        kept = put(publisher, 1)
        wait_until(lambda: bool(kept.results), within=10)
        assert isinstance(kept.results[0], Placed)
    assert len(kafka.rows()) == 1


def test_all_that_a_transaction_says_must_be_there(kafka):
    """One of its jobs may be another process's, which published the same batch."""
    with publishing(kafka) as (publisher, _):
        held(kafka, publisher, "aborted")
        batch = a_job("batch")
        told = [put(publisher, 1, batch), put(publisher, 1, a_job("small"))]
        kafka.records.append((TOPICS.jobs, b"batch", batch.closed(1).encode()))
        kafka.gate.set()
        wait_until(lambda: all(each.results for each in told), within=10)
    assert kafka.latest("small") is None
    assert isinstance(told[1].results[0], EnvironmentFault)


def test_whoever_is_taken_over_refuses_and_ends(kafka):
    with publishing(kafka) as (publisher, crashes):
        kafka.endings = ["taken over"]
        told = put(publisher, 1)
        wait_until(lambda: bool(crashes and told.results))
        assert isinstance(crashes[0], EnvironmentFault)
        assert str(crashes[0]).startswith("another API process of this name has taken over")
        assert isinstance(told.results[0], EnvironmentFault)


def test_what_an_earlier_process_left_open_is_closed_and_that_of_others_not(kafka):
    stamp = "20260131T123000-0f5a0e6c"
    for name in (f"inline-one-{stamp}", f"inline-one-1-{stamp}", "inline-one"):
        job = a_job(name).published(7)
        kafka.records.append((TOPICS.jobs, name.encode(), job.encode()))
    with publishing(kafka):
        pass
    states = {name: kafka.latest(name) for name in (f"inline-one-{stamp}", f"inline-one-1-{stamp}")}
    assert [None if job is None else job.rows for job in states.values()] == [7, None]


def test_a_row_is_encoded_as_its_message_is():
    now = datetime.now(UTC)
    reply_to = {"partition": 3, "key": "me"}
    value = encode_pair("a-job", 5, "http://e.org/é", 'a "caption"', now, reply_to)
    message = decode(PairMessage, value)
    assert isinstance(message, PairMessage)
    assert message.encode() == value
