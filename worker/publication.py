"""What comes of a record, as what one transaction has to publish: a score, a retry, a dead letter.

Pure: the clock is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from pairscore.pair import Failure, Outcome
from shared.clients import OVERHEAD_BYTES
from shared.dead_letter import cut, dead_letter_headers
from shared.messages import PairMessage, Rejection, ScoreMessage, key_of
from shared.settings import KafkaSettings
from shared.topics import RetryTier, Topics

LONGEST_DEFERRAL: Final = timedelta(days=1)
Headers: TypeAlias = tuple[tuple[str, str | bytes | None], ...]


class Kind(StrEnum):
    """What a publication is."""

    SCORE = "score"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


class Traced(NamedTuple):
    """The `traceparent` that a row came with, when, in seconds since the epoch, and where from."""

    parent: str
    since: float
    topic: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A copy of a score, for who waits for it."""

    topic: str
    partition: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to produce; `label` is what is counted: error, tier or defect."""

    kind: Kind
    label: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    row: tuple[str, int] | None = None
    """Job and row, for the log; a dead letter has none."""
    reply: Reply | None = None
    """Who gets a copy."""
    trace: Traced | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record came from; `timestamp` is milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Publisher:
    """Turns outcomes into publications, for one fleet and one model."""

    def __init__(
        self, settings: KafkaSettings, *, attempts: int, fingerprint: str, worker: str
    ) -> None:
        """`attempts` is how often a row is tried in all, its retries included."""
        self._topics = Topics.of(settings)
        self._attempts = attempts
        self._fingerprint = fingerprint
        self._worker = worker
        self._longest_letter = settings.max_message_bytes + OVERHEAD_BYTES
        # Kafka has so many at least (`check_topics`), and a transaction must not fail at one that
        # is not there.
        self._reply_partitions = settings.partitions

    def outcome(
        self, pair: PairMessage, outcome: Outcome, now: datetime, trace: Traced | None = None
    ) -> Publication:
        """A retry where the outcome is a failure that may pass and attempts are left; else it."""
        if isinstance(outcome, Failure):
            tier = next_tier(pair, outcome, self._topics.retries, self._attempts, now)
            if tier is not None:
                again = pair.model_copy(
                    update={"deferred_since": pair.deferred_since or now}
                    if outcome.deferred
                    else {"deferred_since": None, "attempt": pair.attempt + 1}
                )
                return Publication(
                    Kind.RETRY,
                    str(tier.delay),
                    tier.topic,
                    key_of(pair.url),
                    again.encode(),
                    row=(pair.job, pair.row),
                    trace=trace,
                )
            label = outcome.reason.value
        else:
            label = ""
        message = ScoreMessage.of(pair, outcome, model=self._fingerprint, scored_at=now)
        return Publication(
            Kind.SCORE,
            label,
            self._topics.scores,
            key_of(pair.url),
            message.encode(),
            row=(pair.job, pair.row),
            reply=self._reply(pair),
            trace=trace,
        )

    def rejection(self, rejection: Rejection, origin: Origin) -> Publication:
        """A dead letter: the original bytes, and in its headers why and where from."""
        headers = dead_letter_headers(
            rejection,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            timestamp_ms=origin.timestamp,
            worker=self._worker,
            size=len(origin.value or b""),
        )
        key = None if origin.key is None else cut(origin.key, OVERHEAD_BYTES // 4)
        value = None if origin.value is None else cut(origin.value, self._longest_letter)
        return Publication(
            Kind.DEAD_LETTER,
            rejection.defect.value,
            self._topics.dead_letters,
            key,
            value,
            tuple(headers),
        )

    def _reply(self, pair: PairMessage) -> Reply | None:
        wanted = pair.reply_to
        if wanted is None or wanted.partition >= self._reply_partitions:
            return None
        return Reply(self._topics.replies, wanted.partition, wanted.key.encode())


def next_tier(
    pair: PairMessage,
    failure: Failure,
    tiers: Sequence[RetryTier],
    attempts: int,
    now: datetime,
) -> RetryTier | None:
    """Where a failed row is to wait for its next attempt; None if the failure is its outcome.

    The tier of the attempt's number (the last one again where there are fewer), or a slower one
    where the server asked to be left alone for longer. A row that nobody was asked for may be
    deferred for a day, counted from the first time.
    """
    if not failure.retryable or not tiers:
        return None
    if failure.deferred:
        if now - (pair.deferred_since or now) > LONGEST_DEFERRAL:
            return None
    elif pair.attempt >= attempts:
        return None
    index = min(pair.attempt - 1, len(tiers) - 1)
    asked = failure.retry_after or 0.0
    while tiers[index].delay < asked and index + 1 < len(tiers):
        index += 1
    return tiers[index]
