"""The Kafka of a fleet on one machine: how it is had, its topics made and removed."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from deploy.local.broker import Kafka
from deploy.local.cluster import ADDRESS, kafka
from deploy.local.jars import java, kafka_jars
from deploy.local.native_kafka import NativeKafka
from deploy.local.ways import How, WayClosed
from pairscore.errors import EnvironmentFault
from shared.clients import connect
from shared.connection import Connection
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics

_SECONDS: Final = 20.0
_HOW: Final[Mapping[How, str]] = {
    "environment": f"that of {ADDRESS}",
    "docker": "in Docker",
    "native": "a process of this machine",
}


def kept_kafka(folder: Path, environment: Mapping[str, str]) -> AbstractContextManager[Kafka]:
    """Kafka with data that are there again at the next start: in `folder`, where it is ours.

    So processes are preferred to Docker, whose containers are removed with their data; and where
    they can be had but do not start, it is not another, empty Kafka that takes their place.

    Raises:
        Unavailable: on entering, if it cannot be had.
    """
    if not environment.get(ADDRESS) and _has_processes(environment):
        return kafka(native=True, folder=folder, environment=environment)
    return kafka(environment=environment)


def describe(cluster: Kafka) -> str:
    """For people: how it is had, and where it is."""
    return f"Kafka: {_HOW[cluster.how]}, at {cluster.bootstrap_servers}"


def create(settings: KafkaSettings) -> None:
    """Make what is missing of the topics.

    Raises:
        EnvironmentFault: Kafka does not answer, or refuses.
    """
    connection = Connection(settings)
    create_topics(settings, *connect(connection))


def remove(settings: KafkaSettings) -> None:
    """Remove the topics of these settings, and the groups of their prefix.

    Raises:
        ValueError: there is no prefix, so that they may be somebody else's.
        EnvironmentFault: Kafka does not answer, or refuses.
    """
    if not settings.topic_prefix:
        raise ValueError("only what has a prefix is removed")
    connection = Connection(settings)
    admin, found = connect(connection)
    topics = [name for name in Topics.of(settings).all if name in found.topics]
    known = admin.list_consumer_groups(request_timeout=_SECONDS).result(_SECONDS).valid
    groups = [each.group_id for each in known if each.group_id.startswith(settings.topic_prefix)]
    removals = [
        *(admin.delete_topics(topics, request_timeout=_SECONDS).values() if topics else ()),
        *(
            admin.delete_consumer_groups(groups, request_timeout=_SECONDS).values()
            if groups
            else ()
        ),
    ]
    try:
        for removal in removals:
            removal.result(_SECONDS)
    except KafkaException as error:
        raise EnvironmentFault(f"what the demo made in Kafka cannot be removed: {error}") from None


def revive(cluster: Kafka) -> bool:
    """Start again what of a cluster of ours has ended; whether there was any.

    Raises:
        WayClosed: it does not come back.
    """
    if not isinstance(cluster, NativeKafka):
        return False
    ended = [node for node in cluster.nodes if not cluster.running(node)]
    cluster.start(*ended)
    return bool(ended)


def _has_processes(environment: Mapping[str, str]) -> bool:
    try:
        java(environment)
        kafka_jars(environment)
    except WayClosed:
        return False
    return True
