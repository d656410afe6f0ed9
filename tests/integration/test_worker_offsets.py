"""Where the worker reads, against real Kafka: at the committed offset, whatever goes wrong."""

import logging
import re
import time

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from deploy import local
from deploy.local.ports import free_ports
from shared.clients import make_consumer, make_producer
from shared.telemetry.health import Health
from shared.telemetry.metrics import Metrics
from tests.fetching import wait_until
from tests.services import had
from tests.working import SCORE, WITHIN, Fleet, Told, said_by_worker, url_of, working
from worker import offsets
from worker.__main__ import GROUP
from worker.ledger import Ledger, Partition, Plan
from worker.meter import Meter
from worker.publication import Publication
from worker.transactions import Fatal, Transactions


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


def open_transaction(fleet: Fleet, places: list[TopicPartition]) -> Producer:
    """A producer in the middle of a transaction with offsets of the group's in it."""
    nobody = make_consumer(fleet.connection, group=GROUP)
    producer = make_producer(fleet.connection, transactional_id="left-open")
    producer.init_transactions(WITHIN)
    producer.begin_transaction()
    producer.send_offsets_to_transaction(
        nobody.committed(places, WITHIN), nobody.consumer_group_metadata(), WITHIN
    )
    nobody.close()
    return producer


def test_offsets_of_quiet_partitions_are_committed_again(fleet, monkeypatch):
    monkeypatch.setattr(offsets, "_RENEW_SECONDS", 0.3)
    renewed: list[dict[tuple[str, int], int]] = []

    class Watched(Transactions):
        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            super().publish(plan, seconds)
            if not plan.outcomes and len(plan.offsets) > 1:
                renewed.append(dict(plan.offsets))

    fleet.publish(range(60))
    ends = {(fleet.topics.pairs, number) for number in range(3)}
    with working(fleet, Told(), transactions=Watched):
        wait_until(lambda: fleet.rows() == list(range(60)), within=WITHIN)
        renewed.clear()
        wait_until(lambda: len(renewed) >= 2, within=WITHIN)
    assert ends <= renewed[-1].keys()
    with working(fleet, second := Told()):
        wait_until(lambda: fleet.lag() == 0, within=WITHIN)
    assert second.seen == []


def test_records_that_kafka_deleted_unread_are_said_to_be_missing(fleet, caplog):
    fleet.publish(range(30))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(30)) and not fleet.lag(), within=WITHIN)
    fleet.publish(range(30, 60))
    ends = [TopicPartition(fleet.topics.pairs, number, OFFSET_END) for number in range(3)]
    for future in fleet.admin.delete_records(ends).values():
        future.result(WITHIN)
    fleet.publish(range(60, 90))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == [*range(30), *range(60, 90)], within=WITHIN)
    said = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == 3
    assert all("are gone from Kafka and were not scored" in line for line in said)


def test_records_that_kafka_deletes_while_a_worker_is_behind_are_said_to_be_missing(fleet, caplog):
    [port] = free_ports(1)
    scorer = Told(lambda _: None)
    fleet.publish(range(30))
    with working(fleet, scorer, window=3, telemetry={"port": port}):
        wait_until(lambda: len(scorer.kept) >= 3, within=WITHIN)
        wait_until(lambda: said_by_worker(port)["paused_partitions"] >= 3, within=WITHIN)
        taken = len(scorer.kept)
        ends = [TopicPartition(fleet.topics.pairs, number, OFFSET_END) for number in range(3)]
        for future in fleet.admin.delete_records(ends).values():
            future.result(WITHIN)
        fleet.publish(range(30, 60))
        scorer.answer = lambda _: SCORE
        for kept in scorer.kept:
            kept.set_result(SCORE)
        wait_until(lambda: set(range(30, 60)) <= set(fleet.rows()), within=WITHIN)
    assert len(fleet.rows()) == taken + 30
    said = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    gone = [re.search(r"from offset (\d+) to (\d+) are gone from Kafka", line) for line in said]
    assert sum(int(found[2]) - int(found[1]) + 1 for found in gone if found) == 30 - taken
    assert taken < 30


