"""The loop of every sink: take records, store them in batches, finish jobs, until asked to end.

One thread runs it. What a store does not take is kept and offered again; meanwhile nothing more is
taken, so memory is bounded. The offsets are the store's: they are stored with the records, in one
transaction, and Kafka is told of them for people to see only.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from shared.settings import SinkOptions
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.logs import row_ranges
from shared.telemetry.metrics import (
    SINK_DEADLINE,
    SINK_DUPLICATES,
    SINK_JOBS,
    SINK_LAG,
    SINK_LEFT,
    SINK_REJECTED,
    SINK_ROWS,
    SINK_STORE_SECONDS,
    Metrics,
)
from shared.telemetry.traces import Tracer
from sink.faults import Persistent, StoreFault
from sink.intake import BATCH_BYTES, Batch, Intake, Place, Record, Stored

_TAKE: Final = 1_000
_IDLE_SECONDS: Final = 0.5
_DUE_SECONDS: Final = 5.0
_MOST_DUE: Final = 100
# A job that is late is told of for so long: one that never completes is not to hold a fleet up.
_FORGOTTEN: Final = timedelta(days=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a turn of finishing jobs came to: how many are now complete.

    There is more to do in `again` seconds; `why` says what is in the way of some, and is empty
    where nothing is.
    """

    complete: int = 0
    again: float = math.inf
    why: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """A job with a deadline that is not complete, and how many of its rows are not stored."""

    job: str
    left: int
    deadline: datetime


class Source(Protocol):
    """Where records come from."""

    def take(self, most: int, seconds: float) -> Sequence[Record]:
        """At most `most` records, or what has come after `seconds`; also keeps membership alive."""
        ...

    def hold(self, still: bool) -> None:
        """Take nothing more (True), or go on (False)."""
        ...

    def stored(self, next_offsets: Mapping[Place, int]) -> None:
        """Take note that everything taken before these offsets is stored."""
        ...

    @property
    def lag(self) -> int | None:
        """Records of `scores` that were not taken yet; None where that is not known."""
        ...


class Store(Protocol):
    """Where records go."""

    def offsets(self) -> Mapping[Place, int]:
        """The next offset of every partition of which something is stored."""
        ...

    def store(self, batch: Batch) -> Stored:
        """Store everything of a batch and its offsets in one transaction.

        Raises:
            StoreFault: nothing of it is stored; it may be offered again.
        """
        ...

    def due(self, most: int, after: datetime) -> Sequence[Due]:
        """The jobs with the soonest deadlines after a moment.

        Raises:
            StoreFault: that cannot be read now.
        """
        ...

    def finish_jobs(self) -> Finished:
        """Do a little of what complete jobs need; takes well under a second.

        Raises:
            StoreFault: nothing of it can be done now.
        """
        ...


class Loop:
    """Moves records from a source to a store."""

    def __init__(
        self,
        source: Source,
        intake: Intake,
        store: Store,
        *,
        options: SinkOptions,
        stop: StopSignal,
        health: Health,
        metrics: Metrics,
        tracer: Tracer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._intake = intake
        self._store = store
        self._options = options
        self._stop = stop
        self._health = health
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._storing = Persistent(clock)
        self._finishing = Persistent(clock)
        self._finished = Finished()
        self._began: float | None = None
        self._still = False
        self._due_at = clock()

    def run(self) -> int:
        """Go round until asked to end; then store what was taken, or try to, once.

        How many records are left that were taken and are not stored: they are to be taken again.
        """
        while not self._stop.asked:
            self._health.beat()
            self._take()
            if self._due():
                self.store_now()
            self._finish()
            self._tell()
        if self._intake.batch:
            self.store_now()
        return len(self._intake.batch)

    def store_now(self) -> bool:
        """Store what was taken; whether that is done. A source may ask before it gives some up."""
        batch = self._intake.batch
        begun = self._clock()
        stored = self._storing.attempt(lambda: self._store.store(batch))
        self._hold(still=stored is None)
        if stored is None:
            return False
        self._metrics.observe(SINK_STORE_SECONDS, self._clock() - begun)
        self._count(batch, stored)
        traces = self._trace(batch, self._clock() - (begun if self._began is None else self._began))
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug(
                "stored",
                extra={
                    "rows": len(batch.scores),
                    "jobs": row_ranges((s.message.job, s.message.row) for s in batch.scores),
                    "offsets": {f"{of}/{n}": to for (of, n), to in batch.next_offsets.items()},
                    "trace_ids": traces,
                },
            )
        self._source.stored(batch.next_offsets)
        self._intake.clear()
        self._began = None
        return True

    def forget(self, gone: Collection[Place]) -> None:
        """Drop what was taken of these partitions and is not stored."""
        self._intake.forget(gone)

    def _take(self) -> None:
        if not self._intake.batch:  # stored, or forgotten with its partitions
            self._began = None
        most = min(_TAKE, self._options.commit_rows - len(self._intake.batch))
        if self._storing.why:
            seconds = min(_IDLE_SECONDS, self._storing.wait)
        elif self._began is None:
            # The first record of a batch, as soon as it is there: from then on it waits for others.
            most, seconds = 1, _IDLE_SECONDS
        else:
            seconds = self._left(self._began)
        self._intake.add(self._source.take(max(1, most), min(seconds, self._finished.again)))
        if self._began is None and self._intake.batch:
            self._began = self._clock()

    def _due(self) -> bool:
        batch = self._intake.batch
        if self._storing.why:
            # Even where nothing is left to store: until the store answers, nothing more is taken.
            return self._storing.due
        return bool(batch) and (
            len(batch) >= self._options.commit_rows
            or batch.size >= BATCH_BYTES
            or (self._began is not None and self._left(self._began) <= 0)
        )

    def _left(self, began: float) -> float:
        return max(0.0, began + self._options.commit_interval - self._clock())

    def _finish(self) -> None:
        if not self._finishing.due:
            return
        self._finished = self._finishing.attempt(self._store.finish_jobs) or Finished()
        if self._finished.complete:
            self._metrics.inc(SINK_JOBS, self._finished.complete)

    def _hold(self, *, still: bool) -> None:
        if still is not self._still:
            self._source.hold(still)
            self._still = still

    def _tell(self) -> None:
        why = self._storing.why or self._finishing.why or self._finished.why
        self._health.ready(not why, why)
        if (lag := self._source.lag) is not None:
            self._metrics.set(SINK_LAG, lag + len(self._intake.batch.scores))
        if not why and self._clock() >= self._due_at:
            self._due_at = self._clock() + _DUE_SECONDS
            self._tell_due()

    def _tell_due(self) -> None:
        try:
            due = self._store.due(_MOST_DUE, datetime.now(UTC) - _FORGOTTEN)
        except StoreFault:
            return  # which storing will say
        self._metrics.set_all(SINK_LEFT, {each.job: each.left for each in due})
        self._metrics.set_all(SINK_DEADLINE, {each.job: each.deadline.timestamp() for each in due})

    def _trace(self, batch: Batch, seconds: float) -> list[str]:
        """A span for each trace that outcomes of a batch are in, since the first was taken.

        Returns the ids of the traces.
        """
        since = time.time() - seconds
        traces = (scored.trace for scored in batch.scores)
        topics = (self._intake.topics.scores,)
        spans = self._tracer.process(
            "process scores", lambda _: topics, traces, lambda _: since
        ).values()
        for span in spans:
            span.end()
        return [span.trace_id for span in spans]

    def _count(self, batch: Batch, stored: Stored) -> None:
        for error, rows in stored.rows.items():
            self._metrics.inc(SINK_ROWS, rows, error=error)
        self._metrics.inc(SINK_DUPLICATES, stored.duplicates)
        for defect, records in stored.rejected.items():
            self._metrics.inc(SINK_REJECTED, records, defect=defect)
        if batch.rejected:
            first = batch.rejected[0]
            _log.warning(
                "%d records are no messages of ours and are kept aside; the first: %s (%s)",
                len(batch.rejected),
                first.rejection.defect,
                first.rejection.detail,
                extra={
                    "topic": first.topic,
                    "partition": first.partition,
                    "offset": first.offset,
                },
            )
