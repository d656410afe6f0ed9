"""Limits of Kafka's that would stop a service in the midst of its work, said before it begins.

Who may not ask Kafka for its configuration begins all the same: what does not fit is refused later.
"""

import logging
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource

from pairscore.errors import EnvironmentFault
from shared.clients import topic_error
from shared.settings import KafkaSettings
from shared.topics import CLEANUP, MAX_BYTES, Topics, specs

_ASK_SECONDS: Final = 3.0
_SETTING: Final = "setting PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES"

_log = logging.getLogger(__name__)


class Coordinator(Enum):
    """What brokers coordinate by a topic of their own: that, and how many copies it is to have."""

    TRANSACTIONS = ("__transaction_state", "transaction.state.log.replication.factor")
    GROUPS = ("__consumer_offsets", "offsets.topic.replication.factor")


def check_room(settings: KafkaSettings, admin: AdminClient, names: Iterable[str]) -> None:
    """Make sure that the topics of these names take the longest messages that go there.

    Raises:
        EnvironmentFault: one does not; names every such topic, its limit, and what to do.
    """
    needs = {spec.name: int(spec.config.get(MAX_BYTES, 0)) for spec in specs(settings)}
    rooms = room(admin, names)
    small = {name: found for name, found in rooms.items() if found < needs[name]}
    if not small:
        return
    first = next(iter(small))
    fitting = settings.max_message_bytes - max(needs[name] - small[name] for name in small)
    lower = f", or lower the setting to {fitting:,}" if fitting > 0 else ""
    listed = ", ".join(f"{name} takes {small[name]:,} of {needs[name]:,} bytes" for name in small)
    raise EnvironmentFault(
        f"{_SETTING}: {settings.max_message_bytes:,} is more than topics have room for: {listed}; "
        f"raise their {MAX_BYTES} (`kafka-configs.sh --bootstrap-server "
        f"{settings.bootstrap_servers} --alter --entity-type topics --entity-name {first} "
        f"--add-config {MAX_BYTES}={needs[first]}`){lower}"
    )


def check_compacted(settings: KafkaSettings, admin: AdminClient) -> None:
    """Make sure that `jobs` keeps the last message of every job, however old it is.

    Raises:
        EnvironmentFault: it does not.
    """
    name = Topics.of(settings).jobs
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name)]
    policy = _configurations(admin, asked).get(name, {}).get(CLEANUP, "compact")
    if policy != "compact":
        raise EnvironmentFault(
            f"topic {name} at {settings.bootstrap_servers} has {CLEANUP}={policy}, so that jobs "
            "would be forgotten and published twice; correct it (`kafka-configs.sh "
            f"--bootstrap-server {settings.bootstrap_servers} --alter --entity-type topics "
            f"--entity-name {name} --add-config {CLEANUP}=compact`)"
        )


def check_coordinators(
    settings: KafkaSettings,
    admin: AdminClient,
    found: ClusterMetadata,
    wanted: Iterable[Coordinator],
) -> None:
    """Make sure that the brokers can coordinate what is wanted, or do so already.

    Raises:
        EnvironmentFault: there are too few for their own topics to be created.
    """
    missing = [each for each in wanted if _is_missing(admin, found, each.value[0])]
    if not missing:
        return
    brokers = len(found.brokers)
    asked = ConfigResource(ConfigResource.Type.BROKER, str(min(found.brokers)))
    config = _configurations(admin, [asked]).get(str(min(found.brokers)), {})
    few = {
        name: config[name]
        for _, name in (each.value for each in missing)
        if config.get(name, "").isdecimal() and int(config[name]) > brokers
    }
    if few:
        listed = " and ".join(f"{name} is {copies}" for name, copies in few.items())
        there = "there is 1 broker" if brokers == 1 else f"there are {brokers} brokers"
        raise EnvironmentFault(
            f"Kafka at {settings.bootstrap_servers} cannot coordinate transactions and groups: "
            f"{listed} in the brokers' configuration, and {there}; start more, or set it to "
            f"{brokers} (and what ends in `.min.isr` to no more)"
        )


def without_coordinator(
    settings: KafkaSettings, producer: Producer, seconds: float
) -> EnvironmentFault | None:
    """Why a producer that has tried for `seconds` to begin has not; None if no broker answers."""
    try:
        brokers = len(producer.list_topics(timeout=_ASK_SECONDS).brokers)
    except KafkaException:
        return None
    name = Coordinator.TRANSACTIONS.value[1]
    return EnvironmentFault(
        f"Kafka at {settings.bootstrap_servers} answers, and has found no coordinator for "
        f"transactions in {seconds:.0f} s; see whether {name} and transaction.state.log.min.isr "
        f"in the brokers' configuration are no more than there are brokers ({brokers}), and "
        "whether all of them run"
    )


def room(admin: AdminClient, names: Iterable[str]) -> dict[str, int]:
    """How long a batch may be, in bytes, on each topic of which Kafka says so."""
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    found = {name: each.get(MAX_BYTES) for name, each in _configurations(admin, asked).items()}
    return {name: int(value) for name, value in found.items() if value}


def _is_missing(admin: AdminClient, found: ClusterMetadata, topic: str) -> bool:
    if topic in found.topics:
        return False
    error = topic_error(admin, topic)
    return error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def _configurations(
    admin: AdminClient, asked: list[ConfigResource]
) -> Mapping[str, Mapping[str, str]]:
    """The configuration of each resource whose own this user may know, by name."""
    found: dict[str, Mapping[str, str]] = {}
    refused: list[str] = []
    for resource, future in admin.describe_configs(asked, request_timeout=_ASK_SECONDS).items():
        try:
            entries = future.result(2 * _ASK_SECONDS)
        except (KafkaException, TimeoutError):
            refused.append(resource.name)
        else:
            found[resource.name] = {name: each.value or "" for name, each in entries.items()}
    if refused:
        _log.debug("Kafka does not say how it is configured: %s", ", ".join(refused))
    return found
