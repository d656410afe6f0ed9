"""The read side of the store in PostgreSQL, over one connection that is made anew when lost."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString

import psycopg
from pydantic import SecretStr

from pairscore.errors import EnvironmentFault
from pairscore.pair import Reason
from shared.messages import ScoreMessage
from shared.results.page import PAGE_BYTES, Page
from shared.results.postgres.connection import Address, Connection
from shared.results.postgres.schema import version
from shared.results.status import JobStatus, State, make_status

_NAME: Final = "pairscore reader"
_NO_TABLES: Final = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)

# In one statement, so that a job and its counts are of one moment.
_JOBS: Final[LiteralString] = """
SELECT job, source, rows_published, jobs.rows, completed_at,
       coalesce(created_at, began_at), greatest(jobs.updated_at, counts.updated_at),
       errors, models, numbers
FROM pairscore.jobs
FULL JOIN (
    SELECT job, min(began_at) AS began_at, max(updated_at) AS updated_at,
           array_agg(error) AS errors, array_agg(model) AS models, array_agg(rows) AS numbers
    FROM (
        SELECT job, error, model, min(began_at) AS began_at, max(updated_at) AS updated_at,
               sum(rows)::bigint AS rows
        FROM pairscore.counts GROUP BY job, error, model
    ) AS shares WHERE rows > 0 GROUP BY job
) AS counts USING (job)
"""
_LATEST_FIRST: Final[LiteralString] = "ORDER BY coalesce(created_at, began_at) DESC, job"

_FIELDS: Final = (
    "job",
    "row",
    "url",
    "caption",
    "columns",
    "raw",
    "similarity",
    "cosine",
    "error",
    "error_detail",
    "caption_truncated",
    "image_sha256",
    "model",
    "attempts",
    "scored_at",
)

# How long a text is, is known without unpacking it; `columns` is unpacked for that, of those rows
# only that the page may come to: of which it is not too long even as they are packed.
_PAGE: Final[LiteralString] = """
SELECT original, job, row, url, caption, columns, raw, similarity, cosine, error, error_detail,
       caption_truncated, image_sha256, model, attempts, scored_at, total
FROM (
    SELECT *, sum(size) OVER (ORDER BY row ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT *, texts + greatest(packed, octet_length(array_to_string(columns, ''))) AS size
        FROM (
            SELECT *, sum(texts + packed) OVER (ORDER BY row ROWS UNBOUNDED PRECEDING) AS least
            FROM (
                SELECT *, pg_column_size(columns) AS packed,
                       octet_length(url) + octet_length(caption) + coalesce(octet_length(raw), 0)
                       + coalesce(octet_length(original), 0) AS texts
                FROM pairscore.scores WHERE job = %s AND row >= %s ORDER BY row LIMIT %s
            ) AS asked
        ) AS packed WHERE least - texts - packed < %s
    ) AS measured
) AS page WHERE total - size < %s ORDER BY row
"""


class PostgresResults:
    """What the sinks have stored in a database; needs no right but to read."""

    def __init__(self, url: SecretStr) -> None:
        """Connect.

        Raises:
            SettingsError: the URL is none.
            EnvironmentFault: the database cannot be reached, or is of a newer pairscore.
        """
        self._address = Address(url)
        self._turn = threading.Lock()
        self._connection = self._address.connect_at_start(_NAME)
        try:
            version(self._connection)
        except psycopg.Error as error:
            self._connection.close()
            raise self._address.fault(error) from None
        except EnvironmentFault:
            self._connection.close()
            raise

    @property
    def where(self) -> str:
        """The server and the database."""
        return str(self._address)

    def jobs(self) -> list[JobStatus]:
        """Every job, the latest begun first."""
        return [_status(fields) for fields in self._ask(_JOBS + _LATEST_FIRST)]

    def job(self, name: str) -> JobStatus | None:
        """One job; None if nothing is known of it."""
        found = self._ask(_JOBS + "WHERE job = %s", name)
        return _status(found[0]) if found else None

    def page(self, job: str, start: int = 0, limit: int = 1000) -> Page:
        """At most `limit` outcomes of a job, by row, from row `start` on, and of so much text."""
        found = self._ask(_PAGE, job, start, limit, PAGE_BYTES, PAGE_BYTES)
        more = len(found) == limit or (len(found) > 0 and found[-1][-1] >= PAGE_BYTES)
        return Page([_message(fields[:-1]) for fields in found], more=more)

    def rejected(self) -> int:
        """How many records were no messages of ours."""
        return self._number("SELECT count(*) FROM pairscore.rejected")

    def duplicates(self) -> int:
        """How many outcomes came for rows that had one already."""
        return self._number("SELECT coalesce(sum(duplicates), 0)::bigint FROM pairscore.offsets")

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            self._connection.close()

    def _number(self, query: LiteralString) -> int:
        found = self._ask(query)
        return int(found[0][0]) if found else 0

    def _ask(self, query: LiteralString, *values: object) -> Sequence[tuple[Any, ...]]:
        with self._turn:
            try:
                try:
                    return _rows(self._connection, query, values)
                except psycopg.OperationalError:
                    if not self._connection.broken:
                        raise
                # It was lost while nothing was asked: a server that was restarted is no fault.
                self._connection = self._address.connect(_NAME)
                return _rows(self._connection, query, values)
            except psycopg.Error as error:
                raise self._address.fault(error) from None


def _rows(
    connection: Connection, query: LiteralString, values: Iterable[object]
) -> Sequence[tuple[Any, ...]]:
    try:
        return connection.execute(query, tuple(values)).fetchall()
    except _NO_TABLES:  # no sink has been here yet
        return ()


def _status(fields: tuple[Any, ...]) -> JobStatus:
    job, source, published, rows, completed, created_at, updated_at, errors, models, numbers = (
        fields
    )
    state: State = "open"
    if rows is not None:
        state = "closed" if completed is None else "complete"
    return make_status(
        zip(errors or (), models or (), numbers or (), strict=True),
        job=job,
        source=source or "",
        state=state,
        rows_published=published or 0,
        rows=rows,
        result=f"postgres: pairscore.scores where job = '{job}'" if completed else None,
        created_at=created_at,
        updated_at=updated_at,
    )


def _message(fields: tuple[Any, ...]) -> ScoreMessage:
    original, *rest = fields
    if original is not None:
        return ScoreMessage.model_validate_json(original)
    values = dict(zip(_FIELDS, rest, strict=True))
    values["columns"] = tuple(values["columns"])
    if values["error"] is not None:
        values["error"] = Reason(values["error"])
    # Checked before they were stored; checking again would take most of the time.
    return ScoreMessage.model_construct(v=1, **values)
