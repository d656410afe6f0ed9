"""Batches go into the database, each in one transaction with the offsets behind it.

Two sinks may believe for a while that a partition is theirs, one of them having been stopped while
the group gave it away. Therefore a batch is stored only if each of its partitions stands where this
sink left it; otherwise another one has gone on with it, and nothing of that partition is stored.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import psycopg

from shared.results.postgres import Address, prepare
from shared.results.postgres.connection import Connection, one_line
from shared.topics import Topics
from sink.faults import Persistent, StoreFault
from sink.intake import Batch, Place, Stored
from sink.loop import Due, Finished
from sink.postgres import statements
from sink.postgres.holdings import Holdings
from sink.postgres.writing import Moved, Writing

NAME: Final = "pairscore sink"
_LOOK_SECONDS: Final = 1.0

# All that a server, a network or an administrator may be the cause of. What is left (values that
# the tables do not take) would be a defect here, and ends the process with its traceback.
_MAY_PASS: Final = (
    psycopg.OperationalError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
)

_log = logging.getLogger(__name__)


class PostgresStore:
    """Belongs to the loop's thread; connects again when the connection is lost."""

    def __init__(
        self,
        address: Address,
        topics: Topics,
        holdings: Holdings,
        *,
        statement_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A statement that takes longer than `statement_seconds` fails, and is tried again."""
        self._address = address
        self._topics = topics
        self._holdings = holdings
        self._statement_seconds = statement_seconds
        self._clock = clock
        self._connection: Connection | None = None
        self._refused = False
        self._undecided: Stored | None = None
        self._looking = Persistent(clock)
        self._look_at = clock()

    def begin(self) -> None:
        """Connect, and make the tables where there are none.

        Raises:
            EnvironmentFault: the database cannot be reached, or cannot hold them.
        """
        connection = self._address.connect_at_start(NAME, self._statement_seconds)
        try:
            self._set_up(connection)
        except psycopg.Error as error:
            raise self._address.fault(error) from None

    def offsets(self) -> Mapping[Place, int]:
        """The next offset of every partition of which something is stored, whoever has it."""
        with self._transaction() as connection:
            found = connection.execute(statements.OFFSETS).fetchall()
        return {(topic, partition): offset for topic, partition, offset in found}

    def claim(
        self, places: Collection[Place], topic_ids: Mapping[str, str]
    ) -> Mapping[Place, int | None]:
        """The next offset of each, None where nothing is stored of it.

        Offsets of a topic that was deleted and made anew are forgotten, aloud.

        Raises:
            StoreFault: the database cannot be asked now.
        """
        with self._transaction() as connection:
            anew = statements.see_topics(connection, topic_ids)
            stored = statements.claim(connection, places)
        for topic in anew:
            _log.error(
                "topic %s was deleted and made anew since the sinks read it; what was not stored "
                "by then is lost, and the new one is read from its beginning; outcomes that are "
                "stored already stay as they are",
                topic,
            )
        return stored

    def store(self, batch: Batch) -> Stored:
        """Store everything of a batch and its offsets, but of partitions that have moved on.

        Raises:
            StoreFault: nothing of it is stored; it may be offered again.
        """
        self._refused = True
        stored: Stored | None = None
        while stored is None:
            held = self._holdings.held
            if gone := batch.next_offsets.keys() - held.keys():
                batch = batch.without(gone, self._topics)
            next_offsets = {p: max(n, held[p].read) for p, n in batch.next_offsets.items()}
            try:
                stored = self._write(batch, next_offsets)
            except Moved as moved:
                self._holdings.contest(moved.places)
                batch = batch.without(moved.places, self._topics)
            else:
                self._holdings.stored(next_offsets)
        self._refused = False
        self._look_at = self._clock()
        return stored

    def due(self, most: int, after: datetime) -> Sequence[Due]:
        """The jobs with the soonest deadlines after a moment, whichever sink stores their rows."""
        with self._transaction() as connection:
            return [Due(*each) for each in statements.soonest(connection, most, after)]

    def finish_jobs(self) -> Finished:
        """See which jobs have become complete; any sink may be the one to see it."""
        # While batches are refused, that is told, and this would be refused for the same reason.
        if self._clock() >= self._look_at and self._looking.due and not self._refused:
            self._look_at = self._clock() + _LOOK_SECONDS
            complete = self._looking.attempt(self._look) or []
        else:
            complete = []
        return Finished(len(complete), why=self._looking.why)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self) -> list[tuple[str, int]]:
        with self._transaction() as connection:
            complete = statements.complete_jobs(connection, self._topics.scores)
        for job, rows in complete:
            _log.info("job complete", extra={"job": job, "rows": rows})
        return complete

    def _write(self, batch: Batch, next_offsets: Mapping[Place, int]) -> Stored:
        if not next_offsets:
            with self._transaction():  # its partitions are gone; is the database there again?
                return Stored({}, 0, {})
        expected = {place: self._holdings.held[place].stored for place in next_offsets}
        try:
            with self._transaction() as connection:
                writing = Writing(connection, self._topics, batch)
                writing.stage()
                if not writing.lock(expected, next_offsets):
                    # The answer to the last commit was lost, and it had been done.
                    return self._undecided or Stored({}, 0, {})
                self._undecided = stored = writing.store(next_offsets)
        except Moved:
            self._undecided = None
            raise
        self._undecided = None
        return stored

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            connection = self._connected()
            with connection.transaction():
                yield connection
        except _MAY_PASS as error:
            # Whatever state it is in; a server that was changed for another is found again too.
            self.close()
            raise StoreFault(f"{self._address} cannot be used: {one_line(error)}") from error

    def _connected(self) -> Connection:
        if self._connection is None:
            return self._set_up(self._address.connect(NAME, self._statement_seconds))
        return self._connection

    def _set_up(self, connection: Connection) -> Connection:
        try:
            prepare(connection)
            statements.set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection
