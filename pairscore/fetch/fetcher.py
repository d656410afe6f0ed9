"""Downloads images: one thread, many transfers; every URL ends in a body or a failure."""

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from pairscore.fetch.descriptors import provide_descriptors, urgent_slots
from pairscore.fetch.gate import Gate
from pairscore.fetch.request import (
    Fetched,
    FetchResult,
    Origin,
    Request,
    Validators,
    redirect_lifetime,
)
from pairscore.fetch.resolver import NameCheck
from pairscore.fetch.retry import RetryPolicy
from pairscore.fetch.stats import FetchStats
from pairscore.fetch.transfer import Transfer
from pairscore.fetch.transfers import LOOK_SECONDS, Transfers
from pairscore.fetch.turns import Turns
from pairscore.fetch.url import Url
from pairscore.fetch.verdict import (
    RESOLVE_HOST,
    Evidence,
    ending,
    judge,
    leads_on,
    still_holds,
)
from pairscore.pair import Failure, Reason
from pairscore.politeness.budgets import Budgets, LocalBudgets
from pairscore.settings import FetchSettings

_IDLE_TURN: Final = 60.0
_CLOSE_WITHIN: Final = 2.0


@dataclass(slots=True)
class _Inbox:
    """What other threads leave for the fetch thread, which alone takes from it."""

    requests: deque[Request] = field(default_factory=deque)
    settled: deque[tuple[Request, Failure]] = field(default_factory=deque)
    consumed: deque[int] = field(default_factory=deque)


