"""A group of consumers, asked from outside of it: where it goes on reading, and who reads.

Groups are named without the prefix.
"""

import threading
from collections.abc import Iterable
from typing import Final, TypeAlias

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pairscore.errors import EnvironmentFault
from shared.clients import make_consumer
from shared.connection import Connection
from shared.shutdown import Deadline

Place: TypeAlias = tuple[str, int]
"""A topic and a partition."""

WORKERS: Final = "worker"

_PAUSE: Final = 0.1
_COMING_UP: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
# Else it is being settled who reads what.
_SETTLED: Final = frozenset(
    {ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD}
)


def committed_offsets(
    connection: Connection, group: str, places: Iterable[Place], seconds: float
) -> dict[Place, int]:
    """The next offset of each (topic, partition) that the group has one of.

    Transactions of the group are waited for. A consumer is asked, because the admin client
    (confluent-kafka 2.16) ends the process where the group's coordinator is still coming up.

    Raises:
        KafkaException: the brokers do not answer within `seconds`.
    """
    deadline = Deadline(seconds)
    asked = [TopicPartition(*place) for place in places]
    with make_consumer(connection, group=group) as consumer:
        while True:
            try:
                found = consumer.committed(asked, deadline.left())
                failed = next((place.error for place in found if place.error is not None), None)
                if failed is not None:
                    raise KafkaException(failed)
            except KafkaException as error:
                if error.args[0].code() not in _COMING_UP or deadline.passed:
                    raise
            else:
                return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}
            consumer.poll(_PAUSE)


def count_readers(
    connection: Connection, admin: AdminClient, group: str, topic: str, seconds: float
) -> int:
    """How many members of the group have partitions of a topic, once that is settled.

    To be asked after `committed_offsets`, which waits for the group's coordinator.

    Raises:
        KafkaException: the brokers do not answer within `seconds`.
        EnvironmentFault: the group is not settled by then.
    """
    deadline, pause = Deadline(seconds), threading.Event()
    name = connection.settings.topic_prefix + group
    while True:
        asked = admin.describe_consumer_groups([name], request_timeout=max(1.0, deadline.left()))
        found = asked[name].result(seconds)
        if found.state in _SETTLED:
            topics = [
                {each.topic for each in member.assignment.topic_partitions}
                for member in found.members
            ]
            return sum(topic in each for each in topics)
        if deadline.passed:
            raise EnvironmentFault(
                f"group {name} has been settling who reads what for {seconds:.0f} s; try again "
                "when its members no longer come and go"
            )
        pause.wait(_PAUSE)
