"""Downloads images: one thread, many transfers; every URL ends in a body or a failure."""

import heapq
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

import certifi

from pairscore import __version__
from pairscore.errors import SettingsError
from pairscore.fetch.address import AddressGuard
from pairscore.fetch.descriptors import provide_descriptors
from pairscore.fetch.loop import CurlLoop
from pairscore.fetch.request import Fetched, FetchResult, Request, Validators, redirect_lifetime
from pairscore.fetch.resolver import NameCheck
from pairscore.fetch.retry import RetryPolicy
from pairscore.fetch.stats import FetchStats, Hold
from pairscore.fetch.transfer import Transfer
from pairscore.fetch.url import Url
from pairscore.fetch.verdict import (
    RESOLVE_HOST,
    SILENT,
    ending,
    judge,
    leads_on,
    left_alone,
    still_holds,
)
from pairscore.fetch.waiting import HostQueues
from pairscore.pair import Failure, Reason
from pairscore.politeness import Grant, Question
from pairscore.politeness.budget import SECOND
from pairscore.politeness.budgets import Budgets, LocalBudgets
from pairscore.settings import FetchSettings

_IDLE_TURN: Final = 60.0
_CLOSE_WITHIN: Final = 2.0
_LOOK_FOR_SILENCE: Final = 0.5


@dataclass(slots=True)
class _Inbox:
    """What other threads leave for the fetch thread, which alone takes from it."""

    requests: deque[Request] = field(default_factory=deque)
    settled: deque[tuple[Request, Failure]] = field(default_factory=deque)
    consumed: deque[int] = field(default_factory=deque)
    granted: deque[tuple[Question, Grant]] = field(default_factory=deque)


