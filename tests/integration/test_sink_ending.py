"""Sinks that are asked to end while what they need hangs: they end in time, and nothing is lost."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from deploy import local
from shared.shutdown import EXIT_LATE
from sink.running import END_SECONDS
from tests.commands import heeds
from tests.fetching import wait_until
from tests.postgres_sinks import Sinks, ask, database, sinks
from tests.services import had
from tests.sinking import DEADLINE, Place, Sink, place, plain_job

MARGIN = 3.0
ON_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pairscore sink' "
    "AND datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    """One that may be made to hang."""
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def server() -> Iterator[local.NativePostgres]:
    """One that may be made to hang."""
    with had(local.postgres(native=True)) as postgres:
        yield postgres


@pytest.fixture
def where(broker: local.NativeKafka, topic_prefix: str, tmp_path: Path) -> Place:
    return place(broker.bootstrap_servers, topic_prefix, tmp_path)


@pytest.fixture
def fleet(server: local.NativePostgres, where: Place, tmp_path: Path) -> Iterator[Sinks]:
    (tmp_path / "postgres").mkdir()
    with database(server.url) as url, sinks(where, url, tmp_path / "postgres") as found:
        yield found


def ended(sink: Sink) -> tuple[int, float]:
    """The exit code of a sink that is asked to end, and the seconds that it took."""
    began = time.monotonic()
    return sink.terminate(), time.monotonic() - began


def test_sinks_that_wait_for_kafka_to_begin_end_at_once_when_they_are_asked_to(
    broker, where, fleet
):
    broker.pause(1)
    try:
        with where.sink() as csv:
            both = (csv, fleet.start())
            wait_until(
                lambda: all(heeds(sink.process.pid, signal.SIGTERM) for sink in both),
                within=DEADLINE,
            )
            time.sleep(1)  # not a condition: what they wait for says nothing
            for sink in both:
                code, seconds = ended(sink)
                assert code == 0
                assert seconds < MARGIN
                assert not sink.lines
    finally:
        broker.resume(1)


def test_sinks_whose_kafka_hangs_end_in_order_when_they_are_asked_to(
    broker, where, fleet, tmp_path
):
    job = plain_job("hung", 600, tmp_path / "in")
    with where.sink() as csv:
        postgres = fleet.start()
        where.publish([job.begun, *job.scores[:300]])
        wait_until(lambda: fleet.ready() and fleet.stored() == 300, within=DEADLINE)
        wait_until(lambda: "hung" in where.status and where.status["hung"].done == 300)
        broker.pause(1)
        try:
            with ThreadPoolExecutor() as pool:
                for code, seconds in pool.map(ended, (csv, postgres)):
                    assert code == 0
                    assert seconds < END_SECONDS
        finally:
            broker.resume(1)
    where.forget_producer()
    where.publish([*job.scores[300:], job.closed])
    fleet.start()
    with where.sink():
        wait_until(lambda: where.complete("hung"), within=DEADLINE)
    where.assert_exact(job)
    fleet.finish("hung")
    fleet.assert_exact(job)


def test_a_sink_that_takes_partitions_over_when_kafka_hangs_is_ended_in_time(
    broker, where, fleet, tmp_path
):
    job = plain_job("over", 300, tmp_path / "in")
    where.publish([*job.scores, job.closed])
    assert fleet.start().process.poll() is None
    wait_until(lambda: fleet.ready() and fleet.complete("over"), within=DEADLINE)
    assert fleet.started[0].terminate() == 0
    with psycopg.connect(fleet.url) as blocking:
        blocking.execute("LOCK TABLE pairscore.offsets IN EXCLUSIVE MODE")
        sink = fleet.start()
        wait_until(lambda: ask(fleet.url, ON_LOCK) == [(1,)], within=DEADLINE)
        broker.pause(1)
    try:
        wait_until(lambda: ask(fleet.url, ON_LOCK) == [(0,)], within=DEADLINE)
        code, seconds = ended(sink)
    finally:
        broker.resume(1)
    assert code == EXIT_LATE
    assert END_SECONDS <= seconds < END_SECONDS + MARGIN
    assert sink.said("not ended 10 s after being asked to")
    more = plain_job("after", 300, tmp_path / "in")
    where.forget_producer()
    where.publish([*more.scores, more.closed])
    fleet.start()
    fleet.finish("after")
    fleet.assert_exact(job)
    fleet.assert_exact(more)


def test_a_sink_whose_database_hangs_is_ended_in_time_and_loses_nothing(
    server, where, fleet, tmp_path
):
    job = plain_job("stuck", 600, tmp_path / "in")
    sink = fleet.start()
    where.publish([job.begun, *job.scores[:300]])
    wait_until(lambda: fleet.ready() and fleet.stored() == 300, within=DEADLINE)
    server.pause()
    try:
        where.publish([*job.scores[300:], job.closed])
        code, seconds = ended(sink)
    finally:
        server.resume()
    assert code == EXIT_LATE
    assert seconds < END_SECONDS + MARGIN
    fleet.start()
    fleet.finish("stuck")
    fleet.assert_exact(job)