def test_broker_that_has_lost_records_ends_the_worker_that_read_them(tmp_path, topic_prefix):
    """It must not wait until the log has grown to where it was."""
    with had(local.kafka(native=True, folder=tmp_path / "kafka")) as broker:
        fleet = Fleet(broker.bootstrap_servers, topic_prefix)
        fleet.publish(range(30))
        with pytest.raises(Fatal, match=r"records end at \d+: it has lost some"):  # noqa: PT012, SIM117
            with working(fleet, Told()) as stop:
                wait_until(lambda: fleet.rows() == list(range(30)) and not fleet.lag(), WITHIN)
                broker.kill(1)
                for log in tmp_path.glob(f"kafka/kafka-1/{fleet.topics.pairs}-*/*.log"):
                    log.write_bytes(b"")
                broker.start(1)
                fleet.publish(range(30, 33))
                wait_until(lambda: stop.asked, WITHIN)


def test_rows_that_take_the_place_of_lost_ones_are_scored(tmp_path, topic_prefix, caplog):
    """What is said to be published ahead is nothing that Kafka has lost."""
    with had(local.kafka(native=True, folder=tmp_path / "kafka")) as broker:
        fleet = Fleet(broker.bootstrap_servers, topic_prefix)
        slow = {url_of(row) for row in range(5)}
        fleet.publish(range(60), fleet.topics.interactive)
        with working(
            fleet,
            Told(lambda pair: None if pair.url in slow else SCORE),
            worker={"id": "w", "shutdown_seconds": 0},
        ):
            wait_until(lambda: fleet.rows() == list(range(5, 60)), WITHIN)
        broker.kill(1)
        for log in tmp_path.glob(f"kafka/kafka-1/{fleet.topics.interactive}-*/*.log"):
            log.write_bytes(b"")
        broker.start(1)
        fleet.publish(range(100, 130), fleet.topics.interactive)
        with working(fleet, Told()):
            wait_until(lambda: set(range(100, 130)) <= set(fleet.rows()), WITHIN)
    said = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert any("it has lost some" in line for line in said)


def test_place_beyond_the_end_of_a_topic_is_said(fleet, caplog):
    consumer = make_consumer(fleet.connection, group=GROUP)
    places = [TopicPartition(fleet.topics.pairs, number, 1_000) for number in range(3)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
    fleet.publish(range(30))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(30)), within=WITHIN)
    said = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert len(said) == 3
    assert all("up to offset 1000, and Kafka's records end at" in line for line in said)


def test_urgent_rows_do_not_wait_for_a_slow_one_and_are_not_scored_again(fleet):
    slow = range(5)
    waits = {url_of(row) for row in slow}
    first = Told(lambda pair: None if pair.url in waits else SCORE)
    fleet.publish(range(40), fleet.topics.interactive)
    with working(fleet, first, worker={"id": "w", "shutdown_seconds": 0}):
        wait_until(lambda: fleet.rows() == list(range(5, 40)), within=WITHIN)
        fleet.publish(range(40, 50), fleet.topics.interactive)
        wait_until(lambda: fleet.rows() == list(range(5, 50)), within=WITHIN)
    # It ends before the slow ones come out; who is next leaves out what was published ahead.
    second = Told(lambda pair: None if pair.url == url_of(0) else SCORE)
    with working(fleet, second, worker={"id": "w", "shutdown_seconds": 0}):
        wait_until(lambda: fleet.rows() == list(range(1, 50)), within=WITHIN)
        assert second.rows() == list(slow)
    third = Told()
    with working(fleet, third):
        wait_until(lambda: fleet.rows() == list(range(50)) and not fleet.lag(), within=WITHIN)
    assert third.rows() == [0]


