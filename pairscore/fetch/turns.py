"""Requests wait for their hosts' turns; those that would wait for too long are let go."""

import logging
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
_log = logging.getLogger(__name__)


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
        self._next_look = 0.0

    def wait(self, request: Request, delay: float = 0.0) -> None:
        """Queue a request for its target; the host wants `delay` seconds between two of them.

        One whose turn would not come in time is let go at once.
        """
        host, limit, now = _host_of(request), self._settings.queue_timeout, self._clock()
        urgent, backlog = request.urgent, None
        if limit is not None:
            backlog = self._queues.backlog(host, limit, now, urgent=urgent)
        if backlog is None:
            self._queues.put(host, request, now, delay, urgent=urgent)
        else:
            self._queues.lets_go(host)
            self._let_go(Hold.SLOW, request, too_slow(host, backlog))

    def ask(self, room: int) -> None:
        """Ask budgets about some hosts, tell them the news, and take what they say.

        So many that about `room` may be asked, and all that an urgent request waits for.
        """
        while self._granted:
            self._take_grant(*self._granted.popleft())
        questions = self._queues.questions(room, self._clock())
        grants = self._budgets.ask(questions, self._later) if questions else ()
        if grants is not None:
            for question, grant in zip(questions, grants, strict=True):
                self._take_grant(question, grant)

    def take(self, *, urgent: bool = False) -> Request | None:
        """The next request whose host may be asked now; None if there is none.

        With `urgent`, only an urgent one.
        """
        taken = self._queues.take(self._clock(), urgent=urgent)
        if taken is None:
            return None
        request, waited = taken
        self._stats.waits += 1
        self._stats.wait_seconds += waited
        return request

    def finished(self, request: Request, ending: Ending) -> None:
        """A request that was taken, for the target that it still has, is over."""
        host = _host_of(request)
        if ending.close:
            self._stats.closings += 1
            _log.info("%s asks to be left alone for %.0f s", host, ending.close)
        self._queues.finished(host, ending, self._clock())

    def next_time(self) -> float | None:
        """When there is something to do that depends on the time alone."""
        due = self._queues.next_time()
        if self._settings.queue_timeout is None or not self._queues.hosts:
            return due
        return self._next_look if due is None else min(due, self._next_look)

    def let_go(self) -> None:
        """End what has waited for a slow host for too long; to be called after the hosts' turns."""
        limit, now = self._settings.queue_timeout, self._clock()
        if limit is None or now < self._next_look:
            return
        self._next_look = now + min(_LOOK_EVERY, limit / 4)
        for host, request in self._queues.expire(limit, now):
            self._queues.lets_go(host)
            backlog = self._queues.backlog(host, 0.0, now) or 0.0
            self._let_go(Hold.SLOW, request, too_slow(host, backlog))
        self._stats.held = self._queues.held

    def close(self) -> None:
        """Give back what was granted, and let go of the budgets."""
        if farewell := self._queues.farewell():
            self._budgets.ask(farewell, self._later)
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
        _log.debug("rows of %s are let go: %s", question.host, hold.value)
        for request in self._queues.drop(question.host, now):
            self._let_go(hold, request, left_alone(question.host, grant, request.attempts - 1))

    def _let_go(self, hold: Hold, request: Request, failure: Failure) -> None:
        self._stats.let_go[hold] += 1
        request.done(failure)


def _host_of(request: Request) -> str:
    # A name with the dot of the root behind it is the same name.
    return request.target.host.removesuffix(".")
