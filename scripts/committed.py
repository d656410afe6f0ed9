"""Where a group of consumers goes on reading, asked from outside of it."""

from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from shared.clients import Connection, make_consumer
from shared.shutdown import Deadline

_PAUSE: Final = 0.1
_COMING_UP: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)


def committed_offsets(
    connection: Connection, group: str, places: Iterable[tuple[str, int]], seconds: float
) -> dict[tuple[str, int], int]:
    """The next offset of each (topic, partition) that the group has one of.

    Transactions of the group are waited for. `group` is without the prefix. A consumer is asked,
    because the admin client (confluent-kafka 2.16) ends the process where the group's coordinator
    is still coming up.

    Raises:
        KafkaException: the brokers do not answer within `seconds`.
    """
    deadline = Deadline(seconds)
    asked = [TopicPartition(*place) for place in places]
    with make_consumer(connection, group=group) as consumer:
        while True:
            try:
                found = consumer.committed(asked, deadline.left())
            except KafkaException as error:
                if error.args[0].code() not in _COMING_UP or deadline.passed:
                    raise
            else:
                return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}
            consumer.poll(_PAUSE)