class Fetcher:
    """Fetches URLs on a thread of its own.

    A request takes a slot (there are `settings.concurrency`) when it starts and keeps it until its
    body has been `consumed`, so that bodies do not pile up behind a slow consumer. A request that
    waits for its next attempt, or for its host, takes none. No request starts while bodies of over
    `settings.buffer_bytes` bytes wait. Urgent requests go first, and have some slots beside those,
    whatever waits.

    Hosts are asked as often as `budgets` allow, those of this process alone by default; they are
    closed with the fetcher. A request does not wait for a host that is to be left alone for longer
    than `settings.queue_timeout` (or `retry_after_cap`), or `timeout` where it does not answer.

    `on_crash` is called from the fetch thread, once, if a defect ends it. The process's soft limit
    on open files is raised where so many transfers need it. `clock` is monotonic, `wall` is Unix
    time.

    Raises:
        SettingsError: the CA file cannot be used.
        EnvironmentFault: this process may not open as many files as `settings.concurrency` needs.
    """

    def __init__(
        self,
        settings: FetchSettings,
        *,
        on_crash: Callable[[BaseException], None],
        budgets: Budgets | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        provide_descriptors(settings.concurrency)
        self._settings = settings
        self._most_slots = settings.concurrency + urgent_slots(settings.concurrency)
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._on_crash = on_crash
        self._policy = RetryPolicy(
            attempts=settings.attempts,
            backoff_base=settings.backoff_base,
            backoff_cap=settings.backoff_cap,
            retry_after_cap=settings.retry_after_cap,
        )
        self._inbox = _Inbox()
        self.stats: Final = FetchStats()
        self._later: list[tuple[float, int, Request]] = []
        self._order = count()
        self._unconsumed = 0
        self._buffered = 0
        self._closing = False
        self._names = NameCheck()
        self._transfers = Transfers(settings, clock)
        self._turns = Turns(
            settings,
            budgets or LocalBudgets(settings.limits, lease=settings.lease, clock=clock),
            self.stats,
            wake=self._transfers.wake,
            clock=clock,
        )
        self._gate = self._make_gate() if settings.robots == "respect" else None
        self._thread = threading.Thread(target=self._run, name="pairscore-fetch", daemon=True)
        self._thread.start()

    def fetch(
        self,
        url: Url,
        done: Callable[[FetchResult], None],
        known: Validators | None = None,
        *,
        urgent: bool = False,
    ) -> None:
        """Fetch `url` and call `done` from the fetch thread, where it must neither block nor raise.

        A `Fetched` body must be handed to `consumed` once it is no longer needed.

        With `known`, `known.url` is asked for a body only if it has changed since, whether it is
        `url` or where that leads; nothing else is told of it. `NotModified` is the result if it has
        not, which keeps no slot: there is nothing to hand to `consumed`.

        One that is `urgent` does not wait for those that are not; hosts are asked no more often for
        it.
        """
        self._inbox.requests.append(Request(url, done, known, urgent=urgent))
        self._transfers.wake()

    def consumed(self, fetched: Fetched) -> None:
        """Say from any thread that the body is no longer needed; its slot goes to the next."""
        self._inbox.consumed.append(len(fetched.body))
        self._transfers.wake()

    def close(self) -> None:
        """End the thread; requests that have not ended are dropped without a word."""
        if self._closing:
            return
        self._closing = True
        self._transfers.wake()
        # At its very end libcurl waits for lookups in flight, which take 10 s where no resolver
        # answers; that wait is left to the thread, which does not keep the process.
        self._thread.join(timeout=_CLOSE_WITHIN)
        self._names.close()
        self._turns.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take_in()
                self._start_runnable()
                self._turns.let_go()
                for transfer, request, code, message in self._transfers.ended(self._next_due()):
                    self._end(transfer, request, code, message)
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)
        finally:
            self._transfers.close()

    def _take_in(self) -> None:
        inbox = self._inbox
        while inbox.consumed:
            self._unconsumed -= 1
            self._buffered -= inbox.consumed.popleft()
        while inbox.settled:
            self._retry_or_fail(*inbox.settled.popleft())
        while inbox.requests:
            self._wait_for_turn(inbox.requests.popleft())
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            self._wait_for_turn(heapq.heappop(self._later)[2])

    def _make_gate(self) -> Gate:
        def ask(url: Url, learn: Callable[[FetchResult], None], urgent: bool) -> None:
            def done(result: FetchResult) -> None:
                if isinstance(result, Fetched):
                    self.consumed(result)
                learn(result)

            self._turns.wait(Request(url, done, is_robots=True, urgent=urgent))

        return Gate(self._settings.user_agent, ask=ask, go=self._turns.wait, clock=self._clock)

    def _wait_for_turn(self, request: Request) -> None:
        if self._gate is None or request.is_robots:
            self._turns.wait(request)
        else:
            self._gate.admit(request)

    def _next_due(self) -> float:
        turn = LOOK_SECONDS if self._transfers else _IDLE_TURN
        due = self._turns.next_time()
        if self._later:
            due = self._later[0][0] if due is None else min(due, self._later[0][0])
        return turn if due is None else max(0.0, min(turn, due - self._clock()))

    def _start_runnable(self) -> None:
        started = True
        while started:
            started = False
            # As many again, so that hosts which have been granted much do not keep others waiting.
            self._turns.ask(2 * self._settings.concurrency if self._has_room() else 0)
            while (request := self._next()) is not None:
                self._transfers.start(request)
                started = True

    def _next(self) -> Request | None:
        if self._has_room():
            return self._turns.take()
        return self._turns.take(urgent=True) if self._taken < self._most_slots else None

    @property
    def _taken(self) -> int:
        return len(self._transfers) + self._unconsumed

    def _has_room(self) -> bool:
        slots = self._settings.concurrency - self._taken
        return slots > 0 and self._buffered < self._settings.buffer_bytes

    def _end(self, transfer: Transfer, request: Request, code: int, message: str) -> None:
        evidence = transfer.evidence()
        if transfer.condition and still_holds(code, evidence):
            self._turns.finished(request, ending(evidence, None))
            self._unchanged(transfer, request)
            return
        if leads_on(code, evidence):
            self._turns.finished(request, ending(evidence, None))
            failure = self._follow(transfer, request, evidence)
            if failure is None:
                return
        else:
            failure = judge(code, message, evidence, self._settings)
            # What others have left of the deadline says nothing of a host.
            left = self._settings.timeout - request.seconds
            whole = left >= min(self._settings.connect_timeout, self._settings.timeout)
            self._turns.finished(request, ending(evidence, failure, whole=whole))
        if failure is None:
            self._succeeded(transfer, request)
        elif failure.reason is Reason.DNS_ERROR and code == RESOLVE_HOST:
            self._names.settle(
                request.target.host, failure, lambda settled: self._settled(request, settled)
            )
        else:
            self._retry_or_fail(request, failure)

    def _unchanged(self, transfer: Transfer, request: Request) -> None:
        result = request.not_modified(transfer.said(), self._wall())
        if result is None:
            self._wait_for_turn(request)
        else:
            request.done(self._refusal(request, result.origin) or result)

    def _follow(self, transfer: Transfer, request: Request, evidence: Evidence) -> Failure | None:
        lasts = redirect_lifetime(evidence.status, transfer.said(), self._wall())
        limit = self._settings.max_redirects
        failure = request.follow(evidence.location, evidence.seconds, limit, lasts)
        if failure is None:
            self._wait_for_turn(request)
        return failure

    def _succeeded(self, transfer: Transfer, request: Request) -> None:
        origin = request.origin(transfer.said(), self._wall())
        refusal = self._refusal(request, origin)
        if refusal is not None:
            request.done(refusal)
            return
        body = transfer.body()
        self._unconsumed += 1
        self._buffered += len(body)
        request.done(Fetched(body, request.attempts, origin))

    def _refusal(self, request: Request, origin: Origin) -> Failure | None:
        if self._gate is None or request.is_robots:
            return None
        return self._gate.refusal(origin, request.attempts)

    def _settled(self, request: Request, failure: Failure) -> None:
        self._inbox.settled.append((request, failure))
        self._transfers.wake()

    def _retry_or_fail(self, request: Request, failure: Failure) -> None:
        delay = self._policy.delay(failure, request.attempts, self._jitter())
        if delay is None:
            request.done(replace(failure, attempts=request.attempts))
            return
        request.begin_again()
        heapq.heappush(self._later, (self._clock() + delay, next(self._order), request))
