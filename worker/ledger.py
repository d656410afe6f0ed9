"""The offset ledger: which records are unfinished, and what may be published and committed.

A pure state machine without Kafka, clock, lock or I/O. Offsets that leave it always name the *next*
record, as Kafka's commits do.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

Partition: TypeAlias = tuple[str, int]
"""Topic and partition number."""

T = TypeVar("T")


class _Unresolved:
    __slots__ = ()


_UNRESOLVED: Final = _Unresolved()


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
    _outcome: T | _Unresolved = _UNRESOLVED


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """What one transaction publishes and commits: all of it or nothing.

    `outcomes` are in offset order within a partition; `offsets` are the next offsets to commit.
    """

    outcomes: tuple[T, ...]
    offsets: Mapping[Partition, int]
    _taken: Mapping[Partition, tuple[int, int]] = field(default_factory=dict)  # epoch, records

    def __bool__(self) -> bool:
        """Whether there is anything to publish or commit."""
        return bool(self.offsets)


@dataclass(slots=True)
class _State(Generic[T]):
    epoch: int
    next: int = 0  # what lies below was observed, committed before, or is no record
    end: int | None = None  # where `next` is beyond the latest record
    ready: deque[Record[T]] = field(default_factory=deque)  # finished, nothing unfinished before
    rest: deque[Record[T]] = field(default_factory=deque)  # the first of them is unfinished


class Ledger(Generic[T]):
    """observe(record) -> resolve(record, outcome) -> plan() -> confirm(plan).

    Whatever the order of outcomes: each is in exactly one confirmed plan, and a committed offset
    has no unfinished record below it. A plan that is never confirmed (its transaction was aborted)
    leaves everything as it was, so that the next plan holds the same outcomes again.
    """

    def __init__(self) -> None:
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
        return state is not None and bool(state.ready)

    def is_current(self, record: Record[T]) -> bool:
        """Whether the record belongs to an assignment that has not ended."""
        state = self._states.get(record.partition)
        return state is not None and state.epoch == record.epoch

    def assign(self, partition: Partition) -> None:
        """Begin an assignment; what is left of an earlier one is forgotten."""
        self.forget(partition)
        self._epoch += 1
        self._states[partition] = _State(self._epoch)

    def forget(self, partition: Partition) -> None:
        """End an assignment: its records are somebody else's, their outcomes are dropped."""
        state = self._states.pop(partition, None)
        if state is None:
            return
        self._ready -= len(state.ready)
        self._ready_bytes -= sum(record.size for record in state.ready)
        for record in (*state.ready, *state.rest):
            self._unconfirmed -= 1
            self._bytes -= record.size

    def begin(self, partition: Partition, offset: int) -> None:
        """Say at which offset an assignment begins: what lies below was committed before it."""
        self._states[partition].next = offset

    def next_offset(self, partition: Partition) -> int:
        """The lowest offset that may be observed.

        Raises:
            KeyError: the partition is not assigned.
        """
        return self._states[partition].next

    def observe(self, partition: Partition, offset: int, size: int = 0) -> Record[T]:
        """Take note of a record that was read.

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
        while rest and rest[0]._outcome is not _UNRESOLVED:
            ready.append(head := rest.popleft())
            self._ready += 1
            self._ready_bytes += head.size
        return True

    def plan(
        self,
        limit: int | None = None,
        *,
        limit_bytes: int | None = None,
        only: Collection[Partition] | None = None,
    ) -> Plan[T]:
        """The finished outcomes up to each partition's first unfinished record, `limit` at most.

        Their records have `limit_bytes` at most, or there is one only: a plan goes on in any case.
        Of all partitions, or of those in `only`.
        """
        most = self._ready if limit is None else limit
        room = self._ready_bytes if limit_bytes is None else limit_bytes
        outcomes: list[T] = []
        offsets: dict[Partition, int] = {}
        taken: dict[Partition, tuple[int, int]] = {}
        for partition, state in self._states.items():
            if only is not None and partition not in only:
                continue
            count = 0
            for record in state.ready:
                if len(outcomes) >= most or (record.size > room and outcomes):
                    break
                assert not isinstance(record._outcome, _Unresolved)  # noqa: S101 - for mypy
                outcomes.append(record._outcome)
                room -= record.size
                count += 1
            if count == len(state.ready) and not state.rest and state.end is not None:
                offsets[partition] = state.end
            elif count > 0:
                offsets[partition] = state.ready[count - 1].offset + 1
            else:
                continue
            taken[partition] = (state.epoch, count)
        return Plan(tuple(outcomes), offsets, taken)

    def confirm(self, plan: Plan[T]) -> None:
        """Take note that a plan was committed."""
        for partition, (epoch, count) in plan._taken.items():
            state = self._states.get(partition)
            if state is None or state.epoch != epoch:
                continue
            for _ in range(count):
                record = state.ready.popleft()
                self._bytes -= record.size
                self._ready_bytes -= record.size
            self._ready -= count
            self._unconfirmed -= count
            if state.end == plan.offsets[partition]:
                state.end = None
