"""Databases of a test's own, and Postgres sinks as processes that store into them."""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from shared.messages import ScoreMessage
from shared.results.postgres import PostgresResults
from shared.results.status import JobStatus
from tests.fetching import wait_until
from tests.sinking import COMMAND, DEADLINE, Job, Place, Sink


@contextmanager
def database(server: str, encoding: str = "UTF8") -> Iterator[str]:
    """The URL of an empty database."""
    name = f"t{uuid.uuid4().hex[:8]}"
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0 LOCALE 'C' ENCODING {}")
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    _order(server, make.format(sql.Identifier(name), encoding))
    try:
        yield url_of(server, dbname=name)
    finally:
        _order(server, drop.format(sql.Identifier(name)))


def _order(server: str, statement: sql.Composed) -> None:
    # A session of its own each time: the server may be restarted in between.
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement)


def url_of(url: str, **changes: str) -> str:
    """The URL with other parts."""
    parts: dict[str, Any] = conninfo_to_dict(url)
    return make_conninfo(**{**parts, **changes})


def ask(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What a query of a session of its own finds."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, values)
        return [] if cursor.description is None else cursor.fetchall()


@dataclass
class Sinks:
    """Postgres sinks of one place and one database, all of them ended with the test."""

    place: Place
    url: str
    folder: Path
    more: dict[str, str] = field(default_factory=dict)
    started: list[Sink] = field(default_factory=list)

    def start(self) -> Sink:
        """Start another."""
        log = self.folder / f"sink-{len(self.started)}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*COMMAND, "postgres"],
                env=self.place.environment(PAIRSCORE_POSTGRES_URL=self.url, **self.more),
                stderr=stderr,
            )
        sink = Sink(process, log)
        self.started.append(sink)
        return sink

    def end(self) -> None:
        """Kill what still runs."""
        for sink in self.started:
            sink.process.kill()
            sink.process.wait(DEADLINE)

    def status(self, job: str) -> JobStatus | None:
        """How far a job is, as the API and `status` read it."""
        with closing(PostgresResults(SecretStr(self.url))) as results:
            return results.job(job)

    def complete(self, *jobs: str) -> bool:
        """Whether all these jobs are."""
        with closing(PostgresResults(SecretStr(self.url))) as results:
            found = {status.job: status for status in results.jobs()}
        return all(job in found and found[job].state == "complete" for job in jobs)

    def finish(self, *jobs: str, within: float = DEADLINE) -> None:
        """Wait until all these jobs are complete."""
        wait_until(lambda: self.complete(*jobs), within=within)

    def ready(self) -> bool:
        """Whether the tables are there."""
        return bool(ask(self.url, "SELECT FROM pg_tables WHERE tablename = 'scores'"))

    def stored(self) -> int:
        """How many outcomes are."""
        return int(ask(self.url, "SELECT count(*) FROM pairscore.scores")[0][0])

    def more_than(self, rows: int) -> None:
        """Wait until more outcomes than these are stored."""
        wait_until(lambda: self.stored() > rows, within=DEADLINE)

    def assert_exact(self, job: Job) -> None:
        """Every row is there once and as it was published, and everything that counts agrees."""
        assert self.outcomes(job.name, len(job.scores) + 1) == job.scores
        failed: dict[str, int] = {}
        for score in job.scores:
            if score.error is not None:
                failed[score.error.value] = failed.get(score.error.value, 0) + 1
        status = self.status(job.name)
        assert status is not None
        assert status.state == "complete"
        scored = len(job.scores) - sum(failed.values())
        assert (status.rows, status.scored, status.lag) == (len(job.scores), scored, 0)
        assert {reason.value: count for reason, count in status.failed.items()} == failed

    def outcomes(self, job: str, limit: int) -> list[ScoreMessage]:
        """A job's, by row."""
        with closing(PostgresResults(SecretStr(self.url))) as results:
            return results.page(job, 0, limit).outcomes


@contextmanager
def sinks(place: Place, url: str, folder: Path, **more: str) -> Iterator[Sinks]:
    """Sinks of a place and a database; `more` is put into their environment."""
    made = Sinks(place, url, folder, more)
    try:
        yield made
    finally:
        made.end()


def hang(sink: Sink) -> None:
    """Make a sink hang (SIGSTOP)."""
    os.kill(sink.process.pid, signal.SIGSTOP)
    process = psutil.Process(sink.process.pid)
    wait_until(lambda: bool(process.status() == psutil.STATUS_STOPPED), within=DEADLINE)
