"""What happens inside the transaction that stores a batch in the spool."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from shared.messages import Defect, JobMessage, Rejection, ScoreMessage
from sink.intake import Batch, Rejected, Scored, Stored

_MOST_ROWS: Final = (1 << 63) - 1  # what SQLite can count; a job that claims more stays incomplete
_STRAYS_AT_ONCE: Final = 1_000

_log = logging.getLogger(__name__)


_Stray: TypeAlias = tuple[int, bytes, int | None, int | None]
"""Row, message, and where it was read."""


@dataclass(frozen=True, slots=True)
class _Job:
    id: int
    complete: bool
    rows: int | None


class Storing:
    """Stores one batch; the caller begins the transaction and ends it."""

    def __init__(self, db: sqlite3.Connection, outcomes: str, now: datetime) -> None:
        self._db = db
        self._outcomes = outcomes
        self._now = now.isoformat()
        (self._epoch,) = db.execute("SELECT value FROM totals WHERE name = 'epoch'").fetchone()
        self._rows: Counter[str] = Counter()
        self._rejected: Counter[Defect] = Counter()
        self._duplicates = 0

    def all_of(self, batch: Batch) -> Stored:
        """Store everything; say what came of it."""
        for message in batch.jobs:
            self._say(message)
        for name, scores in _by_job(batch.scores).items():
            self._add(name, self._job(name), scores)
        self._reject(batch.rejected)
        self._db.executemany(
            "REPLACE INTO offsets VALUES (?, ?, ?)",
            [(*place, offset) for place, offset in batch.next_offsets.items()],
        )
        if self._duplicates:
            self._db.execute(
                "UPDATE totals SET value = value + ? WHERE name = 'duplicates'",
                (self._duplicates,),
            )
        return Stored(self._rows, self._duplicates, self._rejected)

    def _job(self, name: str) -> _Job:
        found = self._db.execute(
            "SELECT id, epoch, result IS NOT NULL, rows FROM jobs WHERE name = ?", (name,)
        ).fetchone()
        if found is not None:
            number, epoch, complete, rows = found
            if epoch == self._epoch:
                return _Job(number, bool(complete), rows)
            if not complete:
                self._db.execute("UPDATE jobs SET epoch = ? WHERE id = ?", (self._epoch, number))
                return _Job(number, complete=False, rows=rows)
            self._forget(name, number)
        made = self._db.execute(
            "INSERT INTO jobs (name, epoch, created_at, updated_at) VALUES (?, ?, ?, ?)",
            (name, self._epoch, self._now, self._now),
        )
        return _Job(made.lastrowid or 0, complete=False, rows=None)

    def _forget(self, name: str, number: int) -> None:
        _log.warning(
            "a complete job comes again, from a topic made anew: its result will be replaced",
            extra={"job": name},
        )
        delete_outcomes(self._db, number, -1)
        self._db.execute("DELETE FROM counts WHERE job = ?", (number,))
        self._db.execute("DELETE FROM jobs WHERE id = ?", (number,))

    def _say(self, message: JobMessage) -> None:
        """Store what `jobs` says: published rows only grow, and a job that is closed stays so."""
        job = self._job(message.job)
        if job.complete or job.rows is not None:
            return
        rows = None if message.rows is None else min(message.rows, _MOST_ROWS)
        self._db.execute(
            "UPDATE jobs SET message = ?, rows_published = max(rows_published, ?), rows = ?, "
            "created_at = ?, updated_at = max(updated_at, ?) WHERE id = ?",
            (
                message.encode(),
                min(message.rows_published, _MOST_ROWS),
                rows,
                message.created_at.isoformat(),
                self._now,
                job.id,
            ),
        )
        if rows is not None:
            self._drop_strays(message.job, job.id, rows)

    def _add(self, name: str, job: _Job, scores: list[Scored]) -> None:
        if job.complete:
            self._duplicates += len(scores)
            return
        if job.rows is not None:
            strays = [scored for scored in scores if scored.message.row >= job.rows]
            if strays:
                scores = [scored for scored in scores if scored.message.row < job.rows]
                self._set_aside(
                    name,
                    job.rows,
                    [(s.message.row, s.value, s.partition, s.offset) for s in strays],
                )
        new = self._insert(job.id, scores)
        self._duplicates += len(scores) - len(new)
        counts = Counter((s.message.error or "", s.message.model) for s in new)
        for (error, model), rows in counts.items():
            self._count(job.id, error, model, rows)
            self._rows[error] += rows
        self._db.execute(
            "UPDATE jobs SET stored = stored + ?, updated_at = ? WHERE id = ?",
            (len(new), self._now, job.id),
        )

    def _insert(self, job: int, scores: list[Scored]) -> list[Scored]:
        """Insert outcomes; those whose rows had none."""
        (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM outcomes").fetchone()
        inserted = self._db.executemany(
            "INSERT OR IGNORE INTO outcomes (job, row, value) VALUES (?, ?, ?)",
            [(job, scored.message.row, scored.value) for scored in scores],
        ).rowcount
        if inserted == len(scores):
            return scores
        found = self._db.execute("SELECT row FROM outcomes WHERE id > ?", (last,))
        rows = {row for (row,) in found}
        new = []
        for scored in scores:
            if scored.message.row in rows:
                rows.remove(scored.message.row)  # of two in one batch the first was inserted
                new.append(scored)
        return new

    def _count(self, job: int, error: str, model: str, rows: int) -> None:
        self._db.execute(
            "INSERT INTO counts VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
            (job, error, model, rows),
        )

    def _drop_strays(self, name: str, job: int, rows: int) -> None:
        """Set aside outcomes of rows that the job turns out not to have: none completes it."""
        while found := self._db.execute(
            "SELECT id, row, value FROM outcomes WHERE job = ? AND row >= ? LIMIT ?",
            (job, rows, _STRAYS_AT_ONCE),
        ).fetchall():
            self._set_aside(name, rows, [(row, value, None, None) for _, row, value in found])
            for number, _, value in found:
                message = ScoreMessage.model_validate_json(value)
                self._count(job, message.error or "", message.model, -1)
                self._db.execute("DELETE FROM outcomes WHERE id = ?", (number,))
            self._db.execute("UPDATE jobs SET stored = stored - ? WHERE id = ?", (len(found), job))
        self._db.execute("DELETE FROM counts WHERE job = ? AND rows = 0", (job,))

    def _set_aside(self, name: str, rows: int, strays: list[_Stray]) -> None:
        _log.warning(
            "%d outcomes are of rows that their job of %d rows has not, and are kept aside",
            len(strays),
            rows,
            extra={"job": name, "row": strays[0][0]},
        )
        for row, value, partition, offset in strays:
            rejection = Rejection(Defect.INVALID, f"row {row} of job {name}, which has {rows} rows")
            self._reject([Rejected(self._outcomes, partition, offset, rejection, value)])

    def _reject(self, records: Iterable[Rejected]) -> None:
        for record in records:
            self._rejected[record.rejection.defect] += self._db.execute(
                "INSERT OR IGNORE INTO rejected "
                '(epoch, topic, partition, "offset", defect, detail, value) '
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    self._epoch,
                    record.topic,
                    record.partition,
                    record.offset,
                    record.rejection.defect,
                    record.rejection.detail,
                    record.value,
                ),
            ).rowcount


def delete_outcomes(db: sqlite3.Connection, job: int, limit: int) -> int:
    """Delete at most `limit` outcomes of a job, all if that is negative; how many there were."""
    return db.execute(
        "DELETE FROM outcomes WHERE id IN (SELECT id FROM outcomes WHERE job = ? LIMIT ?)",
        (job, limit),
    ).rowcount


def _by_job(scores: list[Scored]) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for scored in scores:
        found.setdefault(scored.message.job, []).append(scored)
    return found
