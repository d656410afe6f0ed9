"""Moves records from one topic to another in transactions, with how far the source has been read.

A dead letter of which only the first bytes were kept is passed over, and stays where it is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from scripts.groups import Place

_SECONDS: Final = 30.0
_AT_ONCE: Final = 50  # of the longest rows there are, less than a client's buffer holds
_OURS: Final = "pairscore."
_REASON: Final = "pairscore.reason"
_SIZE: Final = "pairscore.size"


def move(
    consumer: Consumer,
    producer: Producer | None,
    starts: Mapping[Place, int],
    ends: Mapping[Place, int],
    target: str,
) -> tuple[Counter[str], int]:
    """Move all records before `ends`, or count them where there is no producer.

    How many by reason, none for what is no dead letter, and how many were cut.

    Raises:
        KafkaException: the brokers do not answer; what was moved before is committed.
    """
    moved: Counter[str] = Counter()
    cut = 0
    for records, offsets in _read(consumer, starts, ends):
        whole = [record for record in records if not _is_cut(record)]
        if producer is not None:
            _publish(producer, whole, target, offsets, consumer)
        moved.update(_header(record, _REASON) or "" for record in whole)
        cut += len(records) - len(whole)
    return moved, cut


def _read(
    consumer: Consumer, starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> Iterator[tuple[list[Message], list[TopicPartition]]]:
    """Records from `starts` to before `ends`, some at a time, and the next offsets."""
    left = {place for place, end in ends.items() if starts.get(place, 0) < end}
    consumer.assign([TopicPartition(*p, starts.get(p) or OFFSET_BEGINNING) for p in left])
    while left:
        first = consumer.poll(_SECONDS)
        if first is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        events = [first, *consumer.consume(_AT_ONCE - 1, 0)]
        records: list[Message] = []
        offsets: dict[Place, int] = {}
        for event in events:
            place = event.topic() or "", event.partition() or 0
            offset, error = event.offset() or 0, event.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if place not in left:
                continue
            if error is None and offset < ends[place]:
                records.append(event)
                offsets[place] = offset + 1
            else:
                offsets[place] = min(offset, ends[place])
                left.discard(place)
        if offsets:
            yield records, [TopicPartition(*place, offset) for place, offset in offsets.items()]


def _publish(
    producer: Producer,
    records: Sequence[Message],
    target: str,
    offsets: list[TopicPartition],
    consumer: Consumer,
) -> None:
    producer.begin_transaction()
    for record in records:
        headers = [each for each in _headers(record) if not each[0].startswith(_OURS)]
        producer.produce(target, key=record.key(), value=record.value(), headers=headers)
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _SECONDS)
    producer.commit_transaction(_SECONDS)


def _is_cut(record: Message) -> bool:
    """Whether only the first bytes of a dead letter's value were kept."""
    size = _header(record, _SIZE)
    return size is not None and int(size) > len(record.value() or b"")


def _header(record: Message, name: str) -> str | None:
    values = [value for key, value in _headers(record) if key == name]
    return values[-1].decode() if values and isinstance(values[-1], bytes) else None


def _headers(record: Message) -> list[tuple[str, str | bytes | None]]:
    return [each for each in record.headers() or () if isinstance(each, tuple)]