def test_committed_offset_that_kafka_does_not_tell_holds_nobody_up_for_long(fleet):
    fleet.publish(range(60))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(60)) and not fleet.lag(), within=WITHIN)
    partitions = [(fleet.topics.pairs, number) for number in range(3)]
    producer = open_transaction(fleet, [TopicPartition(*each) for each in partitions])
    consumer = make_consumer(fleet.connection, group=GROUP)
    consumer.assign([TopicPartition(*each, 0) for each in partitions])
    ledger: Ledger[Publication] = Ledger()
    looking = offsets.Offsets(
        consumer,
        Transactions(producer, consumer),
        ledger,
        Meter(Metrics("worker"), Health()),
        time.monotonic,
    )
    for each in partitions:
        ledger.assign(each)
        looking.expect(each)
    assert consumer.poll(WITHIN) is not None
    started = time.monotonic()
    assert all(looking.redirect(each, 0) for each in partitions)
    assert time.monotonic() - started < 2, "one was asked for, the others wait"
    assert all(looking.waits(each) for each in partitions)
    assert [ledger.next_offset(each) for each in partitions] == [0, 0, 0]
    producer.abort_transaction(WITHIN)
    for each in partitions:
        wait_until(lambda: looking.redirect(each, 0) and ledger.next_offset(each) > 0, WITHIN)  # noqa: B023
        assert not looking.waits(each)
    consumer.close()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_partitions_are_read_though_kafka_did_not_tell_their_offsets_when_they_came(
    kafka, topic_prefix, monkeypatch, protocol
):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix, group_protocol=protocol)
    fleet.publish(range(60))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(60)) and not fleet.lag(), within=WITHIN)
    fleet.publish(range(60, 90))
    ask, refused = offsets.Offsets._ask, []

    def moved(
        self: offsets.Offsets, partitions: list[Partition], seconds: float
    ) -> list[TopicPartition]:
        if len(partitions) > 1:
            refused.append(len(partitions))
            raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        return ask(self, partitions, seconds)

    monkeypatch.setattr(offsets.Offsets, "_ask", moved)
    scorer = Told()
    with working(fleet, scorer):
        wait_until(lambda: fleet.rows() == list(range(90)) and not fleet.lag(), within=WITHIN)
    assert refused
    assert scorer.rows() == list(range(60, 90))


def test_reading_begins_at_what_is_committed_without_librdkafka_asking_for_it(fleet):
    fleet.publish(range(60))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(60)) and not fleet.lag(), within=WITHIN)
    consumer = make_consumer(fleet.connection, group=GROUP)
    looking = offsets.Offsets(
        consumer,
        Transactions(fleet.producer, consumer),
        Ledger(),
        Meter(Metrics("worker"), Health()),
        time.monotonic,
    )
    read = [(fleet.topics.pairs, number) for number in range(3)]
    unread = (fleet.topics.interactive, 0)
    *starts, first = looking.starts([*read, unread])
    assert [(each.topic, each.partition) for each in starts] == read
    assert sum(each.offset for each in starts) >= 60
    assert first.offset == OFFSET_BEGINNING
    assert looking.starts([]) == []
    consumer.close()


def test_open_transaction_and_a_rebalance_make_nobody_read_from_the_beginning(fleet):
    fleet.publish(range(60))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(60)) and not fleet.lag(), within=WITHIN)
    places = [TopicPartition(fleet.topics.pairs, number) for number in range(3)]
    open_one = open_transaction(fleet, places)
    fleet.publish(range(60, 90))
    first, second = Told(), Told()
    with working(fleet, first):
        wait_until(lambda: fleet.members() == 1, within=WITHIN)
        with working(fleet, second, worker={"id": "v"}):
            wait_until(lambda: fleet.members() == 2, within=WITHIN)
            time.sleep(2)  # in which the first, left alone, asks for its offsets again
            open_one.abort_transaction(WITHIN)
            wait_until(lambda: set(fleet.rows()) == set(range(90)), within=WITHIN)
    assert fleet.rows() == list(range(90))
    assert len(first.seen) + len(second.seen) == 30


def test_consumer_that_goes_back_makes_nobody_score_twice(fleet):
    """As librdkafka does now and then when a rebalance pauses partitions; here it is made to."""
    back: list[TopicPartition] = []

    class SentBack(Transactions):
        """Its consumer is sent to the beginning after the first row, and after the end."""

        def publish(self, plan: Plan[Publication], seconds: float) -> None:
            super().publish(plan, seconds)
            if len(back) < 6:
                places = [TopicPartition(*each, 0) for each in plan.offsets]
                for place in places:
                    self._consumer.seek(place)
                back.extend(places)

    fleet.publish(range(30))
    scorer = Told()
    with working(fleet, scorer, transactions=SentBack, worker={"id": "w", "commit_rows": 5}):
        wait_until(lambda: len(fleet.rows()) >= 30 and not fleet.lag(), within=WITHIN)
        fleet.publish(range(30, 60))
        wait_until(lambda: len(fleet.rows()) >= 60 and not fleet.lag(), within=WITHIN)
    assert fleet.rows() == list(range(60))
    assert len(scorer.seen) == 60
    assert len(back) >= 6
