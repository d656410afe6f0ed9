"""The offsets that the group has committed: reading begins at them, and they are renewed.

A consumer that finds no record there, or takes an offset for missing, begins elsewhere without a
word; here it is sent back, or what is missing is said.
"""

import logging
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from worker.ledger import Ledger, Partition, Plan
from worker.meter import Meter
from worker.publication import Publication
from worker.transactions import PUBLISH_SECONDS, Aborted, Fatal, Transactions

_log = logging.getLogger(__name__)
_RENEW_SECONDS: Final = 3600.0
_ASK_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 2.0


class Offsets:
    """Looks after the committed offsets of the partitions that are assigned."""

    def __init__(
        self,
        consumer: Consumer,
        transactions: Transactions,
        ledger: Ledger[Publication],
        meter: Meter,
        clock: Callable[[], float],
    ) -> None:
        self._consumer = consumer
        self._transactions = transactions
        self._ledger = ledger
        self._meter = meter
        self._clock = clock
        self._renew_at = clock() + _RENEW_SECONDS
        self._fresh: set[Partition] = set()

    def expect(self, partition: Partition) -> None:
        """Take note that a partition has come: where reading begins will be looked at."""
        self._fresh.add(partition)

    def forget(self, partition: Partition) -> None:
        """Take note that it is gone."""
        self._fresh.discard(partition)

    def redirect(self, partition: Partition, came: int) -> bool:
        """Whether the consumer had to be sent elsewhere than to `came`, the offset it came to.

        To be asked before a record, or the end of a partition, is used. At the first of an
        assignment, the committed offset is looked up: librdkafka reads a partition from its
        beginning if it asks for that offset while an open transaction holds a new one, and other
        partitions come or go meanwhile. While Kafka does not say what is committed, the consumer is
        sent to `came`, which comes again. And no offset is used that is below one used before:
        librdkafka may go back when it pauses partitions for a rebalance.

        Raises:
            Fatal: the consumer does not go there.
        """
        if partition in self._fresh:
            try:
                self._begin(partition, came)
            except KafkaException as error:
                _log.info("%s partition %d waits for its committed offset: %s", *partition, error)
                self._seek(partition, came)
                return True
            self._fresh.discard(partition)
        expected = self._ledger.next_offset(partition)
        if came >= expected:
            return False
        _log.info("%s partition %d: from offset %d on to %d", *partition, came, expected)
        self._seek(partition, expected)
        return True

    def renew(self) -> None:
        """Once an hour, commit again the offsets of partitions where nothing happens.

        Kafka forgets an offset that was committed too long ago (`offsets.retention.minutes`, 7 days
        by default) as soon as a group of KIP-848 has no members, however lately it had some; the
        rows would then be scored again.
        """
        if self._clock() < self._renew_at:
            return
        self._renew_at = self._clock() + _RENEW_SECONDS
        quiet = [p for p in self._ledger.partitions if not self._ledger.held(p)]
        try:
            offsets = self._committed(quiet, _ASK_SECONDS)
            if offsets:
                self._transactions.publish(Plan((), offsets), PUBLISH_SECONDS)
        except (KafkaException, Aborted) as error:
            _log.warning("offsets were not committed again, which has time: %s", error)

    def _begin(self, partition: Partition, came: int) -> None:
        """Begin where the group has got to; where Kafka no longer has that, with what there is."""
        committed = self._committed([partition], _LOOK_SECONDS).get(partition)
        if committed is None:
            return
        if came > committed:
            self._say_what_is_missing(partition, committed)
        elif came < committed and not self._has(partition, committed):
            return
        self._ledger.begin(partition, committed)

    def _seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(*partition, offset))
        except KafkaException as error:
            name, number = partition
            raise Fatal(
                f"Kafka: reading {name} partition {number} cannot go on at offset {offset} "
                f"({error}); the worker must start anew"
            ) from error

    def _has(self, partition: Partition, committed: int) -> bool:
        """Whether Kafka's records go as far as the group has read."""
        _, end = self._bounds(partition)
        if committed <= end:
            return True
        self._meter.lost_place(partition)
        _log.error(
            "%s partition %d: the group has read up to offset %d, and Kafka's records end at %d: "
            "it has lost some, or the topic was made anew; what is there now is scored, though it "
            "may be for the second time",
            *(*partition, committed, end),
        )
        return False

    def _say_what_is_missing(self, partition: Partition, committed: int) -> None:
        first, _ = self._bounds(partition)
        if first > committed:  # else only markers of transactions lie between
            self._meter.lost_place(partition)
            _log.error(
                "%s partition %d: the records from offset %d to %d are gone from Kafka and were "
                "not scored; rows of theirs stay without an outcome (`python -m sink status` shows "
                "their jobs): publish these again, and have Kafka keep records for longer",
                *(*partition, committed, first - 1),
            )

    def _bounds(self, partition: Partition) -> tuple[int, int]:
        """The first offset that Kafka has, and the next one that it will give."""
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(*partition), timeout=_LOOK_SECONDS
        )
        return low, high

    def _committed(self, partitions: list[Partition], seconds: float) -> dict[Partition, int]:
        """The committed offsets, of the partitions that have one."""
        found = self._consumer.committed([TopicPartition(*p) for p in partitions], seconds)
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}
