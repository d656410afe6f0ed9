"""What happens inside the transaction that stores a batch, step by step; the order matters.

Nothing is locked while rows are being sent: a sink that is stopped there waits for nobody's sake,
and the server does not end its transaction as it would between two statements. Everything else is
locked in the order of keys, so that sinks wait for each other and never in a circle.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, LiteralString

from shared.messages import Defect, Rejection
from shared.results.postgres.connection import Connection
from shared.topics import Topics
from sink.intake import Batch, Place, Rejected, Scored, Stored
from sink.postgres.rows import COLUMNS, COPY, TYPES, as_row, job_row, plain

_ROWS: Final[LiteralString] = (
    "SELECT job, rows FROM pairscore.jobs WHERE rows IS NOT NULL AND job = ANY(%s)"
)
_LOCK: Final[LiteralString] = """
SELECT topic, partition, next_offset FROM pairscore.offsets
JOIN unnest(%s::text[], %s::integer[]) AS wanted (topic, partition) USING (topic, partition)
ORDER BY topic, partition FOR UPDATE OF offsets
"""
_STORE: Final[LiteralString] = f"""
WITH stored AS (
    INSERT INTO pairscore.scores ({COLUMNS})
    SELECT {COLUMNS} FROM pg_temp.pairscore_staging ORDER BY job, row, ctid
    ON CONFLICT DO NOTHING
    RETURNING job, coalesce(error, '') AS error, model
), counted AS (
    SELECT job, error, model, count(*) AS rows FROM stored GROUP BY job, error, model
), added AS (
    INSERT INTO pairscore.counts (job, error, model, share, rows)
    SELECT job, error, model, %s, rows FROM counted ORDER BY job, error, model
    ON CONFLICT (job, error, model, share)
    DO UPDATE SET rows = counts.rows + excluded.rows, updated_at = now()
)
SELECT error, sum(rows)::bigint FROM counted GROUP BY error
"""  # noqa: S608 - made of constants
_MOVE: Final[LiteralString] = """
UPDATE pairscore.offsets
SET next_offset = moved.next_offset, duplicates = duplicates + moved.more, updated_at = now()
FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[])
    AS moved (topic, partition, next_offset, more)
WHERE offsets.topic = moved.topic AND offsets.partition = moved.partition
"""
_SAY: Final[LiteralString] = """
INSERT INTO pairscore.jobs
    (job, source, source_sha256, header, csv, rows_published, rows, created_at, deadline)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (job) DO UPDATE SET
    source = excluded.source, source_sha256 = excluded.source_sha256, header = excluded.header,
    csv = excluded.csv, rows_published = greatest(jobs.rows_published, excluded.rows_published),
    rows = excluded.rows, created_at = excluded.created_at, deadline = excluded.deadline,
    updated_at = now()
WHERE jobs.rows IS NULL
"""
_REJECT: Final[LiteralString] = """
INSERT INTO pairscore.rejected (topic, partition, record_offset, defect, detail, value)
VALUES (%s, %s, %s, %s, %s, %s)
"""


class Moved(Exception):
    """These partitions are not where this sink left them, so another has gone on with them."""

    def __init__(self, places: Collection[Place]) -> None:
        super().__init__()
        self.places = places


class Writing:
    """Stores one batch; the caller begins the transaction and ends it."""

    def __init__(self, connection: Connection, topics: Topics, batch: Batch) -> None:
        self._connection = connection
        self._topics = topics
        self._batch = batch
        self._scores = batch.scores
        self._rejected = list(batch.rejected)

    def stage(self) -> None:
        """Send the outcomes, less those of rows that their jobs do not have."""
        ends = self._ends()
        if ends:
            self._scores = []
            for scored in self._batch.scores:
                message = scored.message
                if message.row < ends.get(message.job, message.row + 1):
                    self._scores.append(scored)
                else:
                    self._rejected.append(self._stray(scored, ends[message.job]))
        if self._scores:
            with self._connection.cursor().copy(COPY) as copy:
                copy.set_types(TYPES)
                for scored in self._scores:
                    copy.write_row(as_row(scored))

    def lock(self, expected: Mapping[Place, int | None], after: Mapping[Place, int]) -> bool:
        """Lock the partitions; False if they stand already where storing the batch takes them.

        Raises:
            Moved: some of them are not where this sink left them.
        """
        wanted = ([topic for topic, _ in expected], [partition for _, partition in expected])
        rows = self._connection.execute(_LOCK, wanted).fetchall()
        found = {(topic, partition): offset for topic, partition, offset in rows}
        if found == after:
            return False
        moved = [p for p in expected if p not in found or found[p] != expected[p]]
        if moved:
            raise Moved(moved)
        return True

    def store(self, next_offsets: Mapping[Place, int]) -> Stored:
        """Store what was sent and the rest of the batch, and move the offsets."""
        rows = self._insert(next_offsets) if self._scores else {}
        duplicates = len(self._scores) - sum(rows.values())
        self._move(next_offsets, duplicates)
        with self._connection.cursor() as cursor:
            if self._batch.jobs:
                jobs = sorted(self._batch.jobs, key=lambda message: message.job)
                cursor.executemany(_SAY, [job_row(message) for message in jobs])
            if self._rejected:
                cursor.executemany(_REJECT, [_rejected_row(each) for each in self._rejected])
        defects = Counter(each.rejection.defect for each in self._rejected)
        return Stored(rows, duplicates, defects)

    def _ends(self) -> dict[str, int]:
        """How many rows the batch's jobs have, of those that are closed."""
        jobs = {scored.message.job for scored in self._scores}
        found = self._connection.execute(_ROWS, (list(jobs),)).fetchall() if jobs else []
        said = {each.job: each.rows for each in self._batch.jobs if each.rows is not None}
        return said | dict(found)

    def _insert(self, next_offsets: Mapping[Place, int]) -> dict[str, int]:
        # The lock on a partition is what makes the share of that number this sink's to count in.
        share = min(number for topic, number in next_offsets if topic == self._topics.scores)
        return dict(self._connection.execute(_STORE, (share,)).fetchall())

    def _move(self, next_offsets: Mapping[Place, int], duplicates: int) -> None:
        places = list(next_offsets)
        counted = next((p for p in places if p[0] == self._topics.scores), None)
        self._connection.execute(
            _MOVE,
            (
                [topic for topic, _ in places],
                [partition for _, partition in places],
                [next_offsets[place] for place in places],
                [duplicates if place == counted else 0 for place in places],
            ),
        )

    def _stray(self, scored: Scored, rows: int) -> Rejected:
        message = scored.message
        detail = f"row {message.row} of job {message.job}, which has {rows} rows"
        return Rejected(
            self._topics.scores,
            scored.partition,
            scored.offset,
            Rejection(Defect.INVALID, detail),
            scored.value,
        )


def _rejected_row(record: Rejected) -> tuple[object, ...]:
    return (
        plain(record.topic),
        record.partition,
        record.offset,
        record.rejection.defect.value,
        plain(record.rejection.detail),
        record.value,
    )
