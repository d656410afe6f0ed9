"""What to do with a record that was read: score it, wait until it is due, or put it aside.

Pure: it only reads the record.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from pairscore.csv_file.layout import malformation
from pairscore.pair import Failure
from shared.clients import OVERHEAD_BYTES
from shared.messages import PairMessage, Rejection, decode
from shared.telemetry.traces import parent_of
from shared.topics import Topics
from worker.publication import Origin, Traced

_MS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class ToScore:
    """A row; `due` is when it may be scored, in seconds since the epoch, None for at once."""

    pair: PairMessage
    urgent: bool
    due: float | None
    trace: Traced | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row whose outcome is known without looking at its URL."""

    pair: PairMessage
    failure: Failure
    trace: Traced | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no row."""

    rejection: Rejection
    origin: Origin


Arrival: TypeAlias = ToScore | Malformed | Unreadable


class Intake:
    """Reads records of the topics that workers read."""

    def __init__(self, topics: Topics, max_bytes: int, *, traced: bool = False) -> None:
        """`traced` says whether to look which trace a row is in."""
        self._traced = traced
        self._interactive = topics.interactive
        self._delays = {tier.topic: tier.delay for tier in topics.retries}
        self._max_bytes = max_bytes

    def read(self, topic: str, message: Message, now: float) -> Arrival:
        """Tell what a record is, `now` in seconds since the epoch; never raises."""
        delay = self._delays.get(topic)
        # A retry may be longer than the row was: it says what whoever published that left out.
        most = self._max_bytes if delay is None else self._max_bytes + OVERHEAD_BYTES
        pair = decode(PairMessage, message.value(), max_bytes=most)
        if isinstance(pair, Rejection):
            return Unreadable(pair, _origin(topic, message))
        failure = pair.width and malformation(len(pair.columns), pair.width)
        parent = parent_of(message) if self._traced else None
        trace = None if parent is None else Traced(parent, now, topic)
        if failure:
            return Malformed(pair, failure, trace)
        # The clock of whoever published it may be ahead of this one.
        due = None if delay is None else min(timestamp(message) * _MS, now) + delay
        return ToScore(pair, topic == self._interactive, due, trace)


def _origin(topic: str, message: Message) -> Origin:
    return Origin(
        topic=topic,
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp=timestamp(message),
        key=_bytes(message.key()),
        value=_bytes(message.value()),
    )


def timestamp(message: Message) -> int:
    """When a record was published: milliseconds since the epoch."""
    kind, milliseconds = message.timestamp()
    return 0 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
