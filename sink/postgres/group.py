"""Records of the partitions that a consumer group gives to this sink.

A partition is read from where the store says, never from where Kafka says: it is paused while it is
being taken over, until the store has been asked and the consumer has gone to that offset. What was
taken of a partition and is not stored when it goes to another sink is forgotten, for that one reads
it again; and the store refuses what a sink tries to store of a partition that has moved on.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from pairscore.errors import EnvironmentFault
from shared.connection import Connection, describe
from shared.topics import Topics
from sink.consumer import close_consumer, make_sink_consumer, refuse_what_is_final, show_progress
from sink.intake import Place
from sink.lag import Lag
from sink.postgres.holdings import Held, Holdings
from sink.postgres.opening import SOON_SECONDS, Offsets, Opening
from sink.topics import TopicWatch

GROUP: Final = "sink-postgres"
_NEWCOMER_SECONDS: Final = 0.1
# A sink keeps what it has when another comes or goes, whichever protocol it is.
_STICKY: Final = {
    "consumer": {"group.remote.assignor": "uniform"},
    "classic": {"partition.assignment.strategy": "cooperative-sticky"},
}
_AHEAD: Final = {"queued.min.messages": 2_000}

_log = logging.getLogger(__name__)


class GroupSource:
    """Reads what it is assigned; the sinks of one group share all partitions."""

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        watch: TopicWatch,
        offsets: Offsets,
        holdings: Holdings,
        forget: Callable[[Collection[Place]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`forget` drops what was taken of partitions and is not stored."""
        self._topics = topics
        self._holdings = holdings
        self._forget = forget
        self._opening = Opening(watch, offsets, clock)
        self._moved: set[Place] = set()
        self._still = False
        sticky = _STICKY[connection.settings.group_protocol]
        self._consumer = make_sink_consumer(connection, GROUP, {**sticky, **_AHEAD})
        self._lag = Lag(self._consumer, self._taken, clock)

    def begin(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._topics.scores, self._topics.jobs],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )

    def take(self, most: int, seconds: float) -> Sequence[Message]:
        """At most `most` records, or what has come after `seconds`.

        Raises:
            EnvironmentFault: a topic is gone, or may not be read.
        """
        self._reopen_contested()
        self._moved.clear()
        records = [m for m in self._consume(most, seconds) if self._is_record(m)]
        if self._moved:
            # Which side of its going and coming back they were read on cannot be told.
            records = [m for m in records if _place(m) not in self._moved]
        self._read(records)
        if self._opening.due:
            self._open()
        return records

    def hold(self, still: bool) -> None:
        """Take nothing more (True), or go on (False)."""
        self._still = still
        for place, held in list(self._holdings.held.items()):
            if still:
                self._pause(place)
            elif not self._go_on(place, held.read):
                self._reopen([place])

    def stored(self, next_offsets: Mapping[Place, int]) -> None:
        """Tell Kafka, so that its tools show the sinks' lag; nothing is ever read from there."""
        held = self._holdings.held
        told = [TopicPartition(*p, next_offsets[p]) for p in next_offsets if p in held]
        show_progress(self._consumer, told)

    @property
    def lag(self) -> int | None:
        """Records of this sink's partitions of `scores` that were not taken yet."""
        return self._lag.records

    def close(self) -> None:
        """Leave the group; the others have the partitions at once."""
        close_consumer(self._consumer)

    def _consume(self, most: int, seconds: float) -> list[Message]:
        # What the group has to say does not end the wait for records.
        if self._opening.due:
            seconds = min(seconds, SOON_SECONDS)
        elif not self._holdings.held:
            seconds = min(seconds, _NEWCOMER_SECONDS)
        return self._consumer.consume(most, seconds)

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            held = self._holdings.held.get(_place(message))
            return held is not None and (message.offset() or 0) >= held.read
        place = _place(message)
        refuse_what_is_final(place[0], error)
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            # Crash-only: librdkafka reads no more of it, and a new start says what is missing.
            raise EnvironmentFault(
                f"{place[0]} partition {place[1]}: the records that were to be read next are gone "
                "from Kafka; start the sink again, and it goes on with those that there are"
            )
        _log.warning("kafka: %s", describe(error), extra={"topic": place[0]})
        return False

    def _read(self, records: Sequence[Message]) -> None:
        held = self._holdings.held
        for place, offset in {_place(message): message.offset() for message in records}.items():
            held[place].read = (offset or 0) + 1
            held[place].begun = True
        begun = [TopicPartition(*place) for place, each in held.items() if each.begun]
        for found in self._consumer.position(begun):
            each = held[found.topic, found.partition]
            each.read = max(each.read, found.offset)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Any offset that exists would do; it is paused before it is read.
        places = [(each.topic, each.partition) for each in partitions]
        consumer.incremental_assign([TopicPartition(*p, OFFSET_BEGINNING) for p in places])
        self._moved.update(places)
        self._reopen(places, at_once=True)
        _log.info("partitions were assigned", extra={"partitions": len(places)})

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._leave(partitions)
        _log.info("partitions were revoked", extra={"partitions": len(partitions)})

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._leave(partitions)
        _log.warning(
            "partitions were lost: the group had not heard of this sink for too long",
            extra={"partitions": len(partitions)},
        )

    def _leave(self, partitions: list[TopicPartition]) -> None:
        places = {(each.topic, each.partition) for each in partitions}
        self._moved |= places
        self._opening.remove(places)
        self._holdings.remove(places)
        self._forget(places)

    def _reopen_contested(self) -> None:
        if contested := self._holdings.take_contested():
            _log.warning(
                "partitions are no longer where this sink left them in the database, since another "
                "one went on with them, or it is not the same database: what was taken of them is "
                "dropped, and they are read from where they are there",
                extra={"partitions": sorted(contested)},
            )
            self._reopen(contested)

    def _reopen(self, places: Collection[Place], *, at_once: bool = False) -> None:
        """Pause them until the store has said where they are to be read from."""
        for place in places:
            self._pause(place)
        self._holdings.remove(places)
        self._forget(places)
        self._opening.add(places, at_once=at_once)

    def _open(self) -> None:
        """Go to where the store says."""
        for place, stored, start in self._opening.ask():
            if not self._go_on(place, start.offset):
                # The consumer has not got so far in taking it over.
                self._opening.look_soon()
                continue
            if start.warning:
                _log.error(start.warning)
            self._opening.remove([place])
            self._holdings.add(place, Held(stored, start.offset))

    def _go_on(self, place: Place, offset: int) -> bool:
        """Go to the offset and read on, unless held; whether that was possible."""
        try:
            self._consumer.seek(TopicPartition(*place, offset))
            if not self._still:
                self._consumer.resume([TopicPartition(*place)])
        except KafkaException as error:
            _log.debug("not there yet: %s", error)
            return False
        return True

    def _pause(self, place: Place) -> None:
        with suppress(KafkaException):  # revoked, and this sink is about to be told
            self._consumer.pause([TopicPartition(*place)])

    def _taken(self) -> dict[Place, int]:
        held = self._holdings.held
        return {place: each.read for place, each in held.items() if place[0] == self._topics.scores}


def _place(message: Message) -> Place:
    return message.topic() or "", message.partition() or 0
