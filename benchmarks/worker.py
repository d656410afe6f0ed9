"""Workers against a real broker: what Kafka and the worker's loop cost, and what they do not.

`python -m benchmarks.worker ROWS --bootstrap ADDRESS` prints one line of JSON. The scorer is one
that needs no model (`--scorer instant|SECONDS`), or the real one over a CSV (`--csv FILE --model
FOLDER`). With `--window` the rate is that of so many seconds after all workers have partitions;
with `--csv`, that from the moment that the rows are published to a worker that is ready; else that
from the first score to the last.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shared.clients import connect, end_offsets, make_admin, make_consumer
from shared.connection import Connection
from shared.messages import PairMessage, key_of
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics

_START_SECONDS = 120.0
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    rows: int
    bootstrap: str
    scorer: str
    workers: int
    window: float | None
    csv: Path | None
    model: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Topics of their own on a broker, and what workers on them need."""

    bootstrap: str
    prefix: str
    connection: Connection
    admin: AdminClient
    topics: Topics
    partitions: list[tuple[str, int]]
    """Those of `scores`."""

    @property
    def environment(self) -> dict[str, str]:
        """Of a worker."""
        return {
            **os.environ,
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "PAIRSCORE_KAFKA__TOPIC_PREFIX": self.prefix,
            "PAIRSCORE_TELEMETRY__PORT": "0",
            "PAIRSCORE_FETCH__ALLOW_NETWORKS": "127.0.0.0/8",
        }

    def wait_for_all(self, workers: int) -> None:
        """Until so many workers have partitions."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            groups = self.admin.describe_consumer_groups([f"{self.prefix}worker"])
            with suppress(TimeoutError, KafkaException):  # as of a busy broker; asked again
                members = groups[f"{self.prefix}worker"].result(10).members
                if sum(bool(m.assignment.topic_partitions) for m in members) == workers:
                    time.sleep(_SETTLE_SECONDS)  # they ask what is committed, and begin to read
                    return
            time.sleep(0.5)
        raise TimeoutError("the workers do not all get partitions")


@contextmanager
def stage(bootstrap: str) -> Iterator[Stage]:
    """Topics that are there while the block runs."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    settings = KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix)
    connection = Connection(settings)
    admin, found = connect(connection)
    create_topics(settings, admin, found)
    topics = Topics.of(settings)
    partitions = [(topics.scores, number) for number in range(settings.partitions)]
    try:
        yield Stage(bootstrap, prefix, connection, admin, topics, partitions)
    finally:
        admin.delete_topics(list(topics.all))


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], count: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers while the block runs."""
    workers = [
        subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(count)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(60)


def measure(options: Options) -> dict[str, float]:
    """Fill `pairs`, run the workers, count the scores that a read_committed reader sees."""
    with stage(options.bootstrap) as on:
        environment = on.environment
        command = [sys.executable, "-m", "benchmarks.worker_process", options.scorer]
        if options.csv is None:
            fill(options.bootstrap, on.topics.pairs, _made_up(options.rows))
        else:
            environment |= {"PAIRSCORE_MODEL": options.model}
            command = [sys.executable, "-m", "worker"]
        with running(command, environment, options.workers) as workers:
            rows, seconds = _count(options, on)
            usage = [psutil.Process(worker.pid) for worker in workers]
            cpu = sum(sum(each.cpu_times()[:2]) for each in usage)
            peak = max(peak_rss(worker.pid) for worker in workers)
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "cpu_seconds": cpu,
        "peak_rss_mb": peak / 1e6,
    }


def _count(options: Options, on: Stage) -> tuple[int, float]:
    """How many rows were scored in how many seconds."""
    if options.csv is not None:
        on.wait_for_all(options.workers)
        pairs = [(row["url"], row["caption"]) for row in csv.DictReader(options.csv.open())]
        started = _now()
        fill(options.bootstrap, on.topics.pairs, pairs)
        rows = len(_read_until(on.connection, on.partitions, len(pairs), _deadline(len(pairs))))
        return rows, _now() - started
    if options.window is not None:
        on.wait_for_all(options.workers)
        begin, started = sum(end_offsets(on.admin, on.partitions, committed=True).values()), _now()
        time.sleep(options.window)
        end, ended = sum(end_offsets(on.admin, on.partitions, committed=True).values()), _now()
        return _records(on.connection, on.partitions, begin, end), ended - started
    scores = _read_all(on.connection, on.admin, on.partitions, options.rows)
    return len(scores), _span(scores)


def _made_up(rows: int) -> Iterator[tuple[str, str]]:
    for row in range(rows):
        yield f"https://example.org/images/{row:06}.jpg", "a caption of some words, number 0"


def fill(bootstrap: str, topic: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Publish rows as a CSV of two columns gives them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": 500_000,
        }
    )
    pair = PairMessage(job="bench", row=0, url="", caption="", created_at=datetime.now(UTC))
    for row, (url, caption) in enumerate(pairs):
        cells = {"url": url, "caption": caption, "columns": (url, caption)}
        message = pair.model_copy(update={"row": row, "width": 2, **cells})
        producer.produce(topic, key=key_of(url), value=message.encode())
        if row % 10_000 == 0:
            producer.poll(0)
            if row % 100_000 == 0:
                producer.flush()
    producer.flush()


def _now() -> float:
    return time.monotonic()


def _deadline(rows: int) -> float:
    return time.monotonic() + _START_SECONDS + rows / 10


def _read_all(
    connection: Connection, admin: AdminClient, partitions: list[tuple[str, int]], rows: int
) -> list[Message]:
    """Wait for that many scores; the reader comes late, so as not to take the workers' time."""
    deadline = _deadline(rows)
    while sum(end_offsets(admin, partitions, committed=True).values()) < rows:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers do not come to an end")
        time.sleep(0.1)
    # Not all of these offsets are scores: the end of each transaction has some too.
    return _read_until(connection, partitions, rows, deadline)


