"""All partitions of `scores` and `jobs`, read from the offsets of the store.

Assigned by hand: a sink that was killed comes back at once, without waiting for a group to notice,
and the folder's lock keeps a second one out. New partitions are taken when they appear.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, Message, TopicPartition

from pairscore.errors import EnvironmentFault
from shared.connection import Connection, describe
from shared.topics import Topics
from sink.consumer import close_consumer, make_sink_consumer, refuse_what_is_final, show_progress
from sink.intake import Place
from sink.lag import Lag
from sink.offsets import find_start
from sink.topics import Found, TopicWatch

GROUP: Final = "sink-csv"
# Assigned by hand, it would never hear that a topic of that name is another one now.
_ANEW: Final = frozenset({KafkaError.UNKNOWN_TOPIC_ID})

_log = logging.getLogger(__name__)


class AssignedSource:
    """Reads every partition; has no member in any group, and needs none."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        watch: TopicWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._watch = watch
        self._known: dict[str, Found] = {}
        self._starts: dict[Place, int] = {}
        self._held = False
        self._consumer = make_sink_consumer(connection, GROUP, {"enable.partition.eof": True})
        self._lag = Lag(self._consumer, self._taken, clock)

    def begin(self, known: Mapping[str, Found], stored: Mapping[Place, int]) -> None:
        """Begin to read topics as they were found, after what is stored of them.

        Raises:
            EnvironmentFault: the brokers do not answer.
        """
        self._known = dict(known)
        self._read_from(_places(known), stored)

    def take(self, most: int, seconds: float) -> Sequence[Message]:
        """At most `most` records, or what has come after `seconds`.

        Raises:
            EnvironmentFault: a topic is gone or made anew, or may not be read.
        """
        if found := self._watch.look():
            self._compare(found)
        records = []
        for message in self._consumer.consume(most, seconds):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                self._event(message, error)
        return records

    def hold(self, still: bool) -> None:
        """Take nothing more (True), or go on (False)."""
        self._held = still
        if still:
            self._consumer.pause(self._consumer.assignment())
        else:
            self._consumer.resume(self._consumer.assignment())

    def stored(self, next_offsets: Mapping[Place, int]) -> None:
        """Tell Kafka, so that its tools show the sink's lag; nothing is ever read from there."""
        # Everything taken is stored now. A position lies behind the end of a transaction, too.
        positions = [
            place
            for place in self._consumer.position([TopicPartition(*p) for p in next_offsets])
            if place.offset >= 0
        ]
        show_progress(self._consumer, positions)

    @property
    def lag(self) -> int | None:
        """Records of `scores` that were not taken yet, looked at once a second."""
        return self._lag.records

    def close(self) -> None:
        """Leave Kafka."""
        close_consumer(self._consumer)

    def _taken(self) -> dict[Place, int]:
        return {place: at for place, at in self._starts.items() if place[0] == self._topics.scores}

    def _compare(self, found: Mapping[str, Found]) -> None:
        """Take new partitions; a topic that is another one now ends the sink."""
        for name, topic in found.items():
            if topic.id != self._known[name].id:
                raise EnvironmentFault(
                    f"topic {name} was deleted and made anew while the sink read it; start the "
                    "sink again, and it reads the new one from its beginning"
                )
        new = [place for place in _places(found) if place not in self._starts]
        self._known.update(found)
        if new:
            _log.info("partitions were added", extra={"partitions": len(new)})
            self._read_from(new, {})

    def _event(self, message: Message, error: KafkaError) -> None:
        topic, partition = message.topic(), message.partition()
        refuse_what_is_final(topic, error, more=_ANEW)
        if error.code() == KafkaError._AUTO_OFFSET_RESET and topic and partition is not None:
            place = (topic, partition)
            self._read_from([place], {place: self._position(place)})
        else:
            _log.warning(
                "kafka: %s", describe(error), extra={"topic": topic, "partition": partition}
            )

    def _read_from(self, places: Sequence[Place], stored: Mapping[Place, int]) -> None:
        """Read these partitions after what is stored of them, and the others as before."""
        ranges = self._watch.ranges(places)
        positions = {place: self._position(place) for place in self._starts}
        for place in places:
            start = find_start(place, stored.get(place), ranges[place])
            if start.warning:
                _log.error(start.warning)
            positions[place] = start.offset
        self._starts = positions
        self._consumer.assign([TopicPartition(*place, at) for place, at in positions.items()])
        if self._held:
            self.hold(still=True)

    def _position(self, place: Place) -> int:
        (found,) = self._consumer.position([TopicPartition(*place)])
        return found.offset if found.offset >= 0 else self._starts[place]


def _places(found: Mapping[str, Found]) -> list[Place]:
    return [(name, i) for name, topic in found.items() for i in range(topic.partitions)]
