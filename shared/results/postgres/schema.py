"""The tables, in a schema of their own, so that they lie beside whatever else is in the database.

Every version of them that was ever released can be brought up to date: `_VERSIONS` only grows.
"""

from typing import Final, LiteralString

import psycopg

from pairscore.errors import EnvironmentFault
from shared.results.postgres.connection import SETTING, Connection, one_line

_LOCK: Final = 0x70616972  # "pair"
_ENCODINGS: Final = frozenset({"UTF8", "SQL_ASCII"})
"""Those that hold every character; the second takes bytes as they come."""


_FIRST: Final[LiteralString] = """
CREATE TABLE pairscore.scores (
    job text COLLATE "C" NOT NULL,
    row bigint NOT NULL,
    url text NOT NULL,
    caption text NOT NULL,
    columns text[] NOT NULL,
    raw text,
    similarity double precision,
    cosine double precision,
    error text,
    error_detail text,
    caption_truncated boolean NOT NULL,
    image_sha256 text,
    model text NOT NULL,
    attempts integer NOT NULL,
    scored_at timestamptz NOT NULL,
    original bytea,
    PRIMARY KEY (job, row),
    CHECK ((similarity IS NULL) <> (error IS NULL))
);
COMMENT ON TABLE pairscore.scores IS 'one row for each row of a job: a similarity or an error';
COMMENT ON COLUMN pairscore.scores.original IS
    'the message, where a column here cannot hold what it says: U+0000 is U+FFFD in text';

CREATE TABLE pairscore.jobs (
    job text COLLATE "C" PRIMARY KEY,
    source text NOT NULL,
    source_sha256 text,
    header text[] NOT NULL,
    csv json,
    rows_published bigint NOT NULL,
    rows bigint,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz
);
CREATE INDEX jobs_not_complete ON pairscore.jobs (job) WHERE completed_at IS NULL;
COMMENT ON COLUMN pairscore.jobs.rows IS 'how many rows there are; null while they are published';
COMMENT ON COLUMN pairscore.jobs.completed_at IS 'when all of them were in pairscore.scores';

CREATE TABLE pairscore.counts (
    job text COLLATE "C" NOT NULL,
    error text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    share integer NOT NULL,
    rows bigint NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, error, model, share)
) WITH (fillfactor = 50);
COMMENT ON TABLE pairscore.counts IS
    'rows of pairscore.scores, to be summed; sinks that store at once count in shares of their own';

CREATE TABLE pairscore.topics (
    name text COLLATE "C" PRIMARY KEY,
    id text NOT NULL
);

CREATE TABLE pairscore.offsets (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint,
    duplicates bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE pairscore.offsets IS
    'where the sinks go on reading; changed in the transactions that store what was read';

CREATE TABLE pairscore.rejected (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    partition integer,
    record_offset bigint,
    defect text NOT NULL,
    detail text NOT NULL,
    value bytea,
    stored_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pairscore.rejected IS 'records that are no outcomes, or none that can be true';
"""

_DEADLINES: Final[LiteralString] = """
ALTER TABLE pairscore.jobs ADD COLUMN deadline timestamptz;
COMMENT ON COLUMN pairscore.jobs.deadline IS 'when all of it is wanted';
"""

_VERSIONS: Final[tuple[LiteralString, ...]] = (_FIRST, _DEADLINES)
VERSION: Final = len(_VERSIONS)


def prepare(connection: Connection) -> None:
    """Make the tables, or bring older ones up to date; safe to be called by several at once.

    Raises:
        EnvironmentFault: the database cannot hold them, or has those of a newer pairscore.
        psycopg.Error: the server is gone.
    """
    _check_encoding(connection)
    try:
        if version(connection) != VERSION:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                _upgrade(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise EnvironmentFault(
            f"{SETTING}: the user {connection.info.user} may not make the schema pairscore in the "
            f"database {connection.info.dbname} ({one_line(error)}); grant CREATE on the database, "
            "or have its owner start the sink once"
        ) from None


def version(connection: Connection) -> int:
    """The version of the tables; 0 where there are none.

    Raises:
        EnvironmentFault: it is of a newer pairscore.
        psycopg.Error: the server is gone, or does not let us look.
    """
    if not _exists(connection, "pg_tables", "schemaname = 'pairscore' AND tablename = 'version'"):
        return 0
    found = connection.execute("SELECT coalesce(max(version), 0) FROM pairscore.version").fetchone()
    number = int(found[0]) if found else 0
    if number > VERSION:
        raise EnvironmentFault(
            f"{SETTING}: the tables there are of version {number}, made by a newer pairscore; this "
            f"one knows them up to version {VERSION}: bring it up to date"
        )
    return number


def _upgrade(connection: Connection) -> None:
    found = version(connection)
    if found == 0:
        # Asked first, because making one that is there needs rights that using it does not.
        if not _exists(connection, "pg_namespace", "nspname = 'pairscore'"):
            connection.execute("CREATE SCHEMA pairscore")
        connection.execute(
            "CREATE TABLE pairscore.version (version integer PRIMARY KEY, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
    for number, statements in enumerate(_VERSIONS[found:], start=found + 1):
        connection.execute(statements)
        connection.execute("INSERT INTO pairscore.version (version) VALUES (%s)", (number,))


def _exists(connection: Connection, catalogue: LiteralString, condition: LiteralString) -> bool:
    # Not by to_regclass() and the like: those go by a cache, which may not have heard yet of what
    # another session made while this one waited for the lock.
    found = connection.execute(f"SELECT FROM pg_catalog.{catalogue} WHERE {condition}")
    return found.rowcount > 0


def _check_encoding(connection: Connection) -> None:
    found = connection.info.parameter_status("server_encoding")
    if found not in _ENCODINGS:
        raise EnvironmentFault(
            f"{SETTING}: the database {connection.info.dbname} keeps text as {found}, which has "
            f"not every character; use one whose encoding is UTF8"
        )
