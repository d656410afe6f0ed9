"""Which incarnation of its topics a sink reads, and how many partitions they have."""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from shared.clients import end_offsets
from shared.connection import Connection
from shared.shutdown import Deadline
from sink.intake import Place
from sink.offsets import Range

LOOK_SECONDS: Final = 30.0
_TIMEOUT: Final = 20.0
_PAUSE: Final = 0.2
# What brokers say for a moment while a topic is new or a partition changes its leader.
_PASSING: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is now. Its id tells it from one of its name that was deleted (KIP-516)."""

    id: str
    partitions: int


class TopicWatch:
    """Asks Kafka about topics: at once, or now and then without waiting."""

    def __init__(
        self,
        connection: Connection,
        admin: AdminClient,
        names: Collection[str],
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._admin = admin
        self._names = names
        self._clock = clock
        self._asked: dict[str, Future[TopicDescription]] = {}
        self._look_seconds = look_seconds
        self._ask_at = clock() + look_seconds

    def read(self) -> dict[str, Found]:
        """The topics, by name.

        Raises:
            EnvironmentFault: the brokers do not answer.
        """
        return self._insist(
            lambda: {name: _found(each.result(_TIMEOUT)) for name, each in self._ask().items()}
        )

    def look(self) -> Mapping[str, Found]:
        """The topics where an answer has come since it was asked last; empty otherwise."""
        if not self._asked:
            if self._clock() >= self._ask_at:
                self._asked = self._ask()
            return {}
        if not all(future.done() for future in self._asked.values()):
            return {}
        answers, self._asked = self._asked, {}
        self._ask_at = self._clock() + self._look_seconds
        # A broker that is away is seen by the consumer too, and asked again.
        return {
            name: _found(future.result()) for name, future in answers.items() if _answered(future)
        }

    def ranges(self, places: Collection[Place]) -> dict[Place, Range]:
        """The offsets that Kafka has of partitions.

        Raises:
            EnvironmentFault: the brokers do not answer.
        """
        return self._insist(lambda: self._ranges(list(places)))

    def _ranges(self, places: list[Place]) -> dict[Place, Range]:
        ends = end_offsets(self._admin, places, committed=False)
        asked = {TopicPartition(*place): OffsetSpec.earliest() for place in places}
        firsts = self._admin.list_offsets(asked, request_timeout=_TIMEOUT)
        return {
            (each.topic, each.partition): Range(
                first.result(_TIMEOUT).offset, ends[each.topic, each.partition]
            )
            for each, first in firsts.items()
        }

    def _insist(self, question: Callable[[], Answer]) -> Answer:
        """Ask again what the brokers cannot say while a partition changes its leader."""
        deadline = Deadline(_TIMEOUT, self._clock)
        while True:
            try:
                return question()
            except (KafkaException, TimeoutError) as error:
                found = error.args[0] if error.args else None
                reason = found if isinstance(found, KafkaError) else None
                if reason is None or reason.code() not in _PASSING or deadline.passed:
                    raise self._connection.fault(reason) from None
            time.sleep(_PAUSE)

    def _ask(self) -> "dict[str, Future[TopicDescription]]":
        wanted = TopicCollection(list(self._names))
        return self._admin.describe_topics(wanted, request_timeout=_TIMEOUT)


def _found(description: TopicDescription) -> Found:
    return Found(str(description.topic_id), len(description.partitions))


def _answered(future: "Future[TopicDescription]") -> bool:
    return future.exception() is None
