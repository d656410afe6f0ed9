"""Limits of Kafka's that would stop a fleet are said in one line before anything is published."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from deploy import local
from deploy.local.broker import behaviour, listeners
from deploy.local.ports import free_ports
from pairscore.errors import EnvironmentFault
from producer import transactions as producer_transactions
from shared.clients import connect, make_producer
from shared.connection import Connection
from shared.limits import Coordinator, check_compacted, check_coordinators, check_room, room
from shared.settings import KafkaSettings
from tests.fetching import wait_until
from tests.postgres_sinks import database
from tests.producing import Place, place
from tests.publishing import Publisher
from tests.refusing import run, run_all, services
from tests.services import had

FACTOR = "transaction.state.log.replication.factor"


@pytest.fixture
def database_url(postgres_service) -> Iterator[str]:
    with database(postgres_service.url) as url:
        yield url


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def configure(here: Place, topic: str, name: str, value: str) -> None:
    """Change a topic's configuration; return when the broker knows: Kafka answers before that."""
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in here.admin.incremental_alter_configs([resource]).values():
        future.result(20)

    def known() -> bool:
        asked = ConfigResource(ResourceType.TOPIC, topic)
        [answer] = here.admin.describe_configs([asked]).values()
        return bool(answer.result(20)[name].value == value)

    wait_until(known)


def test_topics_as_they_are_created_have_room(here):
    check_room(here.settings, here.admin, here.topics.all)
    assert set(room(here.admin, here.topics.all)) == set(here.topics.all)


def test_a_topic_that_is_too_small_keeps_a_worker_from_taking_rows(here, tmp_path):
    configure(here, here.topics.scores, "max.message.bytes", "1000000")
    ended = run("worker", services(tmp_path)["worker"], here.environment())
    assert ended.code == 3
    assert ended.line == (
        "setting PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES: 4,194,304 is more than topics have room for: "
        f"{here.topics.scores} takes 1,000,000 of 4,325,376 bytes; raise their max.message.bytes "
        f"(`kafka-configs.sh --bootstrap-server {here.settings.bootstrap_servers} --alter "
        f"--entity-type topics --entity-name {here.topics.scores} --add-config "
        "max.message.bytes=4325376`), or lower the setting to 868,928"
    )
    lowered = here.settings.model_copy(update={"max_message_bytes": 868_928})
    check_room(lowered, here.admin, here.topics.all)


def test_every_topic_that_is_too_small_is_named_and_no_other(here):
    small = (here.topics.retries[0].topic, here.topics.dead_letters)
    for topic in small:
        configure(here, topic, "max.message.bytes", "100000")
    with pytest.raises(EnvironmentFault) as error:
        check_room(here.settings, here.admin, here.topics.of_outcomes)
    for topic in here.topics.of_outcomes:
        assert (f"{topic} takes" in str(error.value)) == (topic in small)
    assert "lower the setting" not in str(error.value)  # to less than nothing
    check_room(here.settings, here.admin, [here.topics.pairs, here.topics.scores])


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_a_producer_refuses_jobs_that_are_forgotten(here, tmp_path, policy):
    check_compacted(here.settings, here.admin)
    configure(here, here.topics.jobs, "cleanup.policy", policy)
    ended = run("producer", services(tmp_path)["producer"], here.environment())
    assert ended.code == 3
    assert ended.line.startswith(
        f"topic {here.topics.jobs} at {here.settings.bootstrap_servers} has "
        f"cleanup.policy={policy}, so that jobs would be forgotten and published twice; correct it"
    )


def test_what_kafka_does_not_say_keeps_nobody_from_beginning(here, caplog):
    caplog.set_level("DEBUG", logger="shared.limits")
    assert room(here.admin, ["no.such.topic", here.topics.pairs]) == {here.topics.pairs: 4_259_840}
    [line] = [record for record in caplog.records if record.name == "shared.limits"]
    assert (line.levelname, "no.such.topic" in line.getMessage()) == ("DEBUG", True)