class Fetcher:
    """Fetches URLs on a thread of its own.

    A request takes a slot (there are `settings.concurrency`) when it starts and keeps it until its
    body has been `consumed`, so that bodies do not pile up behind a slow consumer. A request that
    waits for its next attempt, or for its host, takes none. No request starts while bodies of over
    `settings.buffer_bytes` bytes wait.

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
        self._guard = AddressGuard(settings.allow_networks)
        self._ca_file = _ca_file(settings)
        self._patience = settings.queue_timeout or settings.retry_after_cap
        self._agent = settings.user_agent or f"pairscore/{__version__}"
        self._inbox = _Inbox()
        self.stats: Final = FetchStats()
        self._budgets = budgets or LocalBudgets(settings.limits, lease=settings.lease, clock=clock)
        self._queues: HostQueues[Request] = HostQueues()
        self._later: list[tuple[float, int, Request]] = []
        self._order = count()
        self._idle: list[Transfer] = []
        self._running: dict[object, tuple[Transfer, Request]] = {}
        self._next_look = 0.0
        # Runs while there is room for a transfer, so that only their hosts keep requests waiting.
        self._host_clock = 0.0
        self._room_since: float | None = None
        self._next_deferral = 0.0
        self._unconsumed = 0
        self._buffered = 0
        self._closing = False
        self._names = NameCheck()
        self._loop = CurlLoop(clock)
        self._thread = threading.Thread(target=self._run, name="pairscore-fetch", daemon=True)
        self._thread.start()

    def fetch(
        self, url: Url, done: Callable[[FetchResult], None], known: Validators | None = None
    ) -> None:
        """Fetch `url` and call `done` from the fetch thread, where it must neither block nor raise.

        A `Fetched` body must be handed to `consumed` once it is no longer needed.

        With `known`, `known.url` is asked for a body only if it has changed since, whether it is
        `url` or where that leads; nothing else is told of it. `NotModified` is the result if it has
        not, which keeps no slot: there is nothing to hand to `consumed`.
        """
        self._inbox.requests.append(Request(url, done, known))
        self._loop.wake()

    def consumed(self, fetched: Fetched) -> None:
        """Say from any thread that the body is no longer needed; its slot goes to the next."""
        self._inbox.consumed.append(len(fetched.body))
        self._loop.wake()

    def close(self) -> None:
        """End the thread; requests that have not ended are dropped without a word."""
        if self._closing:
            return
        self._closing = True
        self._loop.wake()
        # At its very end libcurl waits for lookups in flight, which take 10 s where no resolver
        # answers; that wait is left to the thread, which does not keep the process.
        self._thread.join(timeout=_CLOSE_WITHIN)
        self._names.close()
        self._budgets.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._take_in()
                self._start_runnable()
                for handle, code, message in self._loop.turn(self._next_due()):
                    self._end(handle, code, message)
                self._give_up_silent()
                self._defer_late()
        # The one place where a defect of this thread is turned into the end of the scorer.
        except BaseException as error:  # noqa: BLE001
            self._on_crash(error)
        finally:
            for handle, (transfer, _) in self._running.items():
                self._loop.remove(handle)
                transfer.close()
            for transfer in self._idle:
                transfer.close()
            self._loop.close()

    def _take_in(self) -> None:
        inbox = self._inbox
        while inbox.consumed:
            self._unconsumed -= 1
            self._buffered -= inbox.consumed.popleft()
        while inbox.settled:
            self._retry_or_fail(*inbox.settled.popleft())
        while inbox.requests:
            self._wait_for_turn(inbox.requests.popleft())
        while inbox.granted:
            self._granted(*inbox.granted.popleft())
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            self._wait_for_turn(heapq.heappop(self._later)[2])

    def _wait_for_turn(self, request: Request) -> None:
        request.queued_at = self._host_clock
        self._queues.put(request.target.host, request, self._clock())

    def _next_due(self) -> float:
        turn = _LOOK_FOR_SILENCE if self._running else _IDLE_TURN
        due = self._queues.next_time()
        if self._later:
            due = self._later[0][0] if due is None else min(due, self._later[0][0])
        return turn if due is None else max(0.0, min(turn, due - self._clock()))

    def _start_runnable(self) -> None:
        started = True
        while started:
            started = False
            self._ask_budgets()
            while self._has_room():
                request = self._queues.take(self._clock())
                if request is None:
                    self._room_since = self._clock()
                    break
                self._start(request)
                started = True

    def _has_room(self) -> bool:
        slots = self._settings.concurrency - len(self._running) - self._unconsumed
        return slots > 0 and self._buffered < self._settings.buffer_bytes

    def _start(self, request: Request) -> None:
        self.stats.waits += 1
        self.stats.wait_seconds += self._host_clock - request.queued_at
        transfer = self._idle.pop() if self._idle else self._new_transfer()
        left = self._settings.timeout - request.seconds
        transfer.start(request.target.text, left, request.condition)
        self._running[transfer.handle] = (transfer, request)
        self._loop.add(transfer.handle)

    def _ask_budgets(self) -> None:
        # As many again, so that hosts which have been granted much do not keep others from asking.
        room = 2 * self._settings.concurrency if self._has_room() else 0
        questions = self._queues.questions(room, self._clock())
        grants = self._budgets.ask(questions, self._take_grants) if questions else ()
        if grants is not None:
            for question, grant in zip(questions, grants, strict=True):
                self._granted(question, grant)

    def _take_grants(self, granted: Sequence[tuple[Question, Grant]]) -> None:
        self._inbox.granted.extend(granted)
        self._loop.wake()

    def _granted(self, question: Question, grant: Grant) -> None:
        now = self._clock()
        self._queues.answered(question, grant, now)
        limit = self._settings.timeout if grant.unreachable else self._patience
        if grant.closed > limit * SECOND:
            hold = Hold.UNREACHABLE if grant.unreachable else Hold.CLOSED
            for request in self._queues.drop(question.host, now):
                self.stats.let_go[hold] += 1
                request.done(left_alone(question.host, grant, request.attempts - 1))

    def _defer_late(self) -> None:
        """Let go of what waits for a slow host for too long; pools that are full are no reason."""
        limit = self._settings.queue_timeout
        if self._room_since is not None:
            now = self._clock()
            self._host_clock += now - self._room_since
            self._room_since = None
        if limit is None or self._host_clock < self._next_deferral:
            return
        self._next_deferral = self._host_clock + min(_LOOK_FOR_SILENCE, limit / 4)
        late = self._queues.expire(lambda r: self._host_clock - r.queued_at > limit, self._clock())
        for host, request in late:
            self.stats.let_go[Hold.SLOW] += 1
            request.done(
                Failure(
                    Reason.TIMEOUT,
                    f"{host} is too slow for all its rows",
                    retryable=True,
                    deferred=True,
                )
            )

    def _new_transfer(self) -> Transfer:
        return Transfer(
            self._settings,
            self._guard,
            ca_file=self._ca_file,
            agent=self._agent,
            clock=self._clock,
        )

    def _give_up_silent(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_FOR_SILENCE
        since = now - self._settings.stall_timeout
        for handle, (transfer, _) in list(self._running.items()):
            if transfer.heard is not None and transfer.heard < since:
                self._end(handle, SILENT, "")

    def _end(self, handle: object, code: int, message: str) -> None:
        transfer, request = self._running.pop(handle)
        self._loop.remove(handle)
        self._idle.append(transfer)
        evidence = transfer.evidence()
        host = request.target.host
        unchanged = bool(transfer.condition) and still_holds(code, evidence)
        follows = not unchanged and leads_on(code, evidence)
        plain = not (unchanged or follows)
        failure = judge(code, message, evidence, self._settings) if plain else None
        end = ending(evidence, failure)
        self.stats.closings += end.close > 0
        self._queues.finished(host, end, self._clock())
        if unchanged:
            known = request.not_modified(transfer.said(), self._wall())
            if known is None:
                self._wait_for_turn(request)
            else:
                request.done(known)
            return
        if follows:
            lasts = redirect_lifetime(evidence.status, transfer.said(), self._wall())
            limit = self._settings.max_redirects
            failure = request.follow(evidence.location, evidence.seconds, limit, lasts)
            if failure is None:
                self._wait_for_turn(request)
                return
        body = transfer.body()
        if failure is None:
            self._unconsumed += 1
            self._buffered += len(body)
            origin = request.origin(transfer.said(), self._wall())
            request.done(Fetched(body, request.attempts, origin))
        elif failure.reason is Reason.DNS_ERROR and code == RESOLVE_HOST:
            self._names.settle(host, failure, lambda settled: self._settled(request, settled))
        else:
            self._retry_or_fail(request, failure)

    def _settled(self, request: Request, failure: Failure) -> None:
        self._inbox.settled.append((request, failure))
        self._loop.wake()

    def _retry_or_fail(self, request: Request, failure: Failure) -> None:
        delay = self._policy.delay(failure, request.attempts, self._jitter())
        if delay is None:
            request.done(replace(failure, attempts=request.attempts))
            return
        request.begin_again()
        heapq.heappush(self._later, (self._clock() + delay, next(self._order), request))


def _ca_file(settings: FetchSettings) -> str:
    if settings.ca_file is None:
        return certifi.where()
    if not settings.ca_file.is_file():
        raise SettingsError(
            f"setting PAIRSCORE_FETCH__CA_FILE: {settings.ca_file} is no file; "
            "name a bundle of PEM certificates"
        )
    try:
        ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"setting PAIRSCORE_FETCH__CA_FILE: {settings.ca_file} cannot be used ({error}); "
            "name a bundle of PEM certificates"
        ) from None
    return str(settings.ca_file)
