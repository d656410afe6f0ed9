"""The read side of the CSV sink's folder: its spool, and the results that came out of it."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, TypeAlias

from pairscore.errors import EnvironmentFault, InputError
from shared.messages import JobMessage, ScoreMessage
from shared.results.lines import read_lines
from shared.results.page import PAGE_BYTES, Page
from shared.results.spool import open_for_reading, spool_path
from shared.results.status import JobStatus, State, make_status

OUTCOMES_NAME: Final = "outcomes.jsonl"
"""The messages of a complete job of the API's, one a line, by row."""

_JOBS: Final = (
    "SELECT id, name, message, rows_published, rows, result, created_at, updated_at FROM jobs"
)
_JobFields: TypeAlias = tuple[str, bytes | None, int, int | None, str | None, str, str]


class FolderResults:
    """What is in a folder of results; looks anew at each call, so that it may come later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def jobs(self) -> list[JobStatus]:
        """Every job, the latest begun first."""
        with self._spool() as spool:
            if spool is None:
                return []
            found = spool.execute(f"{_JOBS} ORDER BY id DESC").fetchall()
            statuses = [self._status(spool, fields[0], fields[1:]) for fields in found]
        # Not by SQLite: times of many zones are in no order as text.
        return sorted(statuses, key=lambda status: status.created_at, reverse=True)

    def job(self, name: str) -> JobStatus | None:
        """One job; None if nothing is known of it."""
        with self._spool() as spool:
            if spool is None:
                return None
            found = spool.execute(f"{_JOBS} WHERE name = ?", (name,)).fetchone()
            return None if found is None else self._status(spool, found[0], found[1:])

    def page(self, job: str, start: int = 0, limit: int = 1000) -> Page:
        """At most `limit` outcomes of a job, by row, from row `start` on, and of so much text."""
        with self._spool() as spool:
            if spool is None:
                return Page([], more=False)
            fields = spool.execute("SELECT id, result FROM jobs WHERE name = ?", (job,)).fetchone()
            if fields is None:
                return Page([], more=False)
            number, result = fields
            if result is None:
                found = spool.execute(
                    "SELECT value FROM outcomes WHERE job = ? AND row >= ? ORDER BY row LIMIT ?",
                    (number, start, limit),
                )
                with closing(found):
                    return _page((value for (value,) in found), limit)
        return self._page_of_complete(job, self._folder / result, start, limit)

    def rejected(self) -> int:
        """How many records were no messages of ours."""
        return self._number("SELECT count(*) FROM rejected")

    def duplicates(self) -> int:
        """How many outcomes came for rows that had one already."""
        return self._number("SELECT value FROM totals WHERE name = 'duplicates'")

    def close(self) -> None:
        """Nothing is kept open."""

    def _number(self, query: str) -> int:
        with self._spool() as spool:
            return 0 if spool is None else int(spool.execute(query).fetchone()[0])

    def _page_of_complete(self, job: str, result: Path, start: int, limit: int) -> Page:
        lines = result.with_name(OUTCOMES_NAME)
        if not lines.is_file():
            raise InputError(f"job {job}: it is complete, and its outcomes are in {result}")
        try:
            found = read_lines(lines, _row, start, limit, PAGE_BYTES)
        except OSError as error:
            raise EnvironmentFault(f"{lines}: cannot be read: {error.strerror or error}") from None
        return _page(found, limit)

    def _status(self, spool: sqlite3.Connection, number: int, fields: _JobFields) -> JobStatus:
        name, message, rows_published, rows, result, created_at, updated_at = fields
        state: State = "open"
        if rows is not None:
            state = "closed" if result is None else "complete"
        counts = spool.execute("SELECT error, model, rows FROM counts WHERE job = ?", (number,))
        return make_status(
            counts.fetchall(),
            job=name,
            source=JobMessage.model_validate_json(message).source if message else "",
            state=state,
            rows_published=rows_published,
            rows=rows,
            result=None if result is None else str(self._folder / result),
            created_at=datetime.fromisoformat(created_at),
            updated_at=datetime.fromisoformat(updated_at),
        )

    @contextmanager
    def _spool(self) -> Iterator[sqlite3.Connection | None]:
        path = spool_path(self._folder)
        try:
            connection = open_for_reading(path)
            if connection is None:
                yield None
                return
            with closing(connection):
                # One transaction, so that a job and its counts are of one moment.
                connection.execute("BEGIN")
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise EnvironmentFault(
                f"setting PAIRSCORE_RESULTS: {path} cannot be read: {error}; it must be the folder "
                "that the sink writes to, and readable"
            ) from None


def _row(line: bytes) -> int:
    return int(json.loads(line)["row"])


def _page(values: Iterable[bytes], limit: int) -> Page:
    """A page of messages, of which no more are asked for than it has."""
    taken: list[ScoreMessage] = []
    size = 0
    for value in values:
        taken.append(ScoreMessage.model_validate_json(value))
        size += len(value)
        if size >= PAGE_BYTES:
            break
    return Page(taken, more=len(taken) == limit or size >= PAGE_BYTES)
