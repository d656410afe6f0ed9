"""The producer against a real broker: a CSV file becomes messages on `pairs`.

`python -m benchmarks.producer ROWS --bootstrap ADDRESS` prints one line of JSON. The clock runs
from the start of the command to its end, checking the file included. Rows are of some 120 bytes;
afterwards they are counted on the topic, by a reader of committed records.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from shared.clients import connect, make_consumer
from shared.connection import Connection
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics

_CAPTION = "a photograph of a small red boat on a wide river under a grey sky, number"


def measure(rows: int, bootstrap: str, partitions: int) -> dict[str, float]:
    """Publish a file of `rows` rows, and count what has arrived."""
    settings = KafkaSettings(
        bootstrap_servers=bootstrap,
        topic_prefix=f"bench-{uuid.uuid4().hex[:8]}.",
        partitions=partitions,
    )
    connection = Connection(settings)
    with topics_of(connection) as topics, tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder, "bench.csv"), rows)
        began = time.monotonic()
        cpu, peak = publish(source, settings)
        seconds = time.monotonic() - began
        arrived = count(connection, topics.pairs, partitions)
        if arrived != rows:
            raise RuntimeError(f"{arrived} rows are on the topic, not {rows}")
    return {
        "rows": rows,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 1),
        "cpu_seconds": round(cpu, 3),
        "peak_rss_mb": round(peak / 1e6, 1),
    }


def write(path: Path, rows: int) -> Path:
    """A CSV of so many rows."""
    with path.open("w", encoding="utf-8") as file:
        file.write("url,caption\n")
        for row in range(rows):
            file.write(f'https://example.org/img/{row:012d}.jpg,"{_CAPTION} {row}"\n')
    return path


def publish(source: Path, settings: KafkaSettings) -> tuple[float, int]:
    """Run the command to its end; its seconds of CPU and its peak RSS in bytes."""
    command = [sys.executable, "-m", "producer", "csv", str(source)]
    environment = {
        "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "PAIRSCORE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "PAIRSCORE_KAFKA__PARTITIONS": str(settings.partitions),
    }
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"the producer ended with {process.returncode}:\n{said.read()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def count(connection: Connection, topic: str, partitions: int) -> int:
    """Committed records of a topic."""
    consumer = make_consumer(connection, group="bench", extra={"enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, i, OFFSET_BEGINNING) for i in range(partitions)])
    found = ended = 0
    try:
        while ended < partitions:
            batch = consumer.consume(10_000, timeout=30)
            if not batch:
                raise RuntimeError(f"{topic} cannot be read")
            ended += (failed := sum(record.error() is not None for record in batch))
            found += len(batch) - failed
    finally:
        consumer.close()
    return found


@contextmanager
def topics_of(connection: Connection) -> Iterator[Topics]:
    """The topics, removed afterwards."""
    admin, found = connect(connection)
    create_topics(connection.settings, admin, found)
    topics = Topics.of(connection.settings)
    try:
        yield topics
    finally:
        for future in admin.delete_topics(list(topics.all)).values():
            future.result(30)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.producer", description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--bootstrap", required=True, help="address of a broker")
    parser.add_argument("--partitions", type=int, default=12)
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.bootstrap, options.partitions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
