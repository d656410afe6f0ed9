"""The offset ledger: which records are unfinished, and what may be published and committed.

A pure state machine without Kafka, clock, lock or I/O. Offsets that leave it always name the *next*
record, as Kafka's commits do.
"""

import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

Partition: TypeAlias = tuple[str, int]
"""Topic and partition number."""

T = TypeVar("T")


AHEAD: Final = 4_096
"""What is published ahead lies less than so many offsets beyond the one that is committed."""


class _Unresolved:
    __slots__ = ()


class _Published:
    __slots__ = ()


_UNRESOLVED: Final = _Unresolved()
_PUBLISHED: Final = _Published()


@dataclass(slots=True, eq=False)
class Record(Generic[T]):
    """A record that was observed; whoever works on it hands it back with the outcome.

    `epoch` tells the assignment it belongs to: the same record is another one after its partition
    was away.
    """

    partition: Partition
    epoch: int
    offset: int
    size: int
    _outcome: T | _Unresolved | _Published = _UNRESOLVED
    _is_ready: bool = False  # its outcome can be published


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """What one transaction publishes and commits: all of it or nothing.

    `outcomes` are in offset order within a partition; `offsets` are the next offsets to commit, and
    `ahead` which offsets from there on were published too, by this plan or before it.
    """

    outcomes: tuple[T, ...]
    offsets: Mapping[Partition, int]
    ahead: Mapping[Partition, tuple[int, ...]] = field(default_factory=dict)
    _taken: Mapping[Partition, "_Taken[T]"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to publish or commit."""
        return bool(self.offsets)


@dataclass(frozen=True, slots=True)
class _Taken(Generic[T]):
    epoch: int
    count: int  # of those before the first that is unfinished
    ahead: tuple[Record[T], ...]


@dataclass(slots=True)
class _State(Generic[T]):
    epoch: int
    may_go_ahead: bool
    next: int = 0  # what lies below was observed, committed before, or is no record
    end: int | None = None  # where `next` is beyond the latest record
    ready: deque[Record[T]] = field(default_factory=deque)  # finished, nothing unfinished before
    rest: deque[Record[T]] = field(default_factory=deque)  # the first of them is unfinished
    published: set[int] = field(default_factory=set)  # beyond what is committed
    fresh: int = 0  # outcomes that can be published
    far: list[Record[T]] = field(default_factory=list)  # finished, but too far ahead


class Ledger(Generic[T]):
    """observe(record) -> resolve(record, outcome) -> plan() -> confirm(plan).

    Whatever the order of outcomes: each is in exactly one confirmed plan, and a committed offset
    has no unfinished record below it. Outcomes of the topic `ahead` do not wait for those before
    them: a plan says which it has beyond the offset, and who has the partition next is to say so in
    `begin`. A plan that is never confirmed (its transaction was aborted)
    leaves everything as it was, so that the next plan holds the same outcomes again.
    """

    def __init__(self, ahead: str | None = None) -> None:
        self._ahead = ahead
        self._states: dict[Partition, _State[T]] = {}
        self._epoch = 0
        self._ready = 0
        self._ready_bytes = 0
        self._unconfirmed = 0
        self._bytes = 0

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions that are assigned."""
        return tuple(self._states)

    @property
    def ready(self) -> int:
        """How many outcomes can be published."""
        return self._ready

    @property
    def ready_bytes(self) -> int:
        """The sizes of their records."""
        return self._ready_bytes

    @property
    def unconfirmed(self) -> int:
        """How many records were observed and are in no confirmed plan yet."""
        return self._unconfirmed

    @property
    def unconfirmed_bytes(self) -> int:
        """The sizes of those records."""
        return self._bytes

    def __contains__(self, partition: Partition) -> bool:
        """Whether the partition is assigned."""
        return partition in self._states

    def held(self, partition: Partition) -> int:
        """How many of a partition's records are in no confirmed plan yet."""
        state = self._states.get(partition)
        return 0 if state is None else len(state.ready) + len(state.rest)

    def has_ready(self, partition: Partition) -> bool:
        """Whether outcomes of a partition can be published."""
        state = self._states.get(partition)
        return state is not None and state.fresh > 0

    def is_published(self, record: Record[T]) -> bool:
        """Whether a record that was observed needs nothing more: it was published ahead."""
        return record._outcome is _PUBLISHED

    def is_current(self, record: Record[T]) -> bool:
        """Whether the record belongs to an assignment that has not ended."""
        state = self._states.get(record.partition)
        return state is not None and state.epoch == record.epoch

    def assign(self, partition: Partition) -> None:
        """Begin an assignment; what is left of an earlier one is forgotten."""
        self.forget(partition)
        self._epoch += 1
        self._states[partition] = _State(self._epoch, partition[0] == self._ahead)

    def forget(self, partition: Partition) -> None:
        """End an assignment: its records are somebody else's, their outcomes are dropped."""
        state = self._states.pop(partition, None)
        if state is None:
            return
        self._ready -= state.fresh
        for record in (*state.ready, *state.rest):
            if record._outcome is _PUBLISHED:
                continue
            self._unconfirmed -= 1
            self._bytes -= record.size
            if record._is_ready:
                self._ready_bytes -= record.size

    def begin(self, partition: Partition, offset: int, published: Iterable[int] = ()) -> None:
        """Say at which offset an assignment begins: what lies below was committed before it.

        `published` are the offsets from there on that were published before it, too.
        """
        state = self._states[partition]
        state.next = offset
        state.published = set(published)

    def next_offset(self, partition: Partition) -> int:
        """The lowest offset that may be observed.

        Raises:
            KeyError: the partition is not assigned.
        """
        return self._states[partition].next

    def observe(self, partition: Partition, offset: int, size: int = 0) -> Record[T]:
        """Take note of a record that was read; `is_published` says whether it needs nothing more.

        Raises:
            KeyError: the partition is not assigned.
            ValueError: the offset does not rise; going on would publish a row twice.
        """
        state = self._states[partition]
        if offset < state.next:
            raise ValueError(f"{partition}: offset {offset}, and {state.next} is next")
        record: Record[T] = Record(partition, state.epoch, offset, size)
        state.next = offset + 1
        state.end = None
        if offset in state.published:
            record._outcome = _PUBLISHED
            (state.rest or state.ready).append(record)
            return record
        state.rest.append(record)
        self._unconfirmed += 1
        self._bytes += size
        return record

    def reached(self, partition: Partition, next_offset: int) -> None:
        """Take note that no record lies before `next_offset` (markers of transactions do).

        So that a partition that is read to its end has no lag.
        """
        state = self._states.get(partition)
        if state is not None and next_offset > state.next:
            state.next = state.end = next_offset

    def resolve(self, record: Record[T], outcome: T) -> bool:
        """Say what came of a record; False if it belongs to an earlier assignment and is dropped.

        Raises:
            ValueError: it has an outcome already.
        """
        state = self._states.get(record.partition)
        if state is None or state.epoch != record.epoch:
            return False
        if record._outcome is not _UNRESOLVED:
            raise ValueError(f"{record.partition}: offset {record.offset} is resolved already")
        record._outcome = outcome
        rest, ready = state.rest, state.ready
        if record is not rest[0]:
            if state.may_go_ahead:
                self._go_ahead(state, [record])
            return True
        while rest and rest[0]._outcome is not _UNRESOLVED:
            ready.append(head := rest.popleft())
            self._add_ready(state, head)
        if state.far:
            far, state.far = state.far, []
            self._go_ahead(state, far)
        return True

    def _go_ahead(self, state: _State[T], records: Iterable[Record[T]]) -> None:
        """Have finished records published beyond the first unfinished one, if they are near it."""
        end = _first(state.rest) + AHEAD
        for record in records:
            if record.offset < end:
                self._add_ready(state, record)
            else:
                state.far.append(record)

    def _add_ready(self, state: _State[T], record: Record[T]) -> None:
        if record._is_ready or record._outcome is _PUBLISHED:
            return
        record._is_ready = True
        state.fresh += 1
        self._ready += 1
        self._ready_bytes += record.size

    def plan(
        self,
        limit: int | None = None,
        *,
        limit_bytes: int | None = None,
        only: Collection[Partition] | None = None,
    ) -> Plan[T]:
        """The finished outcomes that may be published, `limit` at most.

        Those up to each partition's first unfinished record, and where they may go ahead those up
        to `AHEAD` offsets beyond it. Their records have `limit_bytes` at most, or there is one
        only: a plan goes on in any case. Of all partitions, or of those in `only`.
        """
        most = self._ready if limit is None else limit
        room = self._ready_bytes if limit_bytes is None else limit_bytes
        outcomes: list[T] = []
        offsets: dict[Partition, int] = {}
        ahead: dict[Partition, tuple[int, ...]] = {}
        taken: dict[Partition, _Taken[T]] = {}

        def take(record: Record[T]) -> bool:
            nonlocal room
            if len(outcomes) >= most or (record.size > room and outcomes):
                return False
            assert not isinstance(record._outcome, (_Unresolved, _Published))  # noqa: S101 - mypy
            outcomes.append(record._outcome)
            room -= record.size
            return True

        for partition, state in self._states.items():
            if only is not None and partition not in only:
                continue
            count = _take_ready(state, take)
            beyond = _take_beyond(state, take) if count == len(state.ready) else []
            offset = _to_commit(state, count, beyond)
            if offset is None:
                continue
            offsets[partition] = offset
            taken[partition] = _Taken(state.epoch, count, tuple(beyond))
            known = state.published.union(record.offset for record in beyond)
            if known and (left := tuple(sorted(each for each in known if each >= offset))):
                ahead[partition] = left
        return Plan(tuple(outcomes), offsets, ahead, taken)

    def confirm(self, plan: Plan[T]) -> None:
        """Take note that a plan was committed."""
        for partition, taken in plan._taken.items():
            state = self._states.get(partition)
            if state is None or state.epoch != taken.epoch:
                continue
            for _ in range(taken.count):
                record = state.ready.popleft()
                if record._outcome is not _PUBLISHED:
                    self._confirm(state, record)
            for record in taken.ahead:
                self._confirm(state, record)
                record._outcome = _PUBLISHED
            state.published = set(plan.ahead.get(partition, ()))
            if state.end == plan.offsets[partition]:
                state.end = None

    def _confirm(self, state: _State[T], record: Record[T]) -> None:
        state.fresh -= 1
        self._ready -= 1
        self._ready_bytes -= record.size
        self._unconfirmed -= 1
        self._bytes -= record.size


def _take_ready(state: _State[T], take: Callable[[Record[T]], bool]) -> int:
    """How many of the records before the first unfinished one are taken, or were before."""
    count = 0
    for record in state.ready:
        if record._outcome is not _PUBLISHED and not take(record):
            break
        count += 1
    return count


def _take_beyond(state: _State[T], take: Callable[[Record[T]], bool]) -> list[Record[T]]:
    """Those beyond it that are taken."""
    found: list[Record[T]] = []
    if not (state.may_go_ahead and state.fresh):
        return found
    for record in state.rest:
        if not record._is_ready or record._outcome is _PUBLISHED:
            continue
        if not take(record):
            break
        found.append(record)
    return found


def _to_commit(state: _State[T], count: int, beyond: Sequence[Record[T]]) -> int | None:
    """The next offset to commit; None where there is nothing new."""
    if count == len(state.ready):
        if not state.rest and state.end is not None:
            return state.end
        if beyond:
            return _first(state.rest)
    return state.ready[count - 1].offset + 1 if count else None


def _first(records: deque[Record[T]]) -> int:
    """The lowest offset; beyond all where there is none."""
    return records[0].offset if records else sys.maxsize
