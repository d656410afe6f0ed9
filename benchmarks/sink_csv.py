"""The CSV sink against a real broker: a backlog of outcomes becomes a CSV file.

`python -m benchmarks.sink_csv ROWS --bootstrap ADDRESS` prints one line of JSON. The clock runs
from the start of the sink's process to the job's manifest, which comes after its file. The outcomes
are as workers publish them: of some 450 bytes, keyed by URL, in transactions of 2,000.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from pairscore.pair import Score
from shared.clients import connect, make_producer
from shared.connection import Connection
from shared.messages import (
    CsvFormat,
    JobMessage,
    JobState,
    PairMessage,
    ScoreMessage,
    key_of,
)
from shared.settings import KafkaSettings
from shared.topics import Topics, create_topics

JOB: Final = "bench"
_TRANSACTION_ROWS: Final = 2_000
_ROW: Final = "123456789012"


def measure(rows: int, bootstrap: str, partitions: int) -> dict[str, float]:
    """Fill `scores`, run the sink until the job is complete, count the rows of its file."""
    settings = KafkaSettings(
        bootstrap_servers=bootstrap,
        topic_prefix=f"bench-{uuid.uuid4().hex[:8]}.",
        partitions=partitions,
    )
    with filled(settings, rows), tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "sink", "csv", "--results", folder],
            env={**os.environ, **environment(settings)},
            stderr=subprocess.DEVNULL,
        )
        usage, peak = psutil.Process(process.pid), 0
        manifest = Path(folder, JOB, "manifest.json")
        while not manifest.exists():
            if process.poll() is not None or time.monotonic() - began > 60 + rows / 1_000:
                raise RuntimeError("the sink does not come to an end")
            peak = max(peak, usage.memory_info().rss)
            time.sleep(0.02)
        seconds = time.monotonic() - began
        cpu = sum(usage.cpu_times()[:2])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        found = json.loads(manifest.read_bytes())
        with Path(folder, JOB, found["output"]).open("rb") as result:
            lines = sum(1 for _ in result)
        if not found["rows"] == found["scored"] == lines - 1 == rows:
            raise RuntimeError(f"{lines - 1} rows came out of {rows}: {found}")
    return {
        "rows": rows,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds, 1),
        "cpu_seconds": round(cpu, 3),
        "peak_rss_mb": round(peak / 1e6, 1),
    }


def environment(settings: KafkaSettings) -> dict[str, str]:
    """What a sink of these settings is started with."""
    return {
        "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "PAIRSCORE_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
        "PAIRSCORE_KAFKA__PARTITIONS": str(settings.partitions),
        "PAIRSCORE_TELEMETRY__PORT": "0",
    }


@contextmanager
def filled(settings: KafkaSettings, rows: int) -> Iterator[None]:
    """Topics of one job's `rows` outcomes, removed afterwards."""
    connection = Connection(settings)
    admin, found = connect(connection)
    create_topics(settings, admin, found)
    topics = Topics.of(settings)
    try:
        producer = make_producer(connection, transactional_id="bench")
        producer.init_transactions()
        parts = template().split(_ROW.encode())
        for start in range(0, rows, _TRANSACTION_ROWS):
            producer.begin_transaction()
            for row in range(start, min(start + _TRANSACTION_ROWS, rows)):
                number = str(row).encode()
                padded = number.rjust(len(_ROW), b"0")
                value = parts[0] + number + padded.join(parts[1:])
                producer.produce(topics.scores, key=key_of(_url(padded.decode())), value=value)
            producer.commit_transaction()
        producer.begin_transaction()
        producer.produce(topics.jobs, key=JOB.encode(), value=closed(rows).encode())
        producer.commit_transaction()
        yield
    finally:
        admin.delete_topics(list(topics.all))


def template() -> bytes:
    """An outcome whose row is in it once as a number, and then wherever a text names it."""
    pair = PairMessage(
        job=JOB,
        row=int(_ROW),
        url=_url(_ROW),
        caption="a caption of some words",
        columns=(_url(_ROW), "a caption of some words"),
        width=2,
        created_at=datetime.now(UTC),
    )
    outcome = Score(
        similarity=23.456789,
        cosine=0.23456789,
        caption_truncated=False,
        image_sha256="0123456789abcdef" * 4,
        attempts=1,
    )
    message = ScoreMessage.of(
        pair, outcome, model="0123456789abcdef:onnx:fp32", scored_at=datetime.now(UTC)
    )
    return message.encode()


def closed(rows: int) -> JobMessage:
    """What is said of the job when all is published."""
    return JobMessage(
        job=JOB,
        source="bench.csv",
        source_sha256="0" * 64,
        header=("url", "caption"),
        csv=CsvFormat(output_name="bench_scored.csv"),
        rows_published=rows,
        rows=rows,
        state=JobState.CLOSED,
        created_at=datetime.now(UTC),
    )


def _url(row: str) -> str:
    return f"https://example.org/img/{row}.jpg"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink_csv", description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("--bootstrap", required=True, help="address of a broker")
    parser.add_argument("--partitions", type=int, default=12)
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.bootstrap, options.partitions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
