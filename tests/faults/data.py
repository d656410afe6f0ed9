"""The rows of the scenarios, and how they come to be on `pairs` or `pairs.interactive`."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from confluent_kafka import Message, Producer

from pairscore.demo.dataset import Dataset
from pairscore.demo.rows import HEADER
from pairscore.pair import Reason
from shared.messages import JobMessage, JobState, PairMessage, key_of
from shared.topics import Topics
from tests.faults.reader import client

_URL: Final = HEADER.index("url")
_CAPTION: Final = HEADER.index("caption")
_FLUSH_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """A row's cells, and the reason it is to fail for; None for a score."""

    cells: tuple[str, ...]
    expected: Reason | None

    @property
    def url(self) -> str:
        return self._cell(_URL)

    @property
    def caption(self) -> str:
        return self._cell(_CAPTION)

    def _cell(self, index: int) -> str:
        return self.cells[index] if index < len(self.cells) else ""


def rows_of(dataset: Dataset) -> tuple[Row, ...]:
    """The rows of the demo, in order, oddities included."""
    return tuple(Row(row.cells, row.expected) for row in dataset.rows)


def patient(prefix: str, count: int, rows: Sequence[Row]) -> list[Row]:
    """Rows whose pictures, some of those of `rows`, need patience; each has a URL of its own."""
    images = [row.url.partition("/images/")[2] for row in rows]
    names = [f"images/{name}" for name in images if name.endswith(".jpg")]
    urls = [f"{prefix}/{number}/{names[number % len(names)]}" for number in range(count)]
    cells = [(f"p{number}", url, "a small red circle", "") for number, url in enumerate(urls)]
    return [Row(each, None) for each in cells]


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a user's file would have them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(row.cells for row in rows)


class Feed:
    """Publishes the rows of one job, over and over again where more are asked for.

    Its producer is idempotent and is never killed: a row is on its topic once.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Topics,
        job: str,
        rows: Sequence[Row],
        *,
        urgent: bool = False,
    ) -> None:
        self.job = job
        self._topic = topics.interactive if urgent else topics.pairs
        self._topics = topics
        self._rows = rows
        self._published = 0
        self._created_at = datetime.now(UTC)
        self._failed: list[str] = []
        self._producer = Producer(
            {
                **client(bootstrap_servers),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
            }
        )

    @property
    def published(self) -> int:
        """How many rows were handed over so far."""
        return self._published

    def row(self, index: int) -> Row:
        """What was published as a row of the job."""
        return self._rows[index % len(self._rows)]

    def publish(self, count: int) -> None:
        """Hand the next rows over; when they are on `pairs` is `flush`'s to say."""
        for index in range(self._published, self._published + count):
            row = self.row(index)
            message = PairMessage(
                job=self.job,
                row=index,
                url=row.url,
                caption=row.caption,
                columns=row.cells,
                width=len(HEADER),
                created_at=self._created_at,
            )
            self.put(self._topic, key_of(row.url), message.encode())
        self._published += count

    def complete(self, total: int) -> None:
        """Hand over what is missing of so many rows."""
        self.publish(max(0, total - self._published))

    def close(self) -> None:
        """Say that these were all."""
        self.flush()
        message = JobMessage(
            job=self.job,
            source="api",
            header=HEADER,
            rows_published=self._published,
            rows=self._published,
            state=JobState.CLOSED,
            created_at=self._created_at,
        )
        self.put(self._topics.jobs, self.job.encode(), message.encode())
        self.flush()

    def put(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Hand over any record."""
        self._producer.produce(topic, key=key, value=value, on_delivery=self._delivered)
        self._producer.poll(0)

    def put_now(self, topic: str, key: bytes, value: bytes | None) -> tuple[int, int]:
        """Publish any record and wait until it is in Kafka; its partition and offset."""
        placed: list[tuple[int, int]] = []

        def delivered(error: object, message: Message) -> None:
            self._delivered(error, message)
            placed.append((message.partition() or 0, message.offset() or 0))

        self._producer.produce(topic, key=key, value=value, on_delivery=delivered)
        self.flush()
        return placed[0]

    def flush(self) -> None:
        """Wait until all that was handed over is in Kafka."""
        left = self._producer.flush(_FLUSH_SECONDS)
        assert left == 0, f"{left} records could not be published in {_FLUSH_SECONDS:.0f} s"
        assert self._failed == []

    def _delivered(self, error: object, _: Message) -> None:
        if error is not None:
            self._failed.append(str(error))
