"""A spool that a test fills without Kafka."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shared.messages import JobMessage, ScoreMessage
from shared.results.spool import spool_path
from shared.settings import KafkaSettings
from shared.topics import Topics
from sink.csv.spool import Spool
from sink.intake import Batch, Scored

TOPICS: Final = Topics.of(KafkaSettings())


@dataclass(frozen=True)
class Taken:
    """A record as the client gives it."""

    of_topic: str
    of_partition: int
    at: int
    bytes_: bytes | None
    carried: tuple[tuple[str, bytes], ...] = ()

    def topic(self) -> str:
        return self.of_topic

    def partition(self) -> int:
        return self.of_partition

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes | None:
        return self.bytes_

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.carried)


def now() -> datetime:
    """As the sink has it."""
    return datetime.now(UTC)


@contextmanager
def spool_in(results: Path) -> Iterator[Spool]:
    """The spool of a folder, made if need be."""
    spool_path(results).parent.mkdir(parents=True, exist_ok=True)
    with Spool(results, TOPICS.scores, now) as spool:
        yield spool


def batch_of(
    messages: Iterable[ScoreMessage | JobMessage], *, partition: int = 0, offset: int = 0
) -> Batch:
    """A batch as it would be taken, all outcomes of one partition, from this offset on."""
    batch = Batch()
    for message in messages:
        if isinstance(message, JobMessage):
            batch.jobs.append(message)
        else:
            value = message.encode()
            batch.scores.append(Scored(partition, offset, message, value))
            batch.size += len(value)
            offset += 1
    batch.next_offsets[TOPICS.scores, partition] = offset
    return batch
