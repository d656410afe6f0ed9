"""Entries in a SQLite file, for one machine: scoring a file again costs almost nothing."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pairscore.cache.codec import DIGEST, PREFIXES
from pairscore.cache.store import Answer, Contents, Item, Question, names_image
from pairscore.errors import EnvironmentFault
from pairscore.guard import Unavailable

FILE: Final = "cache.sqlite"
_WAIT_SECONDS: Final = 5.0
_MOST_PARAMETERS: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
  key BLOB PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires);
"""
_COUNT: Final = "SELECT count(*) FROM entries WHERE key >= ? AND key < ?"
_FORGET: Final = "DELETE FROM entries WHERE key = ?"
_FORGET_OLD: Final = "DELETE FROM entries WHERE expires <= ?"
_PUT: Final = "INSERT OR REPLACE INTO entries (key, value, expires) VALUES (?, ?, ?)"


class SqliteStore:
    """A file in a folder, which several processes may use; each store belongs to one thread.

    What is lost with the power is lost: it is a cache, and a file that is damaged is begun anew by
    removing it, as the error says.
    """

    def __init__(
        self, folder: Path, *, images: bytes, wall: Callable[[], float] = time.time
    ) -> None:
        """Open or make it; `images` is what keys of images begin with.

        Raises:
            EnvironmentFault: the folder or the file cannot be used.
        """
        self._images = images
        self._wall = wall
        self._file = file = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                file, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.executescript(_SCHEMA)
            self._database.execute(_FORGET_OLD, [wall()])
        except (sqlite3.Error, OSError) as error:
            raise EnvironmentFault(
                f"{file}: cannot be used as a cache ({_said(error)}); remove it, or name another "
                "folder"
            ) from None

    def look_up(self, question: Question) -> Answer:
        """Read."""
        with _faults():
            found = self._values([*question.urls, *question.captions])
            urls, captions = found[: len(question.urls)], found[len(question.urls) :]
            images = self._values([self._images + v[DIGEST] for v in urls if names_image(v)])
        named = iter(images)
        return Answer([(v, next(named) if names_image(v) else None) for v in urls], captions)

    def claim(self, images: Sequence[tuple[bytes, bytes]], seconds: float) -> list[bytes | bool]:
        """Read; what is not there is the caller's to embed."""
        del seconds
        with _faults():
            found = self._values([image for image, _ in images])
        return [True if value is None else value for value in found]

    def put(self, items: Sequence[Item]) -> None:
        """Write, in one transaction."""
        now = self._wall()
        with _faults():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany(
                    _PUT,
                    [(k, value, now + lasts) for k, value, lasts in items if value is not None],
                )
                self._database.executemany(
                    _FORGET, [(key,) for key, value, _ in items if value is None]
                )
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # or the lock would stay ours
                    with contextlib.suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                raise

    def ping(self) -> None:
        """See whether the file can be read."""
        with _faults():
            self._database.execute("SELECT 1 FROM entries LIMIT 1").fetchone()

    def contents(self) -> Contents:
        """Count."""
        with _faults():
            entries = {
                kind: self._database.execute(_COUNT, [prefix, prefix[:-1] + b";"]).fetchone()[0]
                for kind, prefix in PREFIXES.items()
            }
        return Contents(entries, self._file.stat().st_size, {"file": str(self._file)})

    def clear(self) -> int:
        """Empty the file."""
        with _faults():
            gone: int = self._database.execute("DELETE FROM entries").rowcount
            self._database.execute("VACUUM")
        return gone

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        now = self._wall()
        found: dict[bytes, object] = {}
        for start in range(0, len(keys), _MOST_PARAMETERS):
            some = keys[start : start + _MOST_PARAMETERS]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value FROM entries WHERE key IN ({marks}) AND expires > ?"  # noqa: S608
            found.update(self._database.execute(query, [*some, now]).fetchall())
        return [v if isinstance(v := found.get(key), bytes) else None for key in keys]


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"the cache's file: {_said(error)}") from error


def _said(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
