"""A service that may be asked anything at any time: it answers soon, or it is done without."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from pairscore.guard.breaker import Breaker, State
from pairscore.guard.stats import CallStats

_FAILURES: Final = 2
_LEAST_REST: Final = 1.0
_MOST_REST: Final = 30.0
_CLOSE_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Unavailable(Exception):
    """The service does not answer as it should; one line says how."""


class Guard:
    """Asks a service on a thread of its own, and waits for that for `seconds` at most.

    The wait is over the whole of a call, whatever a client's time-outs are about. Where calls fail,
    or do not come back, no more are made until a probe that nobody waits for went well. One thread
    may ask; any may look at what is said of it.
    """

    def __init__(
        self,
        *,
        name: str,
        seconds: float,
        probe: Callable[[], None],
        close: Callable[[], None],
        stats: CallStats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is what messages call the service; `probe` and `close` run on the thread."""
        self._name = name
        self._seconds = seconds
        self._probe = probe
        self._let_go = close
        self._stats = stats
        self._clock = clock
        self._breaker = Breaker(failures=_FAILURES, least=_LEAST_REST, most=_MOST_REST)
        self._lock = threading.Lock()
        self._late: Future[Any] | None = None
        self._closed = False
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[object]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"pairscore-{name}", daemon=True)
        self._thread.start()

    @property
    def available(self) -> bool:
        """Whether it is worth asking; begins a probe where it is time for one."""
        with self._lock:
            state = self._breaker.state(self._clock())
            self._stats.state = state
            late = self._late is not None and not self._late.done()
            if state is State.CLOSED:
                return not late
            probing = state is State.HALF_OPEN and not late
            if probing:
                self._breaker.probe()
        if probing:
            self._begin(self._probe).add_done_callback(self._probed)
        return False

    def ask(self, call: str, size: int, ask: Callable[[], T]) -> T | None:
        """What `ask`, which is about `size` keys and never gives None, gives; None without."""
        if not self.available:
            self._stats.skipped(call, size)
            return None
        started = self._clock()
        future = self._begin(ask)
        try:
            answer = future.result(self._seconds)
        except NotInTime:
            self._late = future
            self._failed(call, f"no answer within {self._seconds * 1000:.0f} ms")
            return None
        except Unavailable as error:
            self._failed(call, str(error))
            return None
        with self._lock:
            again = self._breaker.succeeded()
        if again:
            _log.info("%s answers again", self._name)
        self._stats.answered(call, size, self._clock() - started)
        return answer

    def close(self) -> None:
        """End the thread; a call that does not come back is not waited for."""
        self._closed = True
        self._calls.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _failed(self, call: str, why: str) -> None:
        self._stats.failed(call)
        with self._lock:
            opens = self._breaker.failed(self._clock())
        if opens:
            _log.warning("%s is done without until it answers again: %s", self._name, why)
        else:
            _log.debug("%s: %s", self._name, why)

    def _probed(self, probe: Future[None]) -> None:
        error = probe.exception()
        with self._lock:
            if error is None:
                self._breaker.probed()
            else:
                self._breaker.failed(self._clock())

    def _begin(self, ask: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._calls.put((ask, future))  # type: ignore[arg-type]
        return future

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            ask, future = call
            try:
                answer = ask()
            # Whatever it is, the scorer does without; what is unforeseen is a defect, and said.
            except BaseException as error:  # noqa: BLE001
                if not isinstance(error, Unavailable):
                    _log.exception("%s: a defect", self._name)
                    error = Unavailable(repr(error))
                future.set_exception(error)
            else:
                future.set_result(answer)
            if self._closed:
                break
        self._let_go()
