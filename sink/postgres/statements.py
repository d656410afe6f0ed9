"""What is said to the database apart from storing a batch."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, LiteralString

from shared.results.postgres.connection import Connection
from sink.intake import Place
from sink.postgres.rows import STAGING

_IDLE_SECONDS: Final = 10
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # what Kafka says where it knows none (before 2.8)

OFFSETS: Final[LiteralString] = (
    "SELECT topic, partition, next_offset FROM pairscore.offsets WHERE next_offset IS NOT NULL"
)
_CLAIM: Final[LiteralString] = """
INSERT INTO pairscore.offsets (topic, partition)
SELECT * FROM unnest(%s::text[], %s::integer[]) ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""
_CLAIMED: Final[LiteralString] = """
SELECT topic, partition, next_offset FROM pairscore.offsets
JOIN unnest(%s::text[], %s::integer[]) AS wanted (topic, partition) USING (topic, partition)
"""
_DUE: Final[LiteralString] = """
SELECT job, rows FROM pairscore.jobs
WHERE completed_at IS NULL AND rows IS NOT NULL
  AND rows <= (SELECT coalesce(sum(c.rows), 0) FROM pairscore.counts AS c WHERE c.job = jobs.job)
ORDER BY job FOR UPDATE SKIP LOCKED
"""
# A row that the job turns out not to have is set aside: none completes it.
_STRAYS: Final[LiteralString] = """
WITH strays AS (
    DELETE FROM pairscore.scores WHERE job = %(job)s AND row >= %(rows)s
    RETURNING coalesce(error, '') AS error, model, row,
              coalesce(original, convert_to(row_to_json(scores)::text, 'UTF8')) AS value
), kept AS (
    INSERT INTO pairscore.rejected (topic, defect, detail, value)
    SELECT %(topic)s, 'invalid', format('row %%s of job %%s, which has %%s rows', row, %(job)s,
                                        %(rows)s), value
    FROM strays
)
INSERT INTO pairscore.counts (job, error, model, share, rows)
SELECT %(job)s, error, model, -1, -count(*) FROM strays GROUP BY error, model
ON CONFLICT (job, error, model, share)
DO UPDATE SET rows = counts.rows + excluded.rows, updated_at = now()
"""
_COMPLETE: Final[LiteralString] = """
UPDATE pairscore.jobs SET completed_at = now(), updated_at = now()
WHERE job = %s
  AND rows = (SELECT coalesce(sum(c.rows), 0) FROM pairscore.counts AS c WHERE c.job = jobs.job)
RETURNING job, rows
"""

_SOONEST: Final[LiteralString] = """
SELECT job, greatest(0, coalesce(rows, rows_published) - (
    SELECT coalesce(sum(c.rows), 0)::bigint FROM pairscore.counts AS c WHERE c.job = jobs.job
)), deadline
FROM pairscore.jobs WHERE completed_at IS NULL AND deadline > %s
ORDER BY deadline, job LIMIT %s
"""


def set_up(connection: Connection) -> None:
    """Prepare a session for storing.

    A sink that hangs in the middle of a transaction holds the others up no longer than this.
    """
    connection.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', %s, false)",
        (f"{_IDLE_SECONDS}s",),
    )
    connection.execute(STAGING)


def see_topics(connection: Connection, ids: Mapping[str, str]) -> list[str]:
    """Take note of the topics' ids; forget the offsets of those that were made anew since."""
    anew = []
    for name, found in sorted(ids.items()):
        if found == _NO_ID:
            continue
        connection.execute(
            "INSERT INTO pairscore.topics VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, found)
        )
        changed = connection.execute(
            "UPDATE pairscore.topics SET id = %s WHERE name = %s AND id <> %s",
            (found, name, found),
        ).rowcount
        if changed:
            connection.execute("DELETE FROM pairscore.offsets WHERE topic = %s", (name,))
            anew.append(name)
    return anew


def claim(connection: Connection, places: Collection[Place]) -> dict[Place, int | None]:
    """The next offset of each; there is a line for each afterwards, to be locked."""
    wanted = ([topic for topic, _ in places], [partition for _, partition in places])
    connection.execute(_CLAIM, wanted)
    found = connection.execute(_CLAIMED, wanted).fetchall()
    return {(topic, partition): offset for topic, partition, offset in found}


def soonest(connection: Connection, most: int, after: datetime) -> list[tuple[str, int, datetime]]:
    """Jobs with a deadline that are not complete: name, rows left, deadline; the soonest first."""
    return connection.execute(_SOONEST, (after, most)).fetchall()


def complete_jobs(connection: Connection, topic: str) -> list[tuple[str, int]]:
    """Mark jobs whose rows are all stored; their names and how many rows they have."""
    complete = []
    for job, rows in connection.execute(_DUE).fetchall():
        connection.execute(_STRAYS, {"job": job, "rows": rows, "topic": topic})
        complete += connection.execute(_COMPLETE, (job,)).fetchall()
    return complete
