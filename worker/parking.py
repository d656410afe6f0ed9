"""Rows of retry tiers that were read before they are due.

A tier's records are due in the order they were written, so a partition whose head is not due waits
as a whole. Pure: the clock is the caller's.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.ledger import Partition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Parked(Generic[T]):
    due: float
    item: T
    size: int


class Parking(Generic[T]):
    """What waits, by partition. `due` and `now` are seconds of one clock."""

    def __init__(self) -> None:
        self._waiting: dict[Partition, deque[_Parked[T]]] = {}
        self.size = 0
        """Bytes of the rows that wait."""

    def __contains__(self, partition: Partition) -> bool:
        """Whether something of the partition waits: it is to be paused."""
        return partition in self._waiting

    def __len__(self) -> int:
        """How many rows wait."""
        return sum(len(queue) for queue in self._waiting.values())

    def put(self, partition: Partition, due: float, item: T, size: int = 0) -> None:
        """Let a row of `size` bytes wait behind those of its partition that came before."""
        self._waiting.setdefault(partition, deque()).append(_Parked(due, item, size))
        self.size += size

    def take(self, now: float) -> Iterator[T]:
        """Give and forget every row that is due and has none before it that is not."""
        for partition in list(self._waiting):
            queue = self._waiting[partition]
            while queue and queue[0].due <= now:
                parked = queue.popleft()
                self.size -= parked.size
                yield parked.item
            if not queue:
                del self._waiting[partition]

    def forget(self, partition: Partition) -> None:
        """Drop a partition's rows."""
        self.size -= sum(parked.size for parked in self._waiting.pop(partition, ()))
