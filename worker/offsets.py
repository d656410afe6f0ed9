"""The offsets that the group has committed: reading begins at them, and they are renewed.

A consumer that finds no record there, or takes an offset for missing, begins elsewhere without a
word; here it is sent back, or what is missing is said.
"""

import logging
from collections.abc import Callable
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from shared.connection import describe
from worker.ahead import decode_ahead
from worker.ledger import Ledger, Partition, Plan
from worker.meter import Meter
from worker.publication import Publication
from worker.transactions import PUBLISH_SECONDS, Aborted, Fatal, Transactions

_log = logging.getLogger(__name__)
_RENEW_SECONDS: Final = 3600.0
_ASK_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 1.0


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
        self._ask_at = clock()
        self._fresh: set[Partition] = set()
        self._waiting: set[Partition] = set()

    def starts(self, partitions: list[Partition]) -> list[TopicPartition]:
        """Where to begin reading partitions that have come: at what is committed.

        At the beginning where nothing is, or Kafka does not say what; `redirect` sees to that. Left
        to ask by itself, librdkafka never reads a partition whose committed offset it asked of a
        broker that is not the group's coordinator any more, and the group waits for that partition
        for ever (librdkafka issue 5586).
        """
        try:
            found = self._ask(partitions, _LOOK_SECONDS)
        except KafkaException as error:
            said = describe(error.args[0])
            _log.info("%d partitions wait for their committed offsets: %s", len(partitions), said)
            return [TopicPartition(*partition, OFFSET_BEGINNING) for partition in partitions]
        return [
            place
            if place.error is None and place.offset >= 0
            else TopicPartition(place.topic, place.partition, OFFSET_BEGINNING)
            for place in found
        ]

    def expect(self, partition: Partition) -> None:
        """Take note that a partition has come: where reading begins will be looked at."""
        self._fresh.add(partition)

    def forget(self, partition: Partition) -> None:
        """Take note that it is gone."""
        self._fresh.discard(partition)
        self._waiting.discard(partition)

    def waits(self, partition: Partition) -> bool:
        """Whether reading it has no use yet, since Kafka does not say what is committed."""
        return partition in self._waiting and self._clock() < self._ask_at

    def redirect(self, partition: Partition, came: int) -> bool:
        """Whether the consumer had to be sent elsewhere than to `came`, the offset it came to.

        To be asked before a record, or the end of a partition, is used. At the first of an
        assignment, the committed offset is looked up: librdkafka reads a partition from its
        beginning if it asks for that offset while an open transaction holds a new one, and other
        partitions come or go meanwhile. While Kafka does not say what is committed, the consumer is
        sent to `came`, which comes again. Later, no offset is used that is below one used before:
        librdkafka may go back when it pauses partitions for a rebalance. What was deleted before it
        was read is said.

        Raises:
            Fatal: Kafka has lost what was read here, or the consumer does not go on there.
        """
        first = partition in self._fresh
        if first and not self._begin(partition):
            self._waiting.add(partition)
            self._seek(partition, came)
            return True
        expected = self._ledger.next_offset(partition)
        if came < expected:
            return self._is_sent_on(partition, came, expected, first=first)
        if came > expected and not self._is_missing(partition, expected) and first and expected:
            self._seek(partition, expected)  # once: markers of transactions may lie between
            return True
        return False

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
            found = self._committed(quiet, _ASK_SECONDS)
            if found:
                offsets = {partition: offset for partition, (offset, _) in found.items()}
                ahead = {partition: known for partition, (_, known) in found.items() if known}
                self._transactions.publish(Plan((), offsets, ahead), PUBLISH_SECONDS)
        except (KafkaException, Aborted) as error:
            _log.warning("offsets were not committed again, which has time: %s", error)

    def _begin(self, partition: Partition) -> bool:
        """Begin where the group has got to; whether that is known.

        Nothing is asked for a while after Kafka did not say, so that the loop goes round.
        """
        if self._clock() < self._ask_at:
            return False
        try:
            committed = self._committed([partition], _LOOK_SECONDS).get(partition)
        except KafkaException as error:
            said = describe(error.args[0])
            _log.info("%s partition %d waits for its committed offset: %s", *partition, said)
            self._ask_at = self._clock() + _AGAIN_SECONDS
            return False
        if committed is not None:
            offset, ahead = committed
            if ahead and (end := self._end(partition)) is None:
                self._ask_at = self._clock() + _AGAIN_SECONDS
                return False
            if ahead and end is not None and end <= ahead[-1]:
                self._lose(partition, ahead[-1] + 1, end)
                ahead = ()
            self._ledger.begin(partition, offset, ahead)
        self._fresh.discard(partition)
        self._waiting.discard(partition)
        return True

    def _is_sent_on(self, partition: Partition, came: int, expected: int, *, first: bool) -> bool:
        """Send the consumer on to what was not read yet, if Kafka has that."""
        end = self._end(partition)
        if end is not None and end < expected:
            if not first:
                raise Fatal(f"{_lost(partition, expected, end)}; the worker must start anew")
            self._lose(partition, expected, end)
            self._ledger.begin(partition, came)
            return False
        _log.info("%s partition %d: from offset %d on to %d", *partition, came, expected)
        self._seek(partition, expected)
        return True

    def _lose(self, partition: Partition, expected: int, end: int) -> None:
        """Say that Kafka has less than was read."""
        self._meter.lost_place(partition)
        _log.error(
            "%s; what is there now is scored, though it may be for the second time",
            _lost(partition, expected, end),
        )

    def _is_missing(self, partition: Partition, expected: int) -> bool:
        """Whether Kafka has deleted what comes next; else only markers of transactions lie there.

        The client knows from its latest fetch where Kafka's records begin.
        """
        first, _ = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        if first <= expected:
            return False
        self._meter.lost_place(partition)
        _log.error(
            "%s partition %d: the records from offset %d to %d are gone from Kafka and were "
            "not scored; rows of theirs stay without an outcome (`python -m sink status` shows "
            "their jobs): publish these again, and have Kafka keep records for longer",
            *(*partition, expected, first - 1),
        )
        return True

    def _seek(self, partition: Partition, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(*partition, offset))
        except KafkaException as error:
            name, number = partition
            raise Fatal(
                f"Kafka: reading {name} partition {number} cannot go on at offset {offset} "
                f"({describe(error.args[0])}); the worker must start anew"
            ) from error

    def _end(self, partition: Partition) -> int | None:
        """The next offset that Kafka will give; None where it does not say."""
        place = TopicPartition(*partition)
        try:
            return int(self._consumer.get_watermark_offsets(place, timeout=_LOOK_SECONDS)[1])
        except KafkaException:
            return None

    def _committed(
        self, partitions: list[Partition], seconds: float
    ) -> dict[Partition, tuple[int, tuple[int, ...]]]:
        """The committed offsets, of the partitions that have one; and what was published beyond.

        Raises:
            KafkaException: Kafka does not say, of one of them at least.
        """
        found = self._ask(partitions, seconds)
        failed = next((place.error for place in found if place.error is not None), None)
        if failed is not None:
            raise KafkaException(failed)
        return {
            (p.topic, p.partition): (p.offset, _published_beyond(p)) for p in found if p.offset >= 0
        }

    def _ask(self, partitions: list[Partition], seconds: float) -> list[TopicPartition]:
        if not partitions:
            return []
        return self._consumer.committed([TopicPartition(*p) for p in partitions], seconds)


def _lost(partition: Partition, expected: int, end: int) -> str:
    return (
        f"{partition[0]} partition {partition[1]} was read up to offset {expected}, and "
        f"Kafka's records end at {end}: it has lost some, or the topic was made anew"
    )


def _published_beyond(place: TopicPartition) -> tuple[int, ...]:
    try:
        return decode_ahead(place.offset, place.metadata)
    except ValueError as error:
        raise Fatal(
            f"the metadata of the offset of {place.topic} partition {place.partition} cannot be "
            f"understood ({error}): start the version of pairscore that wrote it, or, so that some "
            "rows are scored again, reset the offset to what it is (`kafka-consumer-groups.sh`)"
        ) from None
