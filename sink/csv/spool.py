"""The write side of the spool: batches go in, each in one transaction; complete jobs come out.

An outcome counts when its row had none: counters and rows change together or not at all.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from pairscore.errors import EnvironmentFault
from shared.messages import JobMessage
from shared.results.spool import open_for_writing, spool_path
from sink.csv.storing import Storing, delete_outcomes
from sink.faults import StoreFault
from sink.intake import Batch, Place, Stored
from sink.loop import Due

_MAY_PASS: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
_SOONEST: Final = """
SELECT name, max(0, coalesce(rows, rows_published) - stored), deadline FROM (
    SELECT *, json_extract(CAST(message AS TEXT), '$.deadline') AS deadline FROM jobs
    WHERE result IS NULL AND message IS NOT NULL
      AND epoch = (SELECT value FROM totals WHERE name = 'epoch')
) WHERE julianday(deadline) > julianday(?) ORDER BY julianday(deadline), name LIMIT ?
"""
_KEPT_FREE_PAGES: Final = 8_192  # 64 MiB for the rows that come next
_VACUUM_PAGES: Final = 2_000


@dataclass(frozen=True, slots=True)
class DueJob:
    """A closed job whose rows are all stored; `counts` as in `make_status`."""

    id: int
    message: JobMessage
    counts: tuple[tuple[str, str, int], ...]


class Spool:
    """One results folder's spool; whoever opens it holds the folder's lock."""

    def __init__(self, results: Path, outcomes: str, now: Callable[[], datetime]) -> None:
        """Open or make it; `outcomes` is the topic that they come from, `now` gives UTC.

        Raises:
            EnvironmentFault: it cannot be opened, or is damaged.
        """
        self._path = spool_path(results)
        self._outcomes = outcomes
        self._now = now
        with self._explained():
            self._db = open_for_writing(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @property
    def bytes_on_disk(self) -> int:
        """Of the database and its log."""
        log = self._path.with_name(f"{self._path.name}-wal")
        return sum(path.stat().st_size for path in (self._path, log) if path.exists())

    def offsets(self) -> dict[Place, int]:
        """The next offset of every partition of which something is stored."""
        with self._explained():
            found = self._db.execute("SELECT topic, partition, next_offset FROM offsets")
            return {(topic, partition): offset for topic, partition, offset in found}

    def see_topics(self, ids: Mapping[str, str]) -> list[str]:
        """Take note of the topics' ids; the names of those that were deleted and made anew since.

        Offsets of such a topic mean nothing any more and are forgotten. Where outcomes come from
        it, a job of a name that is complete already may come again: its result is kept until then.
        """
        with self._transaction():
            known = dict(self._db.execute("SELECT name, id FROM topics"))
            anew = [name for name, found in ids.items() if known.get(name, found) != found]
            self._db.executemany("REPLACE INTO topics VALUES (?, ?)", ids.items())
            self._db.executemany("DELETE FROM offsets WHERE topic = ?", [(name,) for name in anew])
            if self._outcomes in anew:
                self._db.execute("UPDATE totals SET value = value + 1 WHERE name = 'epoch'")
        return anew

    def store(self, batch: Batch) -> Stored:
        """Store a batch and its offsets; nothing of it if that fails.

        Raises:
            StoreFault: the disk is full, or the like.
        """
        with self._transaction():
            return Storing(self._db, self._outcomes, self._now()).all_of(batch)

    def due_jobs(self, limit: int, without: Collection[int] = ()) -> list[DueJob]:
        """Closed jobs whose rows are all stored and that have no result yet, the oldest first."""
        due: list[DueJob] = []
        with self._explained(), closing(self._db.cursor()) as cursor:
            cursor.execute(
                "SELECT id, message FROM jobs WHERE result IS NULL AND stored = rows ORDER BY id"
            )
            for number, message in cursor:
                if number not in without:
                    job = JobMessage.model_validate_json(message)
                    due.append(DueJob(number, job, self._counts(number)))
                if len(due) == limit:
                    break
        return due

    def soonest(self, most: int, after: datetime) -> list[Due]:
        """Jobs that are not complete and have a deadline after that, the soonest first."""
        with self._explained():
            found = self._db.execute(_SOONEST, (after.isoformat(), most)).fetchall()
        return [Due(name, left, datetime.fromisoformat(deadline)) for name, left, deadline in found]

    def rows(self, job: int, start: int, most: int, most_bytes: int) -> list[tuple[int, bytes]]:
        """Row and message of a job's outcomes by row, from row `start` on, some at a time."""
        taken: list[tuple[int, bytes]] = []
        size = 0
        with self._explained(), closing(self._db.cursor()) as cursor:
            cursor.execute(
                "SELECT row, value FROM outcomes WHERE job = ? AND row >= ? ORDER BY row LIMIT ?",
                (job, start, most),
            )
            for row, value in cursor:
                taken.append((row, value))
                size += len(value)
                if size >= most_bytes:
                    break
        return taken

    def complete(self, job: int, result: str) -> None:
        """Take note that the job's result is at `result`, below the folder of results."""
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET result = ?, updated_at = ? WHERE id = ?",
                (result, self._now().isoformat(), job),
            )

    def purge(self, limit: int) -> bool:
        """Remove at most `limit` outcomes of complete jobs, or some empty pages; whether any."""
        with self._transaction():
            found = self._db.execute(
                "SELECT id FROM jobs WHERE result IS NOT NULL AND purged = 0 LIMIT 1"
            ).fetchone()
            if found is not None:
                if delete_outcomes(self._db, found[0], limit) < limit:
                    self._db.execute("UPDATE jobs SET purged = 1 WHERE id = ?", found)
                return True
        with self._explained():
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if free <= _KEPT_FREE_PAGES:
                return False
            pages = min(_VACUUM_PAGES, free - _KEPT_FREE_PAGES)
            # It frees a page a step, of which `execute` makes one only.
            self._db.executescript(f"PRAGMA incremental_vacuum({pages})")
            return True

    def _counts(self, job: int) -> tuple[tuple[str, str, int], ...]:
        found = self._db.execute("SELECT error, model, rows FROM counts WHERE job = ?", (job,))
        return tuple(found.fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            # One of sqlite3's own (a value it has no type for) has no code, and is a defect.
            code = sqlite3.SQLITE_IOERR if isinstance(error, OSError) else _code(error)
            where = f"setting PAIRSCORE_RESULTS: {self._path}"
            if code in _MAY_PASS:
                raise StoreFault(f"{where} cannot be written: {error}") from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise EnvironmentFault(
                    f"{where} is damaged ({error}); move it away and start again: `scores` is then "
                    "read from its beginning"
                ) from error
            raise


def _code(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
