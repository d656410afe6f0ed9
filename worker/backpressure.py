"""Which partitions are paused: a full window pauses what is not urgent, a parked head its own.

A partition has a share of the window, so that one with a long backlog does not keep the others from
being read.

The poll loop never waits; it is Kafka that is asked for no more.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from worker.ledger import Partition

_RESUME_BELOW: Final = 0.75  # a pause throws away what was fetched ahead, so not at every record


class Backpressure:
    """Says which partitions should be paused, and asks for the changes only."""

    def __init__(
        self,
        *,
        limit: int,
        limit_bytes: int,
        reserve: int,
        urgent: str,
        pause: Callable[[list[Partition]], None],
        resume: Callable[[list[Partition]], None],
    ) -> None:
        """`limit` records or `limit_bytes` fill the window; the `urgent` topic has `reserve` more.

        `pause` and `resume` do it; they are called with what is to be changed.
        """
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._reserve = reserve
        self._urgent = urgent
        self._pause = pause
        self._resume = resume
        self._paused: set[Partition] = set()
        self._unknown: set[Partition] = set()
        self._ended: set[Partition] = set()
        self._full = False
        self._brimming = False

    @property
    def paused(self) -> int:
        """How many partitions are paused."""
        return len(self._paused)

    def renew(self, partition: Partition) -> None:
        """Take note that a partition has come: it may be paused.

        Librdkafka gives a partition back as paused as it was when it was taken away, so one that is
        to be read is resumed in any case.
        """
        self.forget(partition)
        self._unknown.add(partition)

    def reached_end(self, partition: Partition) -> None:
        """Take note that a partition has nothing more for now: it needs no share."""
        self._ended.add(partition)

    def has_more(self, partition: Partition) -> None:
        """Take note that a record of it was read."""
        self._ended.discard(partition)

    def forget(self, partition: Partition) -> None:
        """Take note that a partition is gone."""
        for known in (self._paused, self._unknown, self._ended):
            known.discard(partition)

    def apply(
        self,
        assigned: Iterable[Partition],
        *,
        records: int,
        size: int,
        held: Callable[[Partition], int],
        parked: Callable[[Partition], bool],
    ) -> None:
        """Pause and resume as the window and the parked rows are now.

        Args:
            assigned: all partitions.
            records: how many rows are in the window.
            size: their bytes.
            held: how many of a partition's are.
            parked: whether rows of a partition wait to be due.
        """
        assigned = tuple(assigned)
        waiting = {partition for partition in assigned if parked(partition)}
        share = self._share(assigned, waiting)
        self._full = self._is_full(self._full, records, size, 0)
        self._brimming = self._is_full(self._brimming, records, size, self._reserve)
        wanted = {
            partition
            for partition in assigned
            if partition in waiting
            or (
                self._brimming
                if partition[0] == self._urgent
                else self._full or self._has_its_share(partition, held(partition), share)
            )
        }
        if wanted == self._paused and not self._unknown:
            return
        if pausing := sorted(wanted - self._paused):
            self._pause(pausing)
        if resuming := sorted((self._paused | self._unknown) - wanted):
            self._resume(resuming)
        self._paused = wanted
        self._unknown.clear()

    def _share(self, assigned: Collection[Partition], waiting: Collection[Partition]) -> int:
        readers = sum(
            partition[0] != self._urgent
            and partition not in waiting
            and partition not in self._ended
            for partition in assigned
        )
        return max(1, self._limit // max(1, readers))

    def _has_its_share(self, partition: Partition, held: int, share: int) -> bool:
        return held >= share * (_RESUME_BELOW if partition in self._paused else 1.0)

    def _is_full(self, was: bool, records: int, size: int, reserve: int) -> bool:
        share = _RESUME_BELOW if was else 1.0
        room = self._limit + reserve
        bytes_room = self._limit_bytes * room / self._limit
        return records >= room * share or size >= bytes_room * share
