"""Downloads images: one thread, many transfers; every URL ends in a body or a failure."""

import heapq
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
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
from pairscore.fetch.transfer import Transfer
from pairscore.fetch.url import Url
from pairscore.fetch.verdict import RESOLVE_HOST, SILENT, judge, leads_on, still_holds
from pairscore.fetch.waiting import HostQueues
from pairscore.pair import Failure, Reason
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


class Fetcher:
    """Fetches URLs on a thread of its own.

    A request takes a slot (there are `settings.concurrency`) when it starts and keeps it until its
    body has been `consumed`, so that bodies do not pile up behind a slow consumer. A request that
    waits for its next attempt, or for the host that it was redirected to, takes none. No request
    starts while bodies of over `settings.buffer_bytes` bytes wait.

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
        self._agent = settings.user_agent or f"pairscore/{__version__}"
        self._inbox = _Inbox()
        self._queues: HostQueues[Request] = HostQueues(settings.per_host)
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
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            self._wait_for_turn(heapq.heappop(self._later)[2])

    def _wait_for_turn(self, request: Request) -> None:
        request.queued_at = self._host_clock
        self._queues.put(request.target.host, request)

    def _next_due(self) -> float:
        turn = _LOOK_FOR_SILENCE if self._running else _IDLE_TURN
        if not self._later:
            return turn
        return max(0.0, min(turn, self._later[0][0] - self._clock()))

    def _start_runnable(self) -> None:
        while (
            len(self._running) + self._unconsumed < self._settings.concurrency
            and self._buffered < self._settings.buffer_bytes
        ):
            request = self._queues.take()
            if request is None:
                self._room_since = self._clock()
                return
            transfer = self._idle.pop() if self._idle else self._new_transfer()
            left = self._settings.timeout - request.seconds
            transfer.start(request.target.text, left, request.condition)
            self._running[transfer.handle] = (transfer, request)
            self._loop.add(transfer.handle)

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
        for request in self._queues.expire(lambda r: self._host_clock - r.queued_at > limit):
            request.done(
                Failure(
                    Reason.TIMEOUT,
                    f"{request.target.host} is too slow for all its rows",
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
        self._queues.finished(request.target.host)
        evidence = transfer.evidence()
        if transfer.condition and still_holds(code, evidence):
            unchanged = request.not_modified(transfer.said(), self._wall())
            if unchanged is None:
                self._wait_for_turn(request)
            else:
                request.done(unchanged)
            return
        if leads_on(code, evidence):
            lasts = redirect_lifetime(evidence.status, transfer.said(), self._wall())
            limit = self._settings.max_redirects
            failure = request.follow(evidence.location, evidence.seconds, limit, lasts)
            if failure is None:
                self._wait_for_turn(request)
                return
        else:
            failure = judge(code, message, evidence, self._settings)
        body = transfer.body()
        if failure is None:
            self._unconsumed += 1
            self._buffered += len(body)
            origin = request.origin(transfer.said(), self._wall())
            request.done(Fetched(body, request.attempts, origin))
        elif failure.reason is Reason.DNS_ERROR and code == RESOLVE_HOST:
            host = request.target.host
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