def _read_until(
    connection: Connection, partitions: list[tuple[str, int]], rows: int, deadline: float
) -> list[Message]:
    """Read until there are that many scores."""
    found: list[Message] = []
    with reading(connection, partitions) as consumer:
        while len(found) < rows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found):,} scores of {rows:,} rows")
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                found.append(message)
    return found


def _span(scores: list[Message]) -> float:
    """The seconds from the first score to the last."""
    stamps = [message.timestamp()[1] for message in scores]
    return (max(stamps) - min(stamps)) / 1000


def _records(
    connection: Connection, partitions: list[tuple[str, int]], begin: int, end: int
) -> int:
    """How many of the offsets between two sums are scores: a transaction's end is one too."""
    scores = sum(1 for _ in _read(connection, partitions))
    offsets = sum(_ends(connection, partitions))
    return round((end - begin) * scores / offsets)


def _ends(connection: Connection, partitions: list[tuple[str, int]]) -> list[int]:
    return list(end_offsets(make_admin(connection), partitions, committed=True).values())


def _read(connection: Connection, partitions: list[tuple[str, int]]) -> list[Message]:
    """The scores that are there."""
    found: list[Message] = []
    left = set(partitions)
    with reading(connection, partitions) as consumer:
        while left:
            for message in consumer.consume(10_000, 0.5):
                if message.error() is not None:
                    left.discard((str(message.topic()), message.partition() or 0))
                else:
                    found.append(message)
    return found


@contextmanager
def reading(connection: Connection, partitions: list[tuple[str, int]]) -> Iterator[Consumer]:
    """A consumer of partitions from their beginning while the block runs."""
    consumer = make_consumer(connection, group="bench-reader", extra={"enable.partition.eof": True})
    consumer.assign([TopicPartition(*each, 0) for each in partitions])
    try:
        yield consumer
    finally:
        consumer.close()


def peak_rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--scorer", default="instant")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--window", type=float, default=None)
    parser.add_argument("--csv", type=Path, default=None)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    print(json.dumps(measure(Options(**vars(options)))))


if __name__ == "__main__":
    main()
