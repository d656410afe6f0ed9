"""Handing rows to the scorer, the urgent ones first, and collecting what comes of them.

The scorer's threads only put outcomes into a queue, which holds at most what was handed over.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty
from typing import Final, Protocol

from pairscore.inbox import Inbox
from pairscore.pair import Outcome, Pair
from shared.messages import PairMessage
from worker.ledger import Record
from worker.publication import Publication, Traced

HORIZON: Final = 4.0
_MEASURE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0


def none_held() -> int:
    """Of a scorer whose rows wait for no hosts."""
    return 0


class Scorer(Protocol):
    """What scores: `pairscore.scorer.Scorer`, or what a benchmark puts in its place."""

    @property
    def fingerprint(self) -> str:
        """Of what a similarity depends on."""
        ...

    def submit(self, pair: Pair, *, urgent: bool = False) -> Future[Outcome]:
        """Begin to score a pair, an urgent one before all others; never waits."""
        ...

    def close(self) -> None:
        """End its threads."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A row to score, the record it came in, and whether it goes before those that are not."""

    record: Record[Publication]
    pair: PairMessage
    urgent: bool = False
    trace: Traced | None = None


class Scoring:
    """Keeps some rows in the scorer; the others wait here, urgent ones in front.

    What is in the scorer cannot be taken back, when it turns out that a partition has moved or the
    process is to end: so as many are there as it finishes in `HORIZON` seconds, at least `least`,
    with which it can do its best, and at most `most`; those that wait for slow hosts do not count,
    so that they hold up no others. There may be as many urgent ones beside them, which overtake
    them there too.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        least: int,
        most: int,
        patience: float | None = None,
        held: Callable[[], int] = none_held,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hand over to `scorer`.

        Args:
            scorer: what scores.
            least: rows that are in it at once, at least.
            most: and at most; and as many urgent ones.
            patience: how many seconds a row may be in it; None for any.
            held: how many rows in it wait for their hosts alone, and keep no other from its turn.
            clock: monotonic, in seconds.
        """
        self._scorer = scorer
        self._least = min(least, most)
        self._most = most
        self._limit = self._least
        self._patience = patience
        self._held = held
        self._clock = clock
        self._looked_at = clock()
        self._awake = 0.0
        self._measured_at = clock()
        self._counted = 0
        self._per_second: float | None = None
        self._urgent: deque[Task] = deque()
        self._others: deque[Task] = deque()
        self._finished: Inbox[tuple[Task, Future[Outcome]]] = Inbox()
        self._submitted: dict[Task, float] = {}
        self._urgent_submitted = 0

    @property
    def in_flight(self) -> int:
        """How many rows are in the scorer, or have come out and were not collected."""
        return len(self._submitted)

    @property
    def urgent_in_flight(self) -> int:
        """How many of them are urgent."""
        return self._urgent_submitted

    @property
    def seconds_left(self) -> float:
        """How long what is in the scorer takes, as fast as it last was; 0 if that is unknown."""
        return self.in_flight / self._per_second if self._per_second is not None else 0.0

    def overdue(self) -> Task | None:
        """The row that has been in the scorer for longest, if that is longer than the patience.

        To be asked all the time: what lies between two calls counts as a second at most, since the
        whole process may have stood still (SIGSTOP).
        """
        now = self._clock()
        self._awake += min(now - self._looked_at, _LOOK_SECONDS)
        self._looked_at = now
        if self._patience is None:
            return None
        for task, since in self._submitted.items():
            return task if self._awake - since > self._patience else None
        return None

    @property
    def waiting(self) -> int:
        """How many rows are still to be handed over."""
        return len(self._urgent) + len(self._others)

    @property
    def is_full(self) -> bool:
        """Whether the scorer has as much as it can do at once, and more rows are there.

        Not where nearly all that it has wait for their hosts.
        """
        return self.waiting > 0 and len(self._submitted) - self._held() >= self._limit / 2

    def put(self, task: Task) -> None:
        """Take a row."""
        (self._urgent if task.urgent else self._others).append(task)

    def submit(self, is_wanted: Callable[[Task], bool]) -> None:
        """Hand over as many rows as there is room for; those that are not wanted are dropped."""
        self._measure()
        room = min(self._limit + self._held(), self._most)
        while self._urgent and self._urgent_submitted < room:
            self._submit(self._urgent.popleft(), is_wanted)
        while self._others and len(self._submitted) - self._urgent_submitted < room:
            self._submit(self._others.popleft(), is_wanted)

    def drop_waiting(self) -> None:
        """Forget the rows that were not handed over."""
        self._urgent.clear()
        self._others.clear()

    def collect(self, seconds: float = 0.0) -> Iterator[tuple[Task, Outcome]]:
        """Give what has come out; waits up to `seconds` for the first.

        Raises:
            ScorerCrashed: a stage of the scorer ended with a defect.
        """
        try:
            while True:
                task, future = (
                    self._finished.get(seconds) if seconds else self._finished.get_nowait()
                )
                seconds = 0.0
                del self._submitted[task]
                self._urgent_submitted -= task.urgent
                self._counted += 1
                yield task, future.result()
        except Empty:
            return

    def _measure(self) -> None:
        seconds = self._clock() - self._measured_at
        if seconds >= _MEASURE_SECONDS:
            if self._counted:
                self._per_second = self._counted / seconds
            wanted = round(self._counted / seconds * HORIZON)
            self._limit = max(self._least, min(self._most, wanted))
            self._measured_at += seconds
            self._counted = 0

    def _submit(self, task: Task, is_wanted: Callable[[Task], bool]) -> None:
        if not is_wanted(task):
            return
        self._submitted[task] = self._awake
        self._urgent_submitted += task.urgent
        pair = Pair(task.pair.url, task.pair.caption)
        future = self._scorer.submit(pair, urgent=task.urgent)
        future.add_done_callback(lambda done: self._finished.put((task, done)))
