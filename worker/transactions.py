"""One transaction: a plan's messages and its next offsets, all of them or none.

Errors of Kafka are told apart as KIP-447 and librdkafka's manual on transactions have it: what may
pass is tried again, what spoils the transaction aborts it, and what is fatal (another worker has
taken over) ends the process.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pairscore.errors import EnvironmentFault
from shared.clients import FENCED
from shared.connection import describe
from shared.shutdown import Deadline
from worker.ahead import encode_ahead
from worker.ledger import Plan
from worker.publication import Publication

PUBLISH_SECONDS: Final = 25.0
"""What a transaction may take.

Librdkafka may take 30 s over one step, whatever it is told: two of them must not outlast the
watchdog.
"""

_log = logging.getLogger(__name__)
_STEP_SECONDS: Final = 10.0
_BY_KEY: Final = -1
T = TypeVar("T")


class Aborted(Exception):
    """The transaction was aborted: nothing of it is visible, and it may be tried again."""


class Fatal(EnvironmentFault):
    """This producer can do no more; the process has to start anew."""


class Transactions:
    """Publishes plans with a transactional producer; belongs to one thread.

    Each step is a method of its own, so that a test can end the process before or after any.
    """

    def __init__(self, producer: Producer, consumer: Consumer) -> None:
        self._producer = producer
        self._consumer = consumer
        self._failed: KafkaException | None = None

    def prepare(self, seconds: float) -> None:
        """Fence whoever had this transactional id, and end what it left open.

        Raises:
            Fatal: that is not possible within `seconds`.
        """
        deadline = Deadline(seconds)
        try:
            self._patiently(lambda: self._producer.init_transactions(_STEP_SECONDS), deadline)
        except KafkaException as error:
            raise Fatal(_not_begun(error.args[0])) from error

    def publish(self, plan: Plan[Publication], seconds: float) -> None:
        """Publish a plan; when this returns, it is committed.

        Raises:
            Aborted: nothing was published.
            Fatal: nobody knows, and Kafka decides; the process must end without confirming.
        """
        deadline = Deadline(seconds)
        self._failed = None
        try:
            self.begin()
            self.produce(plan.outcomes, deadline)
            self.send_offsets(plan, deadline)
            self.flush(deadline)
        except KafkaException as error:
            self._abort(error)
        try:
            self.commit(deadline)
        except KafkaException as error:
            # It may have been committed, whatever librdkafka believes: Kafka tells whoever takes
            # the transactional id next.
            raise Fatal(_explain(error.args[0])) from error

    def begin(self) -> None:
        """Open a transaction."""
        self._producer.begin_transaction()

    def produce(self, publications: Sequence[Publication], deadline: Deadline) -> None:
        """Hand the messages to the client; a failure of one shows when committing."""
        for each in publications:
            self._produce(each.topic, each.key, each.value, deadline, headers=list(each.headers))
            if (reply := each.reply) is not None:
                self._produce(reply.topic, reply.key, each.value, deadline, reply.partition)

    def send_offsets(self, plan: Plan[Publication], deadline: Deadline) -> None:
        """Put the next offsets into the transaction, on behalf of this member of the group."""
        offsets = [
            TopicPartition(*each, offset, encode_ahead(offset, plan.ahead.get(each, ())))
            for each, offset in plan.offsets.items()
        ]
        self._patiently(
            lambda: self._producer.send_offsets_to_transaction(
                offsets, self._membership(), _STEP_SECONDS
            ),
            deadline,
        )

    def flush(self, deadline: Deadline) -> None:
        """Wait until Kafka has the messages, so that nothing but the decision is left."""
        if self._producer.flush(deadline.left()):
            raise self._failed or _timed_out()
        if self._failed is not None:
            raise self._failed

    def commit(self, deadline: Deadline) -> None:
        """Make it visible."""
        self._patiently(lambda: self._producer.commit_transaction(_STEP_SECONDS), deadline)

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        deadline: Deadline,
        partition: int = _BY_KEY,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic,
                    key=key,
                    value=value,
                    partition=partition,
                    headers=headers or [],
                    on_delivery=self._delivered,
                )
                return
            except BufferError:
                if deadline.passed:
                    raise _timed_out() from None
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = KafkaException(error)

    def _membership(self) -> object:
        """As whom offsets are committed: Kafka refuses those of a member that it has given up.

        Of nobody it takes them from anybody, so an id is needed; a consumer that has lost its own
        gets a new one only once this thread polls, and is told of what it has lost.
        """
        metadata = self._consumer.consumer_group_metadata()
        if not self._consumer.memberid():
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        return metadata

    def _patiently(self, step: Callable[[], T], deadline: Deadline) -> T:
        """Call again what is worth trying again: a commit whose answer is late may be done."""
        while True:
            try:
                return step()
            except KafkaException as error:
                found: KafkaError = error.args[0]
                if found.fatal() or not found.retriable() or deadline.passed:
                    raise

    def _abort(self, error: KafkaException) -> NoReturn:
        """Abort, or end the process where that is not possible."""
        found: KafkaError = error.args[0]
        if found.fatal() or found.code() in FENCED:
            raise Fatal(_explain(found)) from error
        _log.warning("a transaction is aborted: %s", describe(found))
        try:
            self._patiently(
                lambda: self._producer.abort_transaction(_STEP_SECONDS), Deadline(_STEP_SECONDS)
            )
        except KafkaException as second:
            raise Fatal(_explain(second.args[0])) from second
        raise Aborted(describe(found)) from error


def _explain(error: KafkaError) -> str:
    said = describe(error)
    apart = "where two run with one id, set PAIRSCORE_WORKER__ID for each"
    if error.code() in FENCED:
        return (
            f"another worker has taken over, or Kafka has given this one up ({said}); it must "
            f"start anew; {apart}"
        )
    if error.code() == KafkaError.UNKNOWN:
        # So Kafka 4.3 answers the commit of one that it is about to fence.
        return (
            f"Kafka failed by itself ({said}), as when another worker has just taken over; this "
            f"one must start anew; {apart}"
        )
    return f"Kafka: {said}; the worker must start anew"


def _not_begun(error: KafkaError) -> str:
    if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        help_ = (
            "let the worker's user Describe and Write the transactional ids that begin with "
            "PAIRSCORE_KAFKA__TOPIC_PREFIX and worker. (`kafka-acls.sh --transactional-id`)"
        )
    else:
        help_ = (
            "if the brokers run, see whether transaction.state.log.replication.factor and "
            "transaction.state.log.min.isr are no more than there are brokers"
        )
    return f"transactions cannot be begun: {describe(error)}; {help_}"


def _timed_out() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT))
