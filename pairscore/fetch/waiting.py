"""Which waiting request is next: hosts take turns, and each is asked as often as its budget allows.

Pure bookkeeping without threads or a clock; the fetch thread owns it. Times are seconds.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Generic, TypeVar

from pairscore.fetch.line import Line
from pairscore.fetch.pace import Pace
from pairscore.politeness import Grant, Question
from pairscore.politeness.budget import SECOND

_MOST_WANTED: Final = 64
# How fast a host is can be told once it has been waited for for such a part of the limit.
_TELLING: Final = 3
_STALE_SECONDS: Final = 2.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of a request says of its host.

    It `answered`, be it that it took a request and no more, or the connection `failed`, or neither
    can be told; `close` is for how many seconds it asked to be left alone.
    """

    answered: bool = False
    failed: bool = False
    close: float = 0.0


@dataclass(slots=True)
class _Host(Generic[T]):
    """The requests of a host, and what its budget has said and is to be told.

    `permits` requests may begin, the next one at `begin` and then one each `interval`. More may be
    asked for from `again` on, if that is not being done already (`asked`, for so many). `timed` is
    for when it is in the queue of times. What waits is with the time of the pace's clock when it
    began to.
    """

    urgent: deque[tuple[T, float]] = field(default_factory=deque)
    others: deque[tuple[T, float]] = field(default_factory=deque)
    pace: Pace = field(default_factory=Pace)
    in_flight: int = 0
    permits: int = 0
    begin: float = 0.0
    interval: float = 0.0
    again: float = 0.0
    asked: int = 0
    troubled: bool = False
    failures: int = 0
    answered: bool = False
    close: float = 0.0
    timed: float | None = None
    void: bool = False
    delay: float = 0.0

    @property
    def waiting(self) -> int:
        return len(self.urgent) + len(self.others)

    @property
    def has_news(self) -> bool:
        return bool(self.failures or self.answered or self.close)


