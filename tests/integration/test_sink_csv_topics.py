"""Topics that grow, lose records or are made anew: read on, and never in silence."""

import signal
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from pairscore.errors import EnvironmentFault
from scripts.groups import committed_offsets
from sink.csv.source import GROUP, AssignedSource
from sink.topics import TopicWatch
from tests.fetching import wait_until
from tests.sinking import DEADLINE, Place, Sink, place, plain_job


@pytest.fixture
def where(kafka, topic_prefix, tmp_path):
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path)


@pytest.fixture
def source(where) -> Iterator[AssignedSource]:
    names = (where.topics.scores, where.topics.jobs)
    watch = TopicWatch(where.connection, where.admin, names, look_seconds=0.1)
    with closing(AssignedSource(where.connection, where.topics, watch)) as made:
        made.begin(watch.read(), {})
        yield made


def make_anew(where: Place) -> None:
    """Delete the topics and create others of their names."""
    names = [where.topics.scores, where.topics.jobs]
    for future in where.admin.delete_topics(names, operation_timeout=30).values():
        future.result(30)
    wait_until(lambda: not set(names) & set(where.admin.list_topics(timeout=10).topics))
    where.create()
    wait_until(lambda: set(names) <= set(where.admin.list_topics(timeout=10).topics))


def drop_records(where: Place, partition: int) -> int:
    """Have Kafka drop all records of a partition of `scores`; the first offset that is left."""
    asked = TopicPartition(where.topics.scores, partition, -1)
    (future,) = where.admin.delete_records([asked]).values()
    return int(future.result(30).low_watermark)


def taken(source: AssignedSource, count: int) -> list[tuple[int | None, bytes | None]]:
    found: list[tuple[int | None, bytes | None]] = []

    def enough() -> bool:
        found.extend((m.partition(), m.value()) for m in source.take(1000, 0.1))
        return len(found) >= count

    wait_until(enough, within=DEADLINE)
    return found


def complaint(sink: Sink, text: str) -> str:
    wait_until(lambda: sink.said(text), within=DEADLINE)
    line = next(line for line in sink.lines if text in line["message"])
    assert line["level"] == "error"
    return str(line["message"])


def test_new_partitions_are_read_from_their_beginning(where, source):
    where.publish_bytes([b"1", b"2"])
    assert taken(source, 2) == [(0, b"1"), (0, b"2")]
    (future,) = where.admin.create_partitions([NewPartitions(where.topics.scores, 5)]).values()
    future.result(30)
    grown = where.topics.scores
    wait_until(lambda: len(where.producer.list_topics(grown, 10).topics[grown].partitions) == 5)
    where.publish_bytes([b"3"], partition=4)
    where.publish_bytes([b"4"])
    assert sorted(taken(source, 2)) == [(0, b"4"), (4, b"3")]


def test_a_topic_that_is_made_anew_ends_the_sink(where, source):
    where.publish_bytes([b"1"])
    taken(source, 1)
    make_anew(where)

    def ended() -> bool:
        try:
            source.take(10, 0.1)
        except EnvironmentFault as fault:
            return where.topics.scores in str(fault) or where.topics.jobs in str(fault)
        return False

    wait_until(ended, within=DEADLINE)


def test_nothing_is_taken_while_it_is_held(where, source):
    where.publish_bytes([b"1"])
    taken(source, 1)
    source.hold(still=True)
    where.publish_bytes([b"2"])
    assert list(source.take(10, 1.0)) == []
    source.hold(still=False)
    assert taken(source, 1) == [(0, b"2")]


def test_lag_is_what_was_not_taken(where, source):
    where.publish_bytes([b"%d" % number for number in range(30)])
    found = 0

    def lagging() -> bool:
        nonlocal found
        found += len(source.take(1, 0.1))
        return bool(source.lag == 31 - found)  # with the end of the transaction

    wait_until(lagging, within=DEADLINE)
    taken(source, 30 - found)
    wait_until(lambda: not source.take(1, 0.1) and source.lag == 0, within=DEADLINE)


def test_kafka_is_told_how_far_the_sink_is(where, tmp_path):
    job = plain_job("lagging", 30, tmp_path / "in")
    where.publish([*job.scores, job.closed])
    ends = {(where.topics.scores, number) for number in range(where.settings.partitions)}

    def told() -> bool:
        found = committed_offsets(where.connection, GROUP, ends, DEADLINE)
        return {place for place, offset in found.items() if offset > 0} == ends

    with where.sink():
        wait_until(lambda: where.complete("lagging"), within=DEADLINE)
        wait_until(told, within=DEADLINE)


def test_records_that_were_lost_while_the_sink_was_down_are_said(where, tmp_path):
    job = plain_job("gaps", 60, tmp_path / "in")
    where.publish(job.scores[:30])
    with where.sink() as sink:
        wait_until(lambda: len(where.status) == 1, within=DEADLINE)
        wait_until(lambda: where.status["gaps"].done == 30, within=DEADLINE)
        assert sink.terminate() == 0
    where.publish([*job.scores[30:], job.closed])
    lost = drop_records(where, 1)
    with where.sink() as sink:
        line = complaint(sink, "are gone from Kafka and were not stored")
        assert f"{where.topics.scores} partition 1: the records from offset " in line
        assert f" to {lost - 1} " in line
        wait_until(lambda: where.status["gaps"].state == "closed", within=DEADLINE)
        wait_until(lambda: where.status["gaps"].done > 30, within=DEADLINE)
        assert sink.terminate() == 0
    assert where.status["gaps"].lag > 0
    where.publish(job.scores[30:])  # as a worker that is made to score them again would
    with where.sink():
        wait_until(lambda: where.complete("gaps"), within=DEADLINE)
    where.assert_exact(job)


def test_records_that_are_lost_while_the_sink_hangs_are_said(where, tmp_path):
    job = plain_job("hung", 60, tmp_path / "in")
    where.publish(job.scores[:30])
    with where.sink() as sink:
        wait_until(lambda: len(where.status) == 1, within=DEADLINE)
        wait_until(lambda: where.status["hung"].done == 30, within=DEADLINE)
        sink.process.send_signal(signal.SIGSTOP)
        stopped = psutil.Process(sink.process.pid)
        wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED)
        where.publish(job.scores[30:], at_once=5)
        drop_records(where, 2)
        sink.process.send_signal(signal.SIGCONT)
        complaint(sink, f"{where.topics.scores} partition 2: the records from offset ")
        where.publish([*job.scores[30:], job.closed])
        wait_until(lambda: where.complete("hung"), within=DEADLINE)
    where.assert_exact(job)


def test_topics_made_anew_are_read_anew_and_their_jobs_replace_complete_ones(where, tmp_path):
    first = plain_job("again", 20, tmp_path / "first")
    half = plain_job("half", 20, tmp_path / "first")
    where.publish([*first.scores, first.closed, *half.scores[:5]])
    with where.sink() as sink:
        wait_until(lambda: where.complete("again"), within=DEADLINE)
        wait_until(lambda: where.status["half"].done == 5, within=DEADLINE)
        assert sink.terminate() == 0
    make_anew(where)
    second = plain_job("again", 35, tmp_path / "second")
    where.publish([*second.scores, second.closed, *half.scores[5:], half.closed])
    with where.sink() as sink:
        complaint(sink, f"topic {where.topics.scores} was deleted and made anew")
        wait_until(lambda: where.complete("again", "half"), within=DEADLINE)
        wait_until(lambda: where.status["again"].rows == 35, within=DEADLINE)
        wait_until(lambda: where.complete("again"), within=DEADLINE)
    where.assert_exact(second)
    where.assert_exact(half)
