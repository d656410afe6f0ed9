"""Kafka clients against a real broker: what they see, what they commit, and why they cannot."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from deploy.local import Kafka
from pairscore.errors import EnvironmentFault
from shared.clients import (
    FENCED,
    connect,
    end_offsets,
    make_admin,
    make_consumer,
    make_producer,
)
from shared.connection import Connection, describe
from shared.messages import key_of
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics
from tests.fetching import wait_until

SECONDS = 30.0
PARTITIONS = 5


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=topic_prefix,
        partitions=PARTITIONS,
        retry_delays=(),
    )


@pytest.fixture
def connection(settings: KafkaSettings) -> Connection:
    connection = Connection(settings)
    create_topics(settings, *connect(connection))
    return connection


@pytest.fixture
def pairs(settings: KafkaSettings) -> str:
    return Topics.of(settings).pairs


@pytest.fixture
def consumer(connection: Connection, pairs: str) -> Iterator[Consumer]:
    """Of all partitions of `pairs`, from their beginning."""
    consumer = make_consumer(connection, group="test")
    try:
        consumer.assign([TopicPartition(pairs, number, 0) for number in range(PARTITIONS)])
        yield consumer
    finally:
        consumer.close()


def transactional(connection: Connection, name: str = "t") -> Producer:
    producer = make_producer(connection, transactional_id=name)
    producer.init_transactions(SECONDS)
    return producer


def values(consumer: Consumer, count: int) -> list[bytes | None]:
    """The next values, which are expected to be no more than `count`."""
    found: list[bytes | None] = []

    def enough() -> bool:
        for message in consumer.consume(100, timeout=0.1):
            assert message.error() is None
            found.append(message.value())
        return len(found) >= count

    wait_until(enough, within=SECONDS)
    assert consumer.consume(1, timeout=0.5) == []
    return found


def murmur2(data: bytes) -> int:
    """The hash that Kafka's Java clients choose partitions by (Utils.murmur2)."""
    m, length = 0x5BD1E995, len(data)
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    for i in range(0, length - length % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & 0xFFFFFFFF
        k ^= k >> 24
        h = (h * m ^ k * m) & 0xFFFFFFFF
    rest = data[length - length % 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


def test_what_is_aborted_or_open_is_not_seen(connection, consumer, pairs):
    done, given_up, still_open = (transactional(connection, name) for name in "abc")
    for producer, value in ((given_up, b"no"), (done, b"yes"), (still_open, b"not yet")):
        producer.begin_transaction()
        producer.produce(pairs, value, b"key", partition=0)
        producer.flush(SECONDS)
    given_up.abort_transaction(SECONDS)
    done.commit_transaction(SECONDS)
    assert values(consumer, 1) == [b"yes"]
    still_open.commit_transaction(SECONDS)
    assert values(consumer, 1) == [b"not yet"]


def test_end_offsets_tell_what_is_committed_from_what_is_written(connection, settings, pairs):
    admin = make_admin(connection)
    at, other = (pairs, 0), (pairs, 1)
    producer = transactional(connection)
    producer.begin_transaction()
    for _ in range(3):
        producer.produce(pairs, b"x", partition=0)
    producer.flush(SECONDS)
    assert end_offsets(admin, [at, other], committed=True) == {at: 0, other: 0}
    assert end_offsets(admin, [at, other], committed=False) == {at: 3, other: 0}
    producer.commit_transaction(SECONDS)
    # The marker of the transaction takes an offset too.
    wait_until(lambda: end_offsets(admin, [at], committed=True) == {at: 4})
    assert end_offsets(admin, [], committed=True) == {}


def test_the_offsets_of_a_topic_that_is_not_there_are_an_error(connection):
    with pytest.raises(KafkaException):
        end_offsets(make_admin(connection), [("no.such.topic", 0)], committed=True, seconds=2)


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_consumer_commits_nothing_by_itself(settings, connection, pairs, protocol):
    producer = transactional(connection)
    producer.begin_transaction()
    producer.produce(pairs, b"x", partition=0)
    producer.commit_transaction(SECONDS)
    its_own = Connection(settings.model_copy(update={"group_protocol": protocol}))
    for _ in range(2):  # the second one finds it again
        consumer = make_consumer(its_own, group=protocol)
        try:
            consumer.subscribe([pairs])
            assert values(consumer, 1) == [b"x"]
        finally:
            consumer.close()


def test_a_second_producer_of_the_same_name_fences_the_first(connection, pairs):
    first = transactional(connection, "same")
    first.begin_transaction()
    first.produce(pairs, b"lost", partition=0)
    second = transactional(connection, "same")
    with pytest.raises(KafkaException) as error:
        first.commit_transaction(SECONDS)
    assert error.value.args[0].code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED}
    second.begin_transaction()
    second.produce(pairs, b"kept", partition=0)
    second.commit_transaction(SECONDS)


def test_one_that_was_fenced_says_so_whatever_else_it_has_to_report(connection, pairs):
    """Confluent-kafka alone ends in a SystemError here, more often than not."""

    def report(error: KafkaError | None, _: Message) -> None:
        reported.append(error)

    reported: list[KafkaError | None] = []
    first = transactional(connection, "same")
    first.begin_transaction()
    for partition in range(PARTITIONS):
        first.produce(pairs, b"lost", partition=partition)
    first.flush(SECONDS)
    transactional(connection, "same")
    with pytest.raises(KafkaException) as caught:  # noqa: PT012
        for partition in range(PARTITIONS):
            first.produce(pairs, b"lost", partition=partition, on_delivery=report)
        first.flush(SECONDS)
    assert caught.value.args[0].code() in FENCED


def test_fleets_of_another_prefix_do_not_fence_each_other(settings, connection, pairs):
    first = transactional(connection, "same")
    first.begin_transaction()
    first.produce(pairs, b"kept", partition=0)
    other = Connection(settings.model_copy(update={"topic_prefix": f"x{settings.topic_prefix}"}))
    transactional(other, "same")
    first.commit_transaction(SECONDS)


def test_rows_go_where_javas_clients_would_send_them(connection, pairs):
    landed: dict[bytes | None, int | None] = {}
    keys = [key_of(f"https://a.example/{'x' * n}é") for n in range(40)]
    producer = make_producer(connection, transactional_id=None)
    for key in keys:
        producer.produce(
            pairs,
            b"x",
            key,
            on_delivery=lambda _error, message: landed.update({message.key(): message.partition()}),
        )
    assert producer.flush(SECONDS) == 0
    assert landed == {key: (murmur2(key) & 0x7FFFFFFF) % PARTITIONS for key in keys}
    assert len(set(landed.values())) == PARTITIONS


def test_the_longest_row_can_be_published(settings, connection, consumer, pairs):
    producer = make_producer(connection, transactional_id=None)
    producer.produce(pairs, b"x" * settings.max_message_bytes, partition=0)
    assert producer.flush(SECONDS) == 0
    assert [len(value or b"") for value in values(consumer, 1)] == [settings.max_message_bytes]


def test_a_broker_that_comes_late_is_waited_for(kafka, topic_prefix):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    connection = Connection(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"))
    with Relay(port, kafka.bootstrap_servers, delay=2.0):
        _, found = connect(connection, SECONDS)
    assert found.brokers


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_broker_that_does_not_come_is_a_fault_in_time(seconds):
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as error:
        connect(connection, seconds)
    assert time.monotonic() - began < seconds + 2
    line = str(error.value)
    assert line.startswith(
        "setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at 127.0.0.1:1 ("
    )
    assert "Connection refused" in line
    assert line.isprintable()


def test_trouble_before_kafka_was_reached_is_said_in_the_fault_alone(caplog):
    caplog.set_level(logging.INFO)
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(EnvironmentFault, match="Connection refused"):
        connect(connection, 3)
    assert caplog.records == []


def test_trouble_before_kafka_was_reached_is_shown_to_those_who_look_for_more(caplog):
    caplog.set_level(logging.DEBUG)
    connection = Connection(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(EnvironmentFault):
        connect(connection, 3)
    assert "Connection refused" in caplog.text


def test_the_same_trouble_later_is_a_warning_once_in_a_while(kafka, caplog):
    caplog.set_level(logging.INFO)
    connection = Connection(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))
    connect(connection, SECONDS)
    assert caplog.records == []
    connection.settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")  # as if it had gone
    with pytest.raises(EnvironmentFault):
        connect(connection, 3)
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 3
    assert any(line.endswith("Connection refused") for line in lines)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("partition", [0, 1])
def test_one_that_was_taken_over_is_told_by_its_calls_and_not_by_the_log_too(
    connection, pairs, caplog, partition
):
    first = transactional(connection)
    first.begin_transaction()
    first.produce(pairs, b"", partition=0)
    first.flush(SECONDS)
    transactional(connection)
    with suppress(KafkaException):  # told where a partition is added, or else at the end
        first.produce(pairs, b"", partition=partition)
    with pytest.raises(KafkaException) as caught:
        first.commit_transaction(SECONDS)
    assert caught.value.args[0].code() in FENCED
    assert connection.reached
    assert caplog.messages == []


def test_a_partition_that_may_not_be_written_to_is_named_by_the_log(caplog):
    connection = Connection(KafkaSettings(bootstrap_servers="a:1"), reached=True)
    line = 'ADDPARTS [x]: TxnCoordinator/1: Failed to add partition "scores" [1] to transaction: %s'
    for code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_PRODUCER_EPOCH):
        connection.logger.error(line, KafkaError(code).str())
    assert caplog.messages == [line % "Broker: Topic authorization failed"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a:1/bootstrap: Connect failed (after 0ms in state CONNECT)", "Connect failed"),
        ("ssl://a:1/2: Broke (after 12ms in state SSL, 3 identical error(s) suppressed)", "Broke"),
        ("two\n lines", "two lines"),
    ],
)
def test_people_are_not_told_since_when_and_how_often(said, shown):
    error = KafkaError(KafkaError._TRANSPORT, said)
    assert describe(error).endswith(shown)
    connection = Connection(KafkaSettings(bootstrap_servers="a:1"))
    connection.on_error(error)
    assert f"({shown})" in str(connection.fault())


class Relay:
    """Begins to listen after a while, and passes on what comes."""

    def __init__(self, port: int, target: str, delay: float) -> None:
        host, _, number = target.partition(",")[0].rpartition(":")
        self._target = (host, int(number))
        self._port = port
        self._ended = threading.Event()
        self._delay = delay
        self._threads: list[threading.Thread] = []
        self._start(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _start(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        if self._ended.wait(self._delay):
            return
        with socket.create_server(("127.0.0.1", self._port)) as server:
            server.settimeout(0.05)
            while not self._ended.is_set():
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    continue
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target, timeout=SECONDS) as broker:
            self._start(self._pass, client, broker)
            self._pass(broker, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        source.settimeout(0.05)
        while not self._ended.is_set():
            try:
                data = source.recv(65_536)
                if not data:
                    return
                target.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                return