class HostQueues(Generic[T]):
    """Requests by host, first in first out within a host and round robin between hosts.

    Of a host, and of all hosts, the urgent ones come first; a host's budget holds for them too.

    A host whose request waits is in one of four places: it may be asked now, it waits for a time,
    its budget is to be asked, or is being asked.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _Host[T]] = {}
        self._runnable = Line()
        self._times: list[tuple[float, int, str]] = []
        self._asking = Line()
        self._asked = 0
        self._telling: dict[str, None] = {}
        self._order = count()

    @property
    def hosts(self) -> int:
        """How many hosts have requests that wait or are in flight."""
        return len(self._hosts)

    def put(
        self, host: str, item: T, now: float, delay: float = 0.0, *, urgent: bool = False
    ) -> None:
        """Add a request to the end of its host's queue, or of the urgent ones in it.

        `delay` is for how many seconds the host wants not to be asked again, if that is longer than
        its budget's interval.
        """
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host()
        if not state.waiting:
            state.pace = Pace()
        state.delay = max(state.delay, delay)
        queue = state.urgent if urgent else state.others
        queue.append((item, state.pace.clock(now)))
        if len(queue) == 1:
            self._place(host, state, now)

    def backlog(self, host: str, limit: float, now: float, *, urgent: bool = False) -> float | None:
        """How long it takes for all that has waited for a host of late, in seconds.

        None if the next request need not wait for it for longer than `limit`, or if that cannot be
        told yet. An urgent one waits for urgent ones only.
        """
        state = self._hosts.get(host)
        if state is None or not state.pace.is_held or state.pace.clock(now) < limit / _TELLING:
            return None
        waiting, pace = len(state.urgent) if urgent else state.waiting, state.pace
        if pace.seconds(waiting, now) <= limit:
            return None
        return pace.seconds(waiting + pace.let_go, now)

    def lets_go(self, host: str) -> None:
        """A request did not wait for its host."""
        state = self._hosts.get(host)
        if state is not None:
            state.pace.let_go += 1

    @property
    def held(self) -> int:
        """How many requests wait for nothing but their hosts."""
        return sum(state.waiting for state in self._hosts.values() if state.pace.is_held)

    def questions(self, room: int, now: float) -> list[Question]:
        """What to ask of budgets, so that about `room` hosts may be asked, and to tell them.

        Those of urgent requests are asked in any case.
        """
        while self._times and self._times[0][0] <= now:
            time, _, name = heapq.heappop(self._times)
            due = self._hosts.get(name)
            if due is not None and due.timed == time:
                due.timed = None
                self._place(name, due, now)
        questions = [question for host in self._telling if (question := self._tell(host))]
        self._telling.clear()
        while True:
            enough = self._runnable.others + self._asked >= room
            if (host := self._asking.next(urgent=enough)) is None:
                break
            self._asking.place(host, False, False)
            state = self._hosts[host]
            state.asked = min(state.waiting, _MOST_WANTED)
            self._asked += 1
            state.pace.held(True, now)
            questions.append(_question(host, state, state.asked, state.in_flight))
        return questions

    def answered(self, question: Question, grant: Grant, now: float) -> None:
        """Take what a host's budget says to a question; the grant's times count from `now`."""
        state = self._hosts.get(question.host)
        if state is None:
            return
        state.troubled = grant.troubled
        if not question.wanted:
            return
        self._asked -= 1
        state.asked = 0
        state.permits = grant.permits
        state.begin = now + grant.first / SECOND
        state.interval = grant.interval / SECOND
        state.again = now + max(grant.again, grant.closed) / SECOND
        if state.void:
            # The host has asked to be left alone meanwhile, which its budget did not know.
            state.void, state.permits, state.again = False, 0, now
        self._place(question.host, state, now)

    def take(self, now: float, *, urgent: bool = False) -> tuple[T, float] | None:
        """The next request, which counts against its host until `finished`; None if none may.

        With it comes for how many seconds it has waited for its host. With `urgent`, only an urgent
        one.
        """
        while (host := self._runnable.next(urgent=urgent)) is not None:
            state = self._hosts[host]
            if now - state.begin <= _STALE_SECONDS:
                return self._take(host, state, now)
            # What it was granted is somebody else's by now, or would come all at once.
            state.permits, state.again = 0, min(state.again, now)
            self._place(host, state, now)
        return None

    def _take(self, host: str, state: _Host[T], now: float) -> tuple[T, float]:
        item, began = (state.urgent or state.others).popleft()
        waited = state.pace.clock(now) - began
        state.in_flight += 1
        state.permits -= 1
        state.begin += state.interval
        self._place(host, state, now)
        return item, waited

    def finished(self, host: str, ending: Ending, now: float) -> None:
        """A request that was taken for `host` is over."""
        state = self._hosts[host]
        state.in_flight -= 1
        state.pace.done += 1
        state.again = min(state.again, now)
        state.failures += ending.failed
        # Who is in no trouble needs no telling that it answers.
        state.answered |= ending.answered and (state.troubled or state.failures > 0)
        if ending.close:
            state.close = max(state.close, ending.close)
            state.permits = 0
            state.void = state.asked > 0
        # A connection that it does not need is of use to others.
        if state.has_news or not (state.waiting or state.asked):
            self._telling[host] = None
        self._place(host, state, now)

    def drop(self, host: str, now: float) -> list[T]:
        """Give and forget what waits for a host; what comes next asks anew."""
        state = self._hosts[host]
        state.again = now
        items = [item for item, _ in (*state.urgent, *state.others)]
        state.urgent.clear()
        state.others.clear()
        self._place(host, state, now)
        return items

    def expire(self, limit: float, now: float) -> Iterator[tuple[str, T]]:
        """Give and forget what has waited for its host for longer than `limit` seconds."""
        for host, state in list(self._hosts.items()):
            if not state.pace.is_held:
                continue
            oldest, expired = state.pace.clock(now) - limit, False
            for queue in (state.urgent, state.others):
                while queue and queue[0][1] < oldest:
                    yield host, queue.popleft()[0]
                    expired = True
            if expired:
                self._place(host, state, now)

    def next_time(self) -> float | None:
        """When there is something to be done that waits for nothing but that time."""
        return self._times[0][0] if self._times else None

    def farewell(self) -> list[Question]:
        """What to tell budgets when no request will begin or end any more."""
        return [Question(host, 0, 0) for host in self._hosts]

    def _place(self, host: str, state: _Host[T], now: float) -> None:
        """Put a host where it belongs."""
        urgent, others = bool(state.urgent), bool(state.others)
        waits = urgent or others
        runs = waits and state.permits > 0 and state.begin <= now
        asks = waits and not state.permits and not state.asked
        now_asks = asks and state.again <= now
        self._runnable.place(host, runs and urgent, runs and others)
        self._asking.place(host, now_asks and urgent, now_asks and others)
        state.pace.held(waits and not runs and not now_asks, now)
        if asks and not now_asks:
            self._wait(host, state, state.again)
        elif waits and state.permits and not runs:
            self._wait(host, state, state.begin)
        elif not waits and (state.permits or not (state.in_flight or state.asked)):
            state.permits = 0
            self._telling[host] = None

    def _wait(self, host: str, state: _Host[T], until: float) -> None:
        if state.timed is None or until < state.timed:
            state.timed = until
            heapq.heappush(self._times, (until, next(self._order), host))

    def _tell(self, host: str) -> Question | None:
        """What a host's budget is to be told though nothing is wanted; hosts at rest are forgotten.

        A crawl meets millions of them.
        """
        state = self._hosts.get(host)
        if state is None:
            return None
        if not (state.waiting or state.in_flight or state.asked):
            del self._hosts[host]
        # Of what is about to begin its budget knows more than what is in flight.
        settled = not (state.permits or state.asked)
        return _question(host, state, 0, state.in_flight if settled else None)


def _question(host: str, state: _Host[T], wanted: int, in_flight: int | None) -> Question:
    """A question with all the news, which are none any more."""
    failures, answered, close = state.failures, state.answered, round(state.close * SECOND)
    state.failures, state.answered, state.close = 0, False, 0.0
    delay = round(state.delay * SECOND)
    return Question(host, wanted, in_flight, failures, answered, close, delay)
