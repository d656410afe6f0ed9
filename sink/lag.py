"""How many records a sink has still to take."""

from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from sink.intake import Place

_SECONDS: Final = 1.0


class Lag:
    """Counted once a second at the most; from what librdkafka knows, so that Kafka is not asked."""

    def __init__(
        self,
        consumer: Consumer,
        taken: Callable[[], Mapping[Place, int]],
        clock: Callable[[], float],
    ) -> None:
        """`taken` gives the partitions to count, and the next offset after what was taken."""
        self._consumer = consumer
        self._taken = taken
        self._clock = clock
        self._records: int | None = None
        self._at = clock()

    @property
    def records(self) -> int | None:
        """Records that were not taken yet; None where the end of a partition is not known."""
        if self._clock() >= self._at:
            self._at = self._clock() + _SECONDS
            self._records = self._count()
        return self._records

    def _count(self) -> int | None:
        taken, lag = self._taken(), 0
        for found in self._consumer.position([TopicPartition(*place) for place in taken]):
            _, end = self._consumer.get_watermark_offsets(found, cached=True)
            if end < 0:
                return None
            # A position lies behind the end of a transaction, too, but there is none at first.
            lag += max(0, end - max(found.offset, taken[found.topic, found.partition]))
        return lag
