"""Moves records to where rows are scored, each exactly once: `python scripts/replay.py pairs.dlq`.

For dead letters whose cause has been put right, and for rows of a retry tier that no setting names
any more. What somebody reads is refused: its rows would be scored twice. What is moved is committed
in one transaction with how far the source has been read, so that the command may be killed and
started again. Topics are named without the prefix.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from pairscore.errors import EnvironmentFault, InputError
from scripts.groups import WORKERS, Place, committed_offsets, count_readers
from scripts.moving import move
from scripts.tiers import is_tier
from shared.clients import connect, end_offsets, make_consumer, make_producer
from shared.connection import Connection
from shared.service import run_service
from shared.settings import KafkaSettings, ServiceSettings, read_service_settings
from shared.topics import Topics

_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Route:
    """From which topic to which, prefix included; `group` says how far the source was read."""

    source: str
    target: str
    group: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="topic to empty: pairs.dlq, or a retry tier nobody reads")
    parser.add_argument("--to", default="pairs", help="pairs (the default) or pairs.interactive")
    parser.add_argument("--dry-run", action="store_true", help="only count")
    options = parser.parse_args(arguments)
    return run_service("replay", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    settings = read_service_settings(ServiceSettings).kafka
    route = _route(settings, options.source, options.to)
    connection = Connection(settings)
    admin, cluster = connect(connection)
    partitions = _partitions(route, settings, cluster)
    # It never joins the group. With the other protocol it would have a member's id all the same, by
    # which Kafka refuses its offsets while the group has members.
    outside = Connection(settings.model_copy(update={"group_protocol": "classic"}))
    consumer = make_consumer(
        outside,
        group=route.group,
        extra={"enable.partition.eof": True, "fetch.wait.max.ms": 20},
    )
    producer = None
    try:
        if not options.dry_run:
            producer = make_producer(connection, transactional_id=f"replay.{options.source}")
            producer.init_transactions(_SECONDS)  # fences another one that is at it
        starts = committed_offsets(connection, route.group, partitions, _SECONDS)
        _refuse_what_is_read(connection, admin, route)
        ends = end_offsets(admin, partitions, committed=True)
        _refuse_what_was_lost(starts, ends)
        moved, cut = move(consumer, producer, starts, ends, route.target)
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if error.args else None
        said = reason.str() if isinstance(reason, KafkaError) else "no answer in time"
        raise EnvironmentFault(
            f"Kafka: {said}; start again, and it goes on where it stopped"
        ) from None
    finally:
        consumer.close()
    sys.stdout.write(_summary(moved, cut, options.to, dry_run=options.dry_run))
    return 0


def _route(settings: KafkaSettings, source: str, target: str) -> Route:
    """Where to go, or why not: `replay` and the workers each know how far they have read.

    Dead letters have no other reader, so a group of this command's own says it. Of a tier the
    workers have read some, and the rest is to be moved.
    """
    topics = Topics.of(settings)
    route = Route(
        settings.topic_prefix + source,
        settings.topic_prefix + target,
        "replay" if settings.topic_prefix + source == topics.dead_letters else WORKERS,
    )
    if route.target not in (topics.pairs, topics.interactive):
        raise InputError(
            f"nothing can be moved to {target}: workers take rows from pairs and "
            "pairs.interactive; name one of them with --to"
        )
    if route.source in topics.to_score:
        raise InputError(
            f"topic {route.source} is read by workers, so what is on it will be scored, and moved "
            "it would be scored twice; a retry tier can be emptied once "
            "PAIRSCORE_KAFKA__RETRY_DELAYS no longer names it, here and at all workers"
        )
    if route.source != topics.dead_letters and not is_tier(route.source, topics):
        raise InputError(
            f"topic {route.source} cannot be replayed: only dead letters (pairs.dlq) can, and rows "
            "of a retry tier that no setting names any more, such as pairs.retry.5s"
        )
    return route


def _partitions(route: Route, settings: KafkaSettings, found: ClusterMetadata) -> list[Place]:
    for name in (route.source, route.target):
        if name not in found.topics:
            raise InputError(f"topic {name} does not exist at {settings.bootstrap_servers}")
    return [(route.source, number) for number in found.topics[route.source].partitions]


def _refuse_what_is_read(connection: Connection, admin: AdminClient, route: Route) -> None:
    """Workers may have other settings than this command."""
    readers = count_readers(connection, admin, route.group, route.source, _SECONDS)
    if readers:
        raise InputError(
            f"topic {route.source} is still read by group "
            f"{connection.settings.topic_prefix}{route.group} (members that read it: {readers}), "
            "so what is on it will be scored, and moved it would be scored twice; start the "
            "workers again with a PAIRSCORE_KAFKA__RETRY_DELAYS that does not name it"
        )


def _refuse_what_was_lost(starts: Mapping[Place, int], ends: Mapping[Place, int]) -> None:
    for (topic, number), offset in starts.items():
        if offset > ends[topic, number]:
            raise EnvironmentFault(
                f"{topic} partition {number} was read up to offset {offset}, and Kafka ends at "
                f"{ends[topic, number]}: it has lost records; look at those that there are, and "
                "set the group's offset with Kafka's `kafka-consumer-groups.sh --reset-offsets`"
            )


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
