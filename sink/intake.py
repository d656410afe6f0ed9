"""Records of Kafka become a batch: outcomes, what is said of jobs, and what is neither.

Pure: no Kafka is asked, nothing is stored. Offsets always name the *next* record.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from shared.messages import Defect, JobMessage, Rejection, ScoreMessage, decode
from shared.telemetry.traces import parent_of
from shared.topics import Topics

Place: TypeAlias = tuple[str, int]
"""A topic and a partition."""

BATCH_BYTES: Final = 64_000_000
"""A batch is stored once its messages are so long, however few they are: bounds memory."""


class Record(Protocol):
    """What is read of a record; `confluent_kafka.Message` is one."""

    def topic(self) -> str | None: ...  # noqa: D102
    def partition(self) -> int | None: ...  # noqa: D102
    def offset(self) -> int | None: ...  # noqa: D102
    def value(self) -> bytes | None: ...  # noqa: D102
    def headers(self) -> Any: ...  # noqa: ANN401, D102


class Scored(NamedTuple):
    """An outcome, where it was read on `scores`, its bytes there, and the trace it is in."""

    partition: int
    offset: int
    message: ScoreMessage
    value: bytes
    trace: str | None = None


class Rejected(NamedTuple):
    """A record that is no message of ours, or one that cannot be true, and why.

    Where it was read is no longer known of an outcome that was stored before it was found untrue.
    """

    topic: str
    partition: int | None
    offset: int | None
    rejection: Rejection
    value: bytes | None


@dataclass(slots=True)
class Batch:
    """What was taken and is not stored yet, each list in the order of its records.

    `next_offsets` has every partition that a record was taken of.
    """

    scores: list[Scored] = field(default_factory=list)
    jobs: list[JobMessage] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    next_offsets: dict[Place, int] = field(default_factory=dict)
    size: int = 0

    def __len__(self) -> int:
        return len(self.scores) + len(self.jobs) + len(self.rejected)

    def without(self, gone: Collection[Place], topics: Topics) -> "Batch":
        """The batch less everything of the partitions `gone`."""
        scores = [s for s in self.scores if (topics.scores, s.partition) not in gone]
        return Batch(
            scores,
            [] if (topics.jobs, 0) in gone else self.jobs,
            [r for r in self.rejected if (r.topic, r.partition) not in gone],
            {place: offset for place, offset in self.next_offsets.items() if place not in gone},
            sum(len(scored.value) for scored in scores),
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """What came of a batch: rows by reason (empty for a score), duplicates, rejected by defect."""

    rows: Mapping[str, int]
    duplicates: int
    rejected: Mapping[Defect, int]


class Intake:
    """Fills batches. A record is read once: what has been decoded is not checked again."""

    def __init__(self, topics: Topics, *, traced: bool = False) -> None:
        """`traced` says whether to look which trace an outcome is in."""
        self.topics = topics
        self._traced = traced
        self.batch = Batch()

    def add(self, records: Iterable[Record]) -> None:
        """Take records; what the client says of errors and ends is for the source to see."""
        batch, scores_topic, jobs_topic = self.batch, self.topics.scores, self.topics.jobs
        append, next_offsets = batch.scores.append, batch.next_offsets
        for record in records:
            topic, partition, offset = record.topic(), record.partition(), record.offset()
            if topic is None or partition is None or offset is None:
                continue  # no record: only the client's events lack one of these
            value = record.value()
            next_offsets[topic, partition] = offset + 1
            if value is None and topic == jobs_topic:
                continue  # what was said of a job is taken back, which is long complete
            found = decode(ScoreMessage if topic == scores_topic else JobMessage, value)
            if isinstance(found, ScoreMessage) and value is not None:
                trace = parent_of(record) if self._traced else None
                append(Scored(partition, offset, found, value, trace))
                batch.size += len(value)
            elif isinstance(found, JobMessage):
                batch.jobs.append(found)
            elif isinstance(found, Rejection):
                batch.rejected.append(Rejected(topic, partition, offset, found, value))
                batch.size += len(value or b"")

    def forget(self, gone: Collection[Place]) -> None:
        """Drop what was taken of these partitions, which another will take again."""
        self.batch = self.batch.without(gone, self.topics)

    def clear(self) -> None:
        """Begin the next batch."""
        self.batch = Batch()
