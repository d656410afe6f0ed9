"""What a worker tells of itself: metrics, and whether it is alive and ready."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from pairscore.cache import Cache
from pairscore.fetch import FetchStats
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.shared import SharedBudgets
from shared.messages import PairMessage
from shared.telemetry import metrics as catalogue
from shared.telemetry.health import Health
from shared.telemetry.logs import row_ranges
from shared.telemetry.metrics import Metrics
from worker.cache_meter import CacheMeter
from worker.host_meter import HostMeter
from worker.ledger import Ledger, Partition, Plan
from worker.publication import Kind, Publication

_log = logging.getLogger(__name__)
_REPORT_SECONDS: Final = 60.0
_COUNTED = {
    Kind.SCORE: (catalogue.WORKER_OUTCOMES, "error"),
    Kind.RETRY: (catalogue.WORKER_RETRIES, "tier"),
    Kind.DEAD_LETTER: (catalogue.WORKER_DEAD_LETTERS, "defect"),
}


@runtime_checkable
class Shown(Protocol):
    """A scorer that has more to tell than its outcomes."""

    @property
    def cache(self) -> Cache:
        """What it remembers."""
        ...

    @property
    def fetched(self) -> FetchStats:
        """What fetching has to say of hosts."""
        ...

    @property
    def budgets(self) -> LocalBudgets | SharedBudgets:
        """How often it asks hosts."""
        ...


class Meter:
    """Counts what is committed, and how long rows took when they are finished.

    Called by the loop's thread alone.
    """

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._read: Counter[str] = Counter()
        self._behind: dict[Partition, float] = {}
        self._shown: set[str] = set()
        self._published: Counter[Kind] = Counter()
        self._report_at = 0.0
        self._parts: tuple[CacheMeter | HostMeter, ...] = ()

    def model(self, labels: Mapping[str, str]) -> None:
        """What scores: `fingerprint`, `model`, `backend`, `device` and `precision`."""
        self._metrics.set(catalogue.WORKER_MODEL, 1, **labels)

    def reads(self, topics: Iterable[str]) -> None:
        """What is read: its counters are there, at 0, before the first event, which alerts need."""
        for topic in topics:
            self._metrics.inc(catalogue.WORKER_RECORDS, 0, topic=topic)
            self._metrics.inc(catalogue.WORKER_LOST_PLACES, 0, topic=topic)

    def scorer(self, scorer: Shown) -> None:
        """What remembers and fetches, to be shown from now on."""
        self._parts = (
            CacheMeter(self._metrics, scorer.cache),
            HostMeter(self._metrics, scorer.fetched, scorer.budgets),
        )

    def beat(self) -> None:
        """The loop goes round."""
        self._health.beat()

    def read(self, partition: Partition, published_at: float) -> None:
        """A record was taken; it was published then, in seconds since the epoch."""
        self._read[partition[0]] += 1
        self._behind[partition] = published_at

    def reached_end(self, partition: Partition) -> None:
        """Nothing more is to be taken from a partition now, or not by this worker."""
        self._behind.pop(partition, None)

    def finished(self, pair: PairMessage, now: datetime) -> None:
        """A row has an outcome that is still ours to publish."""
        seconds = (now - pair.created_at).total_seconds()
        self._metrics.observe(catalogue.WORKER_ROW_SECONDS, max(0.0, seconds))

    def busy(self, seconds: float, rows: int) -> None:
        """For so long there was more to do than the scorer takes; so many rows came out of it."""
        self._metrics.inc(catalogue.WORKER_BUSY_SECONDS, seconds)
        self._metrics.inc(catalogue.WORKER_BUSY_ROWS, rows)

    def lost_place(self, partition: Partition) -> None:
        """Kafka no longer has what was to be read next of a partition."""
        self._metrics.inc(catalogue.WORKER_LOST_PLACES, topic=partition[0])

    def dropped(self) -> None:
        """An outcome belongs to somebody else by now."""
        self._metrics.inc(catalogue.WORKER_DROPPED)

    def committed(
        self, plan: Plan[Publication], seconds: float, trace_ids: Sequence[str] = ()
    ) -> None:
        """A plan was published, with rows of these traces."""
        self._metrics.inc(catalogue.WORKER_COMMITS, result="committed")
        self._metrics.observe(catalogue.WORKER_COMMIT_SECONDS, seconds)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "published",
                extra={
                    "rows": len(plan.outcomes),
                    "seconds": round(seconds, 3),
                    "jobs": row_ranges(each.row for each in plan.outcomes if each.row),
                    "offsets": {f"{topic}/{n}": to for (topic, n), to in plan.offsets.items()},
                    "trace_ids": trace_ids,
                },
            )
        counts = Counter((each.kind, each.label) for each in plan.outcomes)
        for (kind, label), count in counts.items():
            self._published[kind] += count
            metric, name = _COUNTED[kind]
            self._metrics.inc(metric, count, **{name: label})

    def aborted(self) -> None:
        """A transaction was aborted."""
        self._metrics.inc(catalogue.WORKER_COMMITS, result="aborted")

    def rebalanced(self, event: str, assigned: int) -> None:
        """Partitions came or went; `assigned` are here now."""
        self._metrics.inc(catalogue.WORKER_REBALANCES, event=event)
        self._metrics.set(catalogue.WORKER_ASSIGNED, assigned)
        self._health.ready(assigned > 0, "no partitions are assigned")

    def show(self, ledger: Ledger[Publication], in_flight: int, paused: int, now: float) -> None:
        """How full the worker is, and how far behind; `now` is seconds since the epoch."""
        self._metrics.set(catalogue.WORKER_IN_FLIGHT, in_flight)
        self._metrics.set(catalogue.WORKER_UNCONFIRMED, ledger.unconfirmed)
        self._metrics.set(catalogue.WORKER_UNCONFIRMED_BYTES, ledger.unconfirmed_bytes)
        self._metrics.set(catalogue.WORKER_PAUSED, paused)
        oldest = dict.fromkeys(self._shown, now)
        for (topic, _), published_at in self._behind.items():
            oldest[topic] = min(published_at, oldest.get(topic, now))
        for topic, published_at in oldest.items():
            self._metrics.set(catalogue.WORKER_OLDEST, now - published_at, topic=topic)
        self._shown.update(oldest)
        for part in self._parts:
            part.show(now)
        if now >= self._report_at:
            self._report(ledger, now)
        for topic, count in self._read.items():
            self._metrics.inc(catalogue.WORKER_RECORDS, count, topic=topic)
        self._read.clear()

    def _report(self, ledger: Ledger[Publication], now: float) -> None:
        """One line a minute, while there is something to tell."""
        self._report_at = now + _REPORT_SECONDS
        if self._published:
            _log.info(
                "%d scores, %d retries and %d dead letters in a minute; %d rows in work",
                self._published[Kind.SCORE],
                self._published[Kind.RETRY],
                self._published[Kind.DEAD_LETTER],
                ledger.unconfirmed,
            )
            self._published.clear()
