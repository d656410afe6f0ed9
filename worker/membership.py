"""Being a member of the group: what is done when partitions come, are to go, or are lost."""

from collections.abc import Callable, Collection, Sequence

from confluent_kafka import Consumer, TopicPartition

from worker.backpressure import Backpressure
from worker.ledger import Ledger, Partition
from worker.meter import Meter
from worker.offsets import Offsets
from worker.parking import Parking
from worker.publication import Publication
from worker.scoring import Task


class Membership:
    """Joins and leaves; in between it is called while the loop's thread polls, and by no other.

    The group is given no answer before a call returns, so that nobody else has a partition as long
    as its last outcomes are being published.
    """

    def __init__(
        self,
        consumer: Consumer,
        ledger: Ledger[Publication],
        parking: Parking[Task],
        backpressure: Backpressure,
        offsets: Offsets,
        meter: Meter,
        *,
        assign: Callable[[list[TopicPartition]], object],
        publish: Callable[[Collection[Partition]], object],
    ) -> None:
        """`assign` has the consumer read; `publish` publishes what is finished of partitions."""
        self._consumer = consumer
        self._ledger = ledger
        self._parking = parking
        self._backpressure = backpressure
        self._offsets = offsets
        self._meter = meter
        self._assign = assign
        self._publish = publish
        self._leaving = False

    def join(self, topics: Sequence[str]) -> None:
        """Ask for a share of the topics' partitions."""
        self._consumer.subscribe(
            list(topics),
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )

    def leave(self) -> None:
        """Give all partitions back, without publishing anything more."""
        self._leaving = True
        self._consumer.close()

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        named = _named(partitions)
        self._assign(self._offsets.starts(named))
        for partition in named:
            self._ledger.assign(partition)
            self._forget_waits(partition)
            self._backpressure.renew(partition)
            self._offsets.expect(partition)
        self._meter.rebalanced("assigned", len(self._ledger.partitions))

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Publish what is finished while the partitions are still ours, then let go of them."""
        if not self._leaving and self._ledger.ready:
            self._publish(set(_named(partitions)))
        self._let_go(partitions, "revoked")

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Let go of partitions that are somebody else's by now."""
        self._let_go(partitions, "lost")

    def _let_go(self, partitions: list[TopicPartition], event: str) -> None:
        for partition in _named(partitions):
            self._ledger.forget(partition)
            self._forget_waits(partition)
        self._meter.rebalanced(event, len(self._ledger.partitions))

    def _forget_waits(self, partition: Partition) -> None:
        self._parking.forget(partition)
        self._backpressure.forget(partition)
        self._offsets.forget(partition)
        self._meter.reached_end(partition)


def _named(partitions: list[TopicPartition]) -> list[Partition]:
    return [(each.topic, each.partition) for each in partitions]
