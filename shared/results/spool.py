"""The CSV sink's spool: what its one SQLite file looks like, and how to open it.

`RESULTS/.spool/scores.sqlite` holds everything that the sink must not forget: outcomes by row, how
many there are of each kind, jobs, records that are no messages, and the next offsets, so that one
transaction moves them all. A write-ahead log without a sync at each commit (synchronous=NORMAL): a
power cut may take the last transactions, but takes them whole, and Kafka still has the records.
"""

import sqlite3
from pathlib import Path
from typing import Final

from pairscore.errors import EnvironmentFault

VERSION: Final = 1
PAGE_BYTES: Final = 8192
BUSY_SECONDS: Final = 5.0
_APPLICATION_ID: Final = 0x70737331  # "pss1", in the file's header for `file` and the like

_WAL_PAGES: Final = 64 * 1024 * 1024 // PAGE_BYTES
_CACHE_KIB: Final = 4 * 1024

_SCHEMA: Final = """
CREATE TABLE topics (
  name TEXT PRIMARY KEY,
  id TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE offsets (
  topic TEXT NOT NULL,
  partition INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- epoch: which incarnation of the topic `scores` the job's outcomes are of
-- message: the latest JobMessage; stored: distinct rows; result: where it is, below RESULTS
CREATE TABLE jobs (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL,
  message BLOB,
  rows_published INTEGER NOT NULL DEFAULT 0,
  rows INTEGER,
  stored INTEGER NOT NULL DEFAULT 0,
  result TEXT,
  purged INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
);
CREATE INDEX jobs_to_write ON jobs (id) WHERE result IS NULL AND stored = rows;
CREATE INDEX jobs_to_purge ON jobs (id) WHERE result IS NOT NULL AND purged = 0;

-- An index of its own beside rows in the order they come: rows come in many orders, and only the
-- small index has to be written all over.
CREATE TABLE outcomes (
  id INTEGER PRIMARY KEY,
  job INTEGER NOT NULL,
  row INTEGER NOT NULL,
  value BLOB NOT NULL,
  UNIQUE (job, row)
);

CREATE TABLE counts (
  job INTEGER NOT NULL,
  error TEXT NOT NULL,
  model TEXT NOT NULL,
  rows INTEGER NOT NULL,
  PRIMARY KEY (job, error, model)
) WITHOUT ROWID;

-- partition and offset are NULL for an outcome of a row that its job turned out not to have
CREATE TABLE rejected (
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL,
  topic TEXT NOT NULL,
  partition INTEGER,
  "offset" INTEGER,
  defect TEXT NOT NULL,
  detail TEXT NOT NULL,
  value BLOB,
  UNIQUE (epoch, topic, partition, "offset")
);

CREATE TABLE totals (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO totals VALUES ('epoch', 0), ('duplicates', 0);
"""


def spool_path(results: Path) -> Path:
    """The spool of a results folder."""
    return results / ".spool" / "scores.sqlite"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the spool, and make it if there is none; transactions are begun by hand.

    Raises:
        EnvironmentFault: it is no spool, or one of another version.
        sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if _version(connection, path) == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION};"
                f"PRAGMA application_id = {_APPLICATION_ID}; COMMIT;"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * PAGE_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """Open the spool to read it, whether or not a sink is at it; None if there is none yet.

    Raises:
        EnvironmentFault: it is no spool, or one of another version.
        sqlite3.Error: it cannot be opened.
    """
    if not path.is_file():
        return None
    # A database without a log is at rest. Only then may it be read without one, which those must
    # who may not write to the folder.
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    try:
        return _opened(path, "mode=ro")
    except sqlite3.OperationalError:
        if not at_rest:
            raise
    return _opened(path, "mode=ro&immutable=1")


def _opened(path: Path, options: str) -> sqlite3.Connection | None:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}", uri=True, timeout=BUSY_SECONDS
    )
    try:
        made = _version(connection, path) != 0
    except BaseException:
        connection.close()
        raise
    if not made:
        connection.close()
        return None
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise EnvironmentFault(
            f"{path}: a spool of version {version}, and this is for version {VERSION}; use the "
            "pairscore that wrote it, or move it away to read `scores` from its beginning"
        )
    return int(version)
