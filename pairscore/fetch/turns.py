"""Requests wait for their hosts' turns; those that would wait for too long are let go."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from pairscore.fetch.request import Request
from pairscore.fetch.stats import FetchStats, Hold
from pairscore.fetch.verdict import left_alone, too_slow
from pairscore.fetch.waiting import Ending, HostQueues
from pairscore.pair import Failure
from pairscore.politeness import Grant, Question
from pairscore.politeness.budget import SECOND
from pairscore.politeness.budgets import Budgets
from pairscore.settings import FetchSettings

_LOOK_EVERY: Final = 0.5


class Turns:
    """The queues of hosts, with the budgets that say how often each may be asked.

    Belongs to the fetch thread, but for what `budgets` say later. A request waits for no host that
    is to be left alone for longer than `queue_timeout` (or `retry_after_cap`), or `timeout` where
    it does not answer; nor for longer than `queue_timeout` for its turn, where there is one.
    """

    def __init__(
        self,
        settings: FetchSettings,
        budgets: Budgets,
        stats: FetchStats,
        *,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`wake` says, from any thread, that there is something for `take`."""
        self._settings = settings
        self._patience = settings.queue_timeout or settings.retry_after_cap
        self._budgets = budgets
        self._stats = stats
        self._wake = wake
        self._clock = clock
        self._queues: HostQueues[Request] = HostQueues()
        self._granted: deque[tuple[Question, Grant]] = deque()
        # Runs while there is room for a transfer, so that only their hosts keep requests waiting.
        self._unhindered = 0.0
        self._room_since: float | None = None
        self._next_look = 0.0

    def wait(self, request: Request, delay: float = 0.0) -> None:
        """Queue a request for its target; the host wants `delay` seconds between two of them.

        One whose turn would not come in time is let go at once.
        """
        host, limit, unhindered = (
            request.target.host,
            self._settings.queue_timeout,
            self._unhindered,
        )
        if limit is not None:
            own, whole = self._queues.backlog(host, unhindered)
            if own > limit:
                self._queues.lets_go(host)
                self._let_go(Hold.SLOW, request, too_slow(host, whole))
                return
        request.queued_at = unhindered
        self._queues.put(host, request, self._clock(), delay=delay, unhindered=unhindered)

    def ask(self, room: int) -> None:
        """Ask budgets about some hosts, tell them the news, and take what they say.

        So many that about `room` may be asked.
        """
        while self._granted:
            self._take_grant(*self._granted.popleft())
        questions = self._queues.questions(room, self._clock())
        grants = self._budgets.ask(questions, self._later) if questions else ()
        if grants is not None:
            for question, grant in zip(questions, grants, strict=True):
                self._take_grant(question, grant)

    def take(self) -> Request | None:
        """The next request whose host may be asked now; None if there is room and no such."""
        now = self._clock()
        request = self._queues.take(now)
        if request is None:
            self._room_since = now
            return None
        self._stats.waits += 1
        self._stats.wait_seconds += self._unhindered - request.queued_at
        return request

    def finished(self, host: str, ending: Ending) -> None:
        """A request that was taken for `host` is over."""
        self._stats.closings += ending.close > 0
        self._queues.finished(host, ending, self._clock())

    def next_time(self) -> float | None:
        """When the next host may be asked, if that depends on the time alone."""
        return self._queues.next_time()

    def let_go(self) -> None:
        """End what has waited for a slow host for too long; pools that are full are no reason."""
        limit = self._settings.queue_timeout
        if self._room_since is not None:
            now = self._clock()
            self._unhindered += now - self._room_since
            self._room_since = None
        if limit is None or self._unhindered < self._next_look:
            return
        self._next_look = self._unhindered + min(_LOOK_EVERY, limit / 4)
        oldest = self._unhindered - limit
        for host, request in self._queues.expire(lambda r: r.queued_at < oldest, self._clock()):
            self._let_go(Hold.SLOW, request, too_slow(host, limit))
        self._stats.held = self._queues.held

    def close(self) -> None:
        """Let go of the budgets."""
        self._budgets.close()

    def _later(self, granted: Sequence[tuple[Question, Grant]]) -> None:
        self._granted.extend(granted)
        self._wake()

    def _take_grant(self, question: Question, grant: Grant) -> None:
        now = self._clock()
        self._queues.answered(question, grant, now)
        limit = self._settings.timeout if grant.unreachable else self._patience
        if grant.closed <= limit * SECOND:
            return
        hold = Hold.UNREACHABLE if grant.unreachable else Hold.CLOSED
        for request in self._queues.drop(question.host, now):
            self._let_go(hold, request, left_alone(question.host, grant, request.attempts - 1))

    def _let_go(self, hold: Hold, request: Request, failure: Failure) -> None:
        self._stats.let_go[hold] += 1
        request.done(failure)