@dataclass(frozen=True)
class Odd:
    """A broker that wants more copies of its own topics than there are brokers.

    What listens at `leading_away` sends clients on to `nowhere`.
    """

    bootstrap_servers: str
    leading_away: str
    nowhere: str


@pytest.fixture(scope="module")
def odd() -> Iterator[Odd]:
    away, nowhere = free_ports(2)

    def leading(*given: Any, **options: Any) -> Mapping[str, str]:
        found = dict(listeners(*given, **options))
        found["listeners"] += f",AWAY://127.0.0.1:{away}"
        found["advertised.listeners"] += f",AWAY://127.0.0.1:{nowhere}"
        found["listener.security.protocol.map"] += ",AWAY:PLAINTEXT"
        return found

    def demanding(brokers: int) -> Mapping[str, str]:
        return {**behaviour(brokers), FACTOR: "3", "offsets.topic.replication.factor": "3"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.local.native_kafka.listeners", leading)
        patch.setattr("deploy.local.native_kafka.behaviour", demanding)
        with had(local.kafka(native=True)) as kafka:
            yield Odd(kafka.bootstrap_servers, f"127.0.0.1:{away}", f"127.0.0.1:{nowhere}")


def test_brokers_too_few_for_transactions_are_named_by_their_setting(
    odd, topic_prefix, tmp_path, database_url
):
    there = place(odd.bootstrap_servers, topic_prefix)
    # The CSV sink publishes nothing, and is in no group.
    commands = {name: each for name, each in services(tmp_path).items() if name != "sink csv"}
    environment = there.environment(PAIRSCORE_POSTGRES_URL=database_url)
    worker, producer, sink = run_all(commands, environment)
    for ended in (worker, producer, sink):
        assert ended.code == 3
        assert ended.line.startswith(f"Kafka at {odd.bootstrap_servers} cannot coordinate ")
        assert "there is 1 broker;" in ended.line
    for publishes in (worker, producer):
        assert f"{FACTOR} is 3" in publishes.line
    for in_group in (worker, sink):
        assert "offsets.topic.replication.factor is 3" in in_group.line
    assert there.jobs() == {}


def test_a_producer_that_may_not_ask_says_so_when_no_coordinator_comes(
    odd, topic_prefix, monkeypatch
):
    monkeypatch.setattr(producer_transactions, "START_SECONDS", 2.0)
    publisher = Publisher(place(odd.bootstrap_servers, topic_prefix))
    with pytest.raises(EnvironmentFault, match="has found no coordinator for transactions in 2 s"):
        publisher.transactions.start()


def test_brokers_that_coordinate_already_are_not_asked_how(kafka, topic_prefix):
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix)
    connection = Connection(settings)
    make_producer(connection, transactional_id="t").init_transactions(30)
    admin, found = connect(connection)
    found.brokers.clear()  # as if all were away, so that any number of copies were too many
    check_coordinators(settings, admin, found, [Coordinator.TRANSACTIONS])


def test_a_broker_that_is_not_there_is_one_line_of_every_service(here, tmp_path, database_url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{1}".format(*taken.getsockname())
    environment = here.environment(
        PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=address, PAIRSCORE_POSTGRES_URL=database_url
    )
    for ended in run_all(services(tmp_path), environment):
        assert ended.code == 3
        assert ended.line == (
            "setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at "
            f"{address} (Connect to ipv4#{address} failed: Connection refused); start one, or "
            "correct the address"
        )


def test_an_advertised_address_that_cannot_be_reached_is_named(
    odd, topic_prefix, tmp_path, database_url
):
    there = place(odd.bootstrap_servers, topic_prefix)
    environment = there.environment(
        PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=odd.leading_away, PAIRSCORE_POSTGRES_URL=database_url
    )
    for ended in run_all(services(tmp_path), environment):
        assert ended.code == 3
        assert ended.line.startswith(
            f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: Kafka answers at {odd.leading_away}, and "
            f"tells clients to go on to {odd.nowhere}, where no broker can be reached from here ("
        )
        assert "Connection refused); correct advertised.listeners" in ended.line
