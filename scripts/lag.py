"""Shows what the fleet has still to read, and how old the oldest of it is: `python scripts/lag.py`.

Ends with 1 if somewhere the oldest unread record is older than half of the time that its topic
keeps it: what is not kept any more is lost. Retry tiers that no setting names any more are shown
too. Reads one record of each partition and commits nothing.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource

from pairscore.errors import EnvironmentFault
from scripts.groups import WORKERS, Place, committed_offsets
from scripts.tiers import forsaken_tiers
from shared.clients import connect, end_offsets, make_consumer
from shared.connection import Connection
from shared.service import run_service
from shared.settings import ServiceSettings, read_service_settings
from shared.shutdown import Deadline
from shared.topics import Topics, check_topics
from sink.table import table

_SECONDS: Final = 20.0
_RETENTION: Final = "retention.ms"
_HEAD: Final = ("GROUP", "TOPIC", "UNREAD", "OLDEST", "KEPT")
_LEFT: Final = {"GROUP", "TOPIC"}
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Lag:
    """Of one group on one topic; `age` and `kept` are seconds, None for nothing and for ever."""

    group: str
    topic: str
    unread: int
    age: float | None
    kept: float | None

    @property
    def is_late(self) -> bool:
        """Whether half of the time is over."""
        return self.age is not None and self.kept is not None and self.age > self.kept / 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    return run_service("lag", _main)


def _main() -> int:
    settings = read_service_settings(ServiceSettings).kafka
    topics = Topics.of(settings)
    connection = Connection(settings)
    admin, cluster = connect(connection)
    check_topics(settings, admin, cluster, topics.all)
    reads = {
        WORKERS: (*topics.to_score, *forsaken_tiers(cluster.topics, topics)),
        "sink-csv": (topics.scores,),
        "sink-postgres": (topics.scores,),
    }
    found: list[Lag] = []
    try:
        for group, names in reads.items():
            places = [
                (name, number) for name in names for number in cluster.topics[name].partitions
            ]
            found += _lags(connection, admin, group, places)
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0] if error.args else None
        raise connection.fault(reason if isinstance(reason, KafkaError) else None) from None
    lines, _ = table(_HEAD, [*map(_cells, found)], left=_LEFT)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    late = [lag for lag in found if lag.is_late]
    for lag in late:
        sys.stderr.write(
            f"lag: group {lag.group} has left records of {lag.topic} unread for more than half of "
            "the time that they are kept\n"
        )
    return 1 if late else 0


def _lags(
    connection: Connection, admin: AdminClient, name: str, places: list[Place]
) -> Iterator[Lag]:
    """How far a group is, topic by topic; nothing of a sink that is not used."""
    starts = committed_offsets(connection, name, places, _SECONDS)
    if not starts and name != WORKERS:
        return
    ends = end_offsets(admin, places, committed=True)
    begun = {place: starts.get(place, 0) for place in places}
    heads = _heads(connection, {p: at for p, at in begun.items() if at < ends[p]})
    for topic in dict.fromkeys(topic for topic, _ in places):
        mine = [place for place in places if place[0] == topic]
        # From the first record that is still there, where those before it are gone.
        unread = sum(ends[p] - heads[p].offset for p in mine if p in heads)
        oldest = min((heads[p].written for p in mine if p in heads), default=None)
        age = None if oldest is None else max(0.0, time.time() - oldest)
        yield Lag(connection.settings.topic_prefix + name, topic, unread, age, _kept(admin, topic))


@dataclass(frozen=True, slots=True)
class Head:
    """The first unread record of a partition; `written` is in seconds since the epoch."""

    offset: int
    written: float


def _heads(connection: Connection, starts: Mapping[Place, int]) -> dict[Place, Head]:
    """The first record from each offset on, where there is one."""
    deadline = Deadline(_SECONDS)
    heads: dict[Place, Head] = {}
    left = set(starts)
    consumer = make_consumer(
        connection, group="lag", extra={"enable.partition.eof": True, "fetch.wait.max.ms": 20}
    )
    try:
        consumer.assign([TopicPartition(*p, at or OFFSET_BEGINNING) for p, at in starts.items()])
        while left:
            record = consumer.poll(deadline.left())
            if record is None:
                raise EnvironmentFault(
                    f"{len(left)} partitions could not be read in {_SECONDS:.0f} s; try again"
                )
            place, error = (record.topic() or "", record.partition() or 0), record.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if place not in left:
                continue
            left.discard(place)
            consumer.incremental_unassign([TopicPartition(*place)])
            if error is None:
                heads[place] = Head(record.offset() or 0, record.timestamp()[1] / 1000)
    finally:
        consumer.close()
    return heads


def _kept(admin: AdminClient, topic: str) -> float | None:
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = admin.describe_configs([asked], request_timeout=_SECONDS)[asked].result(_SECONDS)
    milliseconds = int(found[_RETENTION].value)
    return None if milliseconds < 0 else milliseconds / 1000


def _cells(lag: Lag) -> tuple[str, ...]:
    return (
        lag.group,
        lag.topic,
        f"{lag.unread:,}",
        "" if lag.age is None else span(lag.age),
        "for ever" if lag.kept is None else span(lag.kept),
    )


def span(seconds: float) -> str:
    """The two largest units of a time, less what is nothing."""
    left = round(seconds)
    parts = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        parts.append(f"{count} {unit}" if count else "")
    first = next((number for number, part in enumerate(parts) if part), len(parts) - 1)
    return " ".join(filter(None, parts[first : first + 2])) or "0 s"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A client that cannot reach Kafka would hold the process up in its destructor.
    os._exit(code)
