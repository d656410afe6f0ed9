"""Moves records of one topic to another, each exactly once: `python scripts/replay.py pairs.dlq`.

For dead letters whose cause has been put right, and for rows of a retry tier that no setting names
any more. What is moved is committed in one transaction with how far the source has been read, so
that the command may be killed and started again. Topics and groups are named without the prefix.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from pairscore.errors import EnvironmentFault, InputError
from scripts.committed import committed_offsets
from shared.clients import (
    Connection,
    connect,
    end_offsets,
    make_admin,
    make_consumer,
    make_producer,
)
from shared.service import run_service
from shared.settings import ServiceSettings, read_service_settings

Place: TypeAlias = tuple[str, int]
"""A topic and a partition."""

_SECONDS: Final = 30.0
_AT_ONCE: Final = 50  # of the longest rows there are, less than a client's buffer holds
_OURS: Final = "pairscore."
_REASON: Final = "pairscore.reason"
_SIZE: Final = "pairscore.size"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="topic to empty, such as pairs.dlq or pairs.retry.5s")
    parser.add_argument("--to", default="pairs", help="topic to fill; default pairs")
    parser.add_argument(
        "--group", default="replay", help="whose reading is gone on with; of a tier: worker"
    )
    parser.add_argument("--dry-run", action="store_true", help="only count")
    options = parser.parse_args(arguments)
    return run_service("replay", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    settings = read_service_settings(ServiceSettings).kafka
    source, target = settings.topic_prefix + options.source, settings.topic_prefix + options.to
    connection = Connection(settings)
    admin = make_admin(connection)
    topics = connect(connection, admin).topics
    for name in (source, target):
        if name not in topics:
            raise InputError(f"topic {name} does not exist at {settings.bootstrap_servers}")
    if source == target:
        raise InputError(f"topic {source} cannot be moved to itself; name another with --to")
    partitions = [(source, number) for number in topics[source].partitions]
    # It never joins the group. With the other protocol it would have a member's id all the same, by
    # which Kafka refuses its offsets while the group has members.
    outside = Connection(settings.model_copy(update={"group_protocol": "classic"}))
    consumer = make_consumer(
        outside,
        group=options.group,
        extra={"enable.partition.eof": True, "fetch.wait.max.ms": 20},
    )
    producer = None
    try:
        if not options.dry_run:
            producer = make_producer(connection, transactional_id=f"replay.{options.source}")
            producer.init_transactions(_SECONDS)  # fences another one that is at it
        starts = committed_offsets(connection, options.group, partitions, _SECONDS)
        ends = end_offsets(admin, partitions, committed=True)
        moved, cut = _move(consumer, producer, starts, ends, target)
    except KafkaException as error:
        raise EnvironmentFault(
            f"Kafka: {error.args[0].str()}; start again, and it goes on where it stopped"
        ) from None
    finally:
        consumer.close()
    sys.stdout.write(_summary(moved, cut, options.to, dry_run=options.dry_run))
    return 0


def _move(
    consumer: Consumer,
    producer: Producer | None,
    starts: Mapping[Place, int],
    ends: Mapping[Place, int],
    target: str,
) -> tuple[Counter[str], int]:
    """Move all records before `ends`; how many by reason, and how many were cut."""
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


def _summary(moved: Mapping[str, int], cut: int, target: str, *, dry_run: bool) -> str:
    verb = "would be moved" if dry_run else "moved"
    reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(moved.items()) if reason)
    count = sum(moved.values())
    line = f"{count:,} {'record' if count == 1 else 'records'} {verb} to {target}"
    line += f" ({reasons})" if reasons else ""
    if cut:
        line += f"; {cut:,} that were cut when they became dead letters stay where they are"
    return f"{line}\n"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A client that cannot reach Kafka would hold the process up in its destructor.
    os._exit(code)
