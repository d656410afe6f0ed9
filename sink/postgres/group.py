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
from typing import Final, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from pairscore.errors import EnvironmentFault
from shared.clients import Connection
from shared.topics import Topics
from sink.faults import RETRY_SECONDS, Persistent, StoreFault
from sink.intake import Place
from sink.offsets import find_start
from sink.postgres.consumer import make_group_consumer
from sink.postgres.holdings import Held, Holdings
from sink.topics import TopicWatch

_LAG_SECONDS: Final = 1.0
_OPENING_SECONDS: Final = 0.02
_NEWCOMER_SECONDS: Final = 0.1
_REFUSED: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)

_log = logging.getLogger(__name__)


class Offsets(Protocol):
    """The part of the store that says where reading goes on."""

    def claim(
        self, places: Collection[Place], topic_ids: Mapping[str, str]
    ) -> Mapping[Place, int | None]:
        """The next offset of each, None where nothing is stored of it.

        Raises:
            StoreFault: the store cannot be asked now.
        """
        ...


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
        self._watch = watch
        self._offsets = offsets
        self._holdings = holdings
        self._forget = forget
        self._clock = clock
        self._opening: set[Place] = set()
        self._open_at = clock()
        self._asking = Persistent(clock)
        self._moved: set[Place] = set()
        self._still = False
        self._lag: int | None = None
        self._lag_at = clock()
        self._consumer = make_group_consumer(connection)

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
        if self._opening_due:
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
        try:
            if told:
                self._consumer.commit(offsets=told, asynchronous=True)
        except KafkaException as error:
            _log.debug("offsets were not committed: %s", error)

    @property
    def lag(self) -> int | None:
        """Records of this sink's partitions of `scores` that were not taken yet."""
        if self._clock() >= self._lag_at:
            self._lag_at = self._clock() + _LAG_SECONDS
            self._lag = self._measure()
        return self._lag

    def close(self) -> None:
        """Leave the group; the others have the partitions at once."""
        self._consumer.close()

    def _consume(self, most: int, seconds: float) -> list[Message]:
        # What the group has to say does not end the wait for records.
        if self._opening_due:
            seconds = min(seconds, _OPENING_SECONDS)
        elif not self._holdings.held:
            seconds = min(seconds, _NEWCOMER_SECONDS)
        return self._consumer.consume(most, seconds)

    def _is_record(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            held = self._holdings.held.get(_place(message))
            return held is not None and (message.offset() or 0) >= held.read
        place = _place(message)
        if error.fatal() or error.code() in _REFUSED:
            raise EnvironmentFault(f"topic {place[0]} cannot be read any more: {error.str()}")
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            # Crash-only: librdkafka reads no more of it, and a new start says what is missing.
            raise EnvironmentFault(
                f"{place[0]} partition {place[1]}: the records that were to be read next are gone "
                "from Kafka; start the sink again, and it goes on with those that there are"
            )
        _log.warning("kafka: %s", error.str(), extra={"topic": place[0]})
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
        self._reopen(places)
        self._open_at = self._clock()
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
        self._opening -= places
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

    def _reopen(self, places: Collection[Place]) -> None:
        """Pause them until the store has said where they are to be read from."""
        for place in places:
            self._pause(place)
        self._holdings.remove(places)
        self._forget(places)
        self._opening.update(places)

    @property
    def _opening_due(self) -> bool:
        return bool(self._opening) and self._clock() >= self._open_at

    def _open(self) -> None:
        """Go to where the store says; what cannot be done now is tried again a little later."""
        places = sorted(self._opening)
        self._open_at = self._clock() + RETRY_SECONDS
        try:
            topics = self._watch.read()
            stored = self._offsets.claim(places, {name: topics[name].id for name in topics})
            ranges = self._watch.ranges(places)
        except StoreFault as fault:  # which the store tells of
            _log.debug("partitions are not read yet: %s", fault)
            return
        except EnvironmentFault as fault:
            self._asking.failed(str(fault))
            return
        self._asking.succeeded()
        for place in places:
            start = find_start(place, stored[place], ranges[place])
            if not self._go_on(place, start.offset):
                # The consumer has not got so far in taking it over.
                self._open_at = self._clock() + _OPENING_SECONDS
                continue
            if start.warning:
                _log.error(start.warning)
            self._opening.discard(place)
            self._holdings.add(place, Held(stored[place], start.offset))

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

    def _measure(self) -> int | None:
        lag = 0
        mine = [place for place in self._holdings.held if place[0] == self._topics.scores]
        for found in self._consumer.position([TopicPartition(*place) for place in mine]):
            _, end = self._consumer.get_watermark_offsets(found, cached=True)
            if end < 0:
                return None
            read = self._holdings.held[found.topic, found.partition].read
            lag += max(0, end - max(found.offset, read))
        return lag


def _place(message: Message) -> Place:
    return message.topic() or "", message.partition() or 0
