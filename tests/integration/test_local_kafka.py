"""Kafka as `deploy.local` starts it: real brokers, transactions, losses and returns."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from deploy import local
from deploy.local.broker import new_cluster_id
from deploy.local.ports import listens
from tests.fetching import wait_until
from tests.services import had, must_have_docker

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    with had(local.kafka(native=True)) as kafka:
        yield kafka


def client(kafka: local.Kafka, **properties: str) -> dict[str, str | int | float | bool]:
    # Losing brokers is what these tests are about: no need to report it, nor to wait 10 s after it.
    named = {name.replace("_", "."): value for name, value in properties.items()}
    return {
        "bootstrap.servers": kafka.bootstrap_servers,
        "log_level": 0,
        "reconnect.backoff.max.ms": 500,
        **named,
    }


def create_topic(kafka: local.Kafka, copies: int = 1) -> str:
    topic = uuid.uuid4().hex
    admin = AdminClient(client(kafka))
    for created in admin.create_topics([NewTopic(topic, 1, copies)]).values():
        created.result(20)
    return topic


def publish(producer: Producer, topic: str, *values: str) -> None:
    """Produce in a transaction of its own."""
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value.encode())
    producer.commit_transaction(60)


def transactional(kafka: local.Kafka) -> Producer:
    producer = Producer(client(kafka, transactional_id=uuid.uuid4().hex))
    producer.init_transactions(60)
    return producer


def committed(kafka: local.Kafka, topic: str, count: int) -> list[str]:
    """The first values that a reader of committed transactions gets, in a group of KIP-848."""
    consumer = Consumer(
        client(
            kafka,
            group_id=uuid.uuid4().hex,
            group_protocol="consumer",
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
    )
    consumer.subscribe([topic])
    values: list[str] = []

    def read() -> bool:
        for message in consumer.consume(count, timeout=0.1):
            assert message.error() is None
            values.append((message.value() or b"").decode())
        return len(values) >= count

    try:
        wait_until(read, within=60.0)
    finally:
        consumer.close()
    return values


def brokers_known(kafka: local.Kafka, timeout: float = 10.0) -> set[int]:
    return set(AdminClient(client(kafka)).list_topics(timeout=timeout).brokers)


def end_offset(kafka: local.Kafka, topic: str) -> int:
    consumer = Consumer(client(kafka, group_id="none"))
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)[1]
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def contained() -> Iterator[local.Kafka]:
    must_have_docker()
    with had(local.kafka()) as kafka:
        assert kafka.how == "docker"
        yield kafka


@pytest.mark.parametrize("how", ["broker", "contained"])
def test_only_committed_transactions_are_read(request: pytest.FixtureRequest, how: str) -> None:
    broker = request.getfixturevalue(how)
    topic, producer = create_topic(broker), transactional(broker)
    publish(producer, topic, "one", "two")
    producer.begin_transaction()
    producer.produce(topic, b"never")
    producer.flush(20)
    producer.abort_transaction(20)
    publish(producer, topic, "three")
    assert committed(broker, topic, 3) == ["one", "two", "three"]
    # Each transaction ends with a marker: the aborted record is in the log, and was passed over.
    assert end_offset(broker, topic) == 4 + 3


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarted_broker_has_its_address_and_data(broker: local.NativeKafka, how: str) -> None:
    topic, address = create_topic(broker), broker.bootstrap_servers
    publish(transactional(broker), topic, "kept")
    # What ends the transaction is there: a broker that is killed before it has written that may
    # leave it open when it comes back, for longer than anybody waited.
    assert committed(broker, topic, 1) == ["kept"]
    pid = broker.pid(1)
    getattr(broker, how)(1)
    assert not broker.running(1)
    assert not listens(int(address.partition(":")[2]))
    broker.start(1)
    assert broker.pid(1) != pid
    assert broker.bootstrap_servers == address
    publish(transactional(broker), topic, "new")
    assert committed(broker, topic, 2) == ["kept", "new"]


def test_paused_broker_is_silent_until_resumed(broker: local.NativeKafka) -> None:
    broker.pause(1)
    try:
        with pytest.raises(KafkaException):
            brokers_known(broker, timeout=1.0)
    finally:
        broker.resume(1)
    assert brokers_known(broker) == {1}


@pytest.mark.parametrize("how", ["broker", "contained"])
def test_broker_misses_members_after_ten_seconds_and_makes_no_topics(
    request: pytest.FixtureRequest, how: str
) -> None:
    admin = AdminClient(client(request.getfixturevalue(how)))
    [described] = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values()
    values = {name: entry.value for name, entry in described.result(20).items()}
    assert values["group.consumer.session.timeout.ms"] == "10000"
    assert values["group.consumer.heartbeat.interval.ms"] == "1000"
    assert values["auto.create.topics.enable"] == "false"
    assert values["offsets.topic.num.partitions"] == "4"
    assert (values["advertised.listeners"] or "").startswith("PLAINTEXT://127.0.0.1:")


def test_broker_says_nothing_on_the_terminal_and_all_in_its_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with had(local.kafka(native=True)) as kafka:
        assert "Kafka Server started" in kafka.log(1).read_text()
        assert "SLF4J" not in kafka.log(1).read_text()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not EPHEMERAL.exists(), reason="says which ports clients get on Linux")
def test_no_client_can_take_the_port_of_a_broker_that_is_down(broker: local.NativeKafka) -> None:
    port = int(broker.bootstrap_servers.rpartition(":")[2])
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    assert not lowest <= port <= highest


def test_three_brokers_lose_any_one_and_nothing_else() -> None:
    with had(local.kafka(brokers=3, native=True)) as kafka:
        topic, published = create_topic(kafka, copies=3), ["first"]
        producer = transactional(kafka)
        publish(producer, topic, "first")
        for node in kafka.nodes:
            kafka.kill(node)
            value = f"without {node}"
            # The first with one of the other two as coordinator perhaps, the second always anew.
            publish(producer, topic, value)
            publish(transactional(kafka), topic, f"anew {value}")
            published += [value, f"anew {value}"]
            assert committed(kafka, topic, len(published)) == published
            kafka.start(node)
            wait_until(lambda: in_sync(kafka, topic) == {1, 2, 3}, within=60.0)
        assert brokers_known(kafka) == {1, 2, 3}


def in_sync(kafka: local.Kafka, topic: str) -> set[int]:
    metadata = AdminClient(client(kafka)).list_topics(topic, timeout=20)
    return set(metadata.topics[topic].partitions[0].isrs)


def test_name_of_a_cluster_is_never_taken_for_an_option() -> None:
    names = {new_cluster_id() for _ in range(1_000)}
    assert len(names) == 1_000
    assert {len(name) for name in names} == {22}
    assert not [name for name in names if name.startswith("-")]


def test_given_folder_is_kept_for_the_next_start(tmp_path: Path) -> None:
    with had(local.kafka(native=True, folder=tmp_path / "kept")) as kafka:
        topic = create_topic(kafka)
        publish(transactional(kafka), topic, "kept")
    with local.kafka(native=True, folder=tmp_path / "kept") as kafka:
        assert committed(kafka, topic, 1) == ["kept"]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("cluster-id", "AAAAAAAAAAAAAAAAAAAAAA", r"data folder .*Invalid cluster\.id"),
        ("kafka-1/__cluster_metadata-0/quorum-state", "{", r"kafka-1 ended at once; its log says"),
    ],
)
def test_broker_that_does_not_start_says_why_in_one_line(
    tmp_path: Path, file: str, content: str, reason: str
) -> None:
    with had(local.kafka(native=True, folder=tmp_path)):
        pass
    (tmp_path / file).write_text(content)
    with (
        pytest.raises(local.Unavailable, match=reason) as raised,
        local.kafka(native=True, folder=tmp_path),
    ):
        pass
    assert "Exception" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_address_in_the_environment_wins(
    broker: local.NativeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    with local.kafka() as kafka:
        assert kafka.how == "environment"
        assert kafka.bootstrap_servers == broker.bootstrap_servers
    assert brokers_known(broker) == {1}
    with local.kafka(native=True) as own:
        assert own.how == "native"
        assert own.bootstrap_servers != broker.bootstrap_servers


def shim(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "java is not installed"),
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "is Java 11, and Kafka needs 17"),
        ("echo 'java version \"1.8.0_292\"' >&2", "is Java 8, and Kafka needs 17"),
        ("echo 'No Java runtime present' >&2; exit 1", "does not run: No Java runtime present"),
    ],
)
def test_missing_java_is_one_line_that_says_what_to_do(
    tmp_path: Path, script: str | None, reason: str
) -> None:
    if script is not None:
        shim(tmp_path, "java", script)
    environment = {"PATH": str(tmp_path)}
    with (
        pytest.raises(local.Unavailable) as raised,
        local.kafka(native=True, environment=environment),
    ):
        pass
    line = str(raised.value)
    assert reason in line
    assert "apt install openjdk-17-jre-headless maven" in line
    assert "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS" in line
    assert "\n" not in line
    assert raised.value.exit_code == 3


def test_failed_fetch_leaves_no_half_of_kafka(tmp_path: Path) -> None:
    from deploy.local.jars import kafka_jars

    leave_one_jar = (
        "for word; do case $word in -DoutputDirectory=*) folder=${word#*=};; esac; done\n"
        f'PATH={os.environ["PATH"]}; mkdir -p "$folder" && touch "$folder/kafka_2.13.jar"\n'
        "echo '[INFO] trying'; echo '[ERROR] no route to the repository'; exit 1"
    )
    shim(tmp_path, "mvn", leave_one_jar)
    cache = tmp_path / "cache"
    (cache / "partial-killed" / "jars").mkdir(parents=True)
    with pytest.raises(local.WayClosed, match="no route to the repository"):
        kafka_jars({"PATH": str(tmp_path)}, cache)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []
    with pytest.raises(local.WayClosed, match="mvn is not installed"):
        kafka_jars({"PATH": str(cache)}, cache)
