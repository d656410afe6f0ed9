"""Transactions on Kafka that come whole or not at all, whatever happens to the broker meanwhile."""

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from pairscore.errors import EnvironmentFault
from producer.faults import HOPELESS, TakenOver, explain
from producer.pulse import Pulse
from shared.clients import FENCED, LOST_SECONDS, TRANSACTION_SECONDS, make_producer
from shared.connection import Connection, describe
from shared.limits import without_coordinator
from shared.shutdown import Deadline
from shared.telemetry.traces import Headers

START_SECONDS: Final = 20.0
"""So long Kafka is waited for at first."""

OUTAGE_SECONDS: Final = 300.0
"""So long it is once rows are being published."""

CLOSING_SECONDS: Final = 5.0
"""So long it is when the process was asked to end."""

NO_HEADERS: Final[Headers] = []

_SLICE: Final = 0.5
_PAUSE: Final = 0.5
_REST: Final = 0.05

_log = logging.getLogger(__name__)


class Transactions:
    """One transaction after the other: `begin`, `add` what is in it, `commit`.

    The records of the open one are kept until it is committed, so that after an error they are
    published again from memory. Leaving the context aborts what is open.

    Every method may raise:
        EnvironmentFault: Kafka stayed away for `outage` seconds (for `START_SECONDS` at the
            start), refuses for good, or another producer has the transactional id now.
        KeyboardInterrupt: asked to stop; what was not committed then is not published, or, where
            Kafka does not say, is settled when the id is used again.
    """

    def __init__(
        self,
        connection: Connection,
        transactional_id: str,
        *,
        pulse: Pulse,
        ended: Callable[[str], None],
        timeout: float = TRANSACTION_SECONDS,
        outage: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            connection: to the brokers.
            transactional_id: without the prefix.
            pulse: of the process.
            ended: told `committed` or `aborted` of each transaction.
            timeout: seconds after which Kafka gives one up that is left open.
            outage: seconds that Kafka is waited for once rows are being published; default
                `OUTAGE_SECONDS`.
            extra: further properties of the client.
        """
        self._connection = connection
        self._id = transactional_id
        self._pulse = pulse
        self._ended = ended
        self._timeout = timeout
        self._outage = OUTAGE_SECONDS if outage is None else outage
        self._extra = extra or {}
        self._producer = self._make()
        self._open = False
        self._begun = 0.0
        self._renewal = pulse.deadline(LOST_SECONDS)
        self._records: list[tuple[str, bytes, bytes, Headers]] = []
        self._broken: KafkaError | None = None
        self.size = 0
        """Bytes in the open transaction."""
        self.in_doubt = False
        """Whether Kafka was asked to commit the open one: it may be committed without a word."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            self._abandon()

    def start(self) -> None:
        """Take the transactional id: whoever had it is fenced, and what it left open is aborted."""
        self._take_id(START_SECONDS)

    def begin(self) -> None:
        """Begin one; there is none open."""
        self._broken = None
        self.in_doubt = False
        self._begun = self._pulse.clock()
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            # It has the reason of an earlier one; committing will bring it up.
            self._broken = error.args[0]
        self._open = True

    def add(self, topic: str, key: bytes, value: bytes, headers: Headers = NO_HEADERS) -> None:
        """Publish a record in the open one."""
        self._records.append((topic, key, value, headers))
        self.size += len(key) + len(value)
        if self._broken is None:
            self._produce(topic, key, value, headers)

    def commit(self, settled: Callable[[], bool]) -> None:
        """Commit the open one; return when that is done.

        Args:
            settled: called where Kafka gave the transaction up, or may have committed it without
                saying so: says which, from what is on the topics, or raises if somebody else has
                gone on from there.
        """
        deadline = self._pulse.deadline(self._outage)
        self._renewal = self._pulse.deadline(LOST_SECONDS)
        while True:
            try:
                self._check_whole()
                # First all of it is to be there: until then nothing can have been committed.
                self._call(self._flush, deadline, self._renewal)
                self.in_doubt = True
                self._call(self._producer.commit_transaction, deadline, self._renewal)
                break
            except KafkaException as error:
                self._ended("aborted")
                if self._recover(error.args[0], deadline, settled):
                    break
                self.begin()
                for record in self._records:
                    self._produce(*record)
        self._open = self.in_doubt = False
        self._records.clear()
        self.size = 0
        self._ended("committed")

    def _make(self) -> Producer:
        return make_producer(
            self._connection,
            transactional_id=self._id,
            extra={"transaction.timeout.ms": int(self._timeout * 1000), **self._extra},
        )

    def _take_id(self, seconds: float) -> None:
        deadline = self._pulse.deadline(seconds)
        try:
            self._call(self._producer.init_transactions, deadline)
        except KafkaException as error:
            raise self._fault(error.args[0]) from None
        except EnvironmentFault as fault:
            settings = self._connection.settings
            raise without_coordinator(settings, self._producer, seconds) or fault from None

    def _produce(self, topic: str, key: bytes, value: bytes, headers: Headers) -> None:
        deadline: Deadline | None = None
        while True:
            try:
                if headers:
                    self._producer.produce(topic, value, key, headers=headers)
                else:  # no list of none, which would cost a thirtieth of the rate
                    self._producer.produce(topic, value, key)
                return
            except BufferError:
                deadline = deadline or self._pulse.deadline(self._outage)
                self._producer.poll(_SLICE)
                self._pulse.check()
                if deadline.passed:
                    raise self._connection.fault() from None
            except KafkaException as error:
                self._broken = error.args[0]
                return

    def _flush(self, seconds: float) -> None:
        if self._producer.flush(seconds):
            why = "records are not acknowledged"
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, why, retriable=True))

    def _check_whole(self) -> None:
        if self._broken is not None:
            raise KafkaException(self._broken)

    def _recover(self, error: KafkaError, deadline: Deadline, settled: Callable[[], bool]) -> bool:
        """After an error: whether the transaction was committed all the same."""
        _log.warning("a transaction failed: %s", describe(error))
        if not error.fatal() and not self._renewal.passed:
            try:
                self._call(self._producer.abort_transaction, deadline, self._renewal)
            except KafkaException as worse:
                error = worse.args[0]
            else:
                self._open = False
                self._pause(error, deadline)
                return False
        if not self._is_over(error):
            raise self._fault(error)
        _log.warning("going on with another client of Kafka")
        # Somebody else may have come in its place: looked for first, since taking the id back
        # fences them.
        self._open = False
        self._ask(settled, deadline)
        self._producer = self._make()
        self._take_id(deadline.left())
        self._renewal = self._pulse.deadline(LOST_SECONDS)
        return self._ask(settled, deadline)

    def _is_over(self, error: KafkaError) -> bool:
        """Whether it is the client that comes to nothing any more, not what it was to do."""
        if error.fatal():
            # Open for so long, Kafka gives a transaction up, and its producer with it.
            given_up = self._pulse.clock() - self._begun >= self._timeout
            return given_up and error.code() in FENCED
        return error.code() not in HOPELESS and self._renewal.passed

    def _ask(self, settled: Callable[[], bool], deadline: Deadline) -> bool:
        while True:
            try:
                return settled()
            except TakenOver:
                raise
            except EnvironmentFault:
                if deadline.passed:
                    raise
            self._pulse.wait(_PAUSE)

    def _pause(self, error: KafkaError, deadline: Deadline) -> None:
        if error.code() in HOPELESS or deadline.passed:
            raise self._fault(error)
        self._pulse.wait(_PAUSE)

    def _call(
        self, what: Callable[[float], Any], deadline: Deadline, renewal: Deadline | None = None
    ) -> None:
        """Call `what`, again for as long as that can help.

        Raises:
            KafkaException: it cannot, or the time for `renewal` has come.
        """
        grace: Deadline | None = None
        while True:
            try:
                what(_SLICE)
                return
            except KafkaException as error:
                found: KafkaError = error.args[0]
                if not found.retriable() or found.fatal() or found.txn_requires_abort():
                    raise
                self._producer.poll(_REST)  # brings up what is wrong with the connection
                if deadline.passed:
                    raise self._fault(found) from None
                if renewal is not None and renewal.passed:
                    raise
            self._pulse.beat()
            if self._pulse.stopping:
                grace = grace or self._pulse.deadline(CLOSING_SECONDS)
                if grace.passed:
                    raise KeyboardInterrupt

    def _abandon(self) -> None:
        """Abort, if that can be had soon; else Kafka does, after the timeout."""
        self._open = False
        try:
            self._producer.abort_transaction(CLOSING_SECONDS)
            self._ended("aborted")
        except KafkaException as error:
            _log.info("a transaction is left to Kafka to abort: %s", describe(error.args[0]))

    def _fault(self, error: KafkaError) -> EnvironmentFault:
        return explain(error, self._connection)
