"""Ends the process when its loop stands still, so that a supervisor can start a new one."""

import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from shared.telemetry.health import Health

EXIT_STALLED: Final = 70
"""EX_SOFTWARE of sysexits.h."""

_REPORT_SECONDS: Final = 5.0
_STDERR: Final = 2

_log = logging.getLogger(__name__)


class Stillness:
    """How long the loop has stood still while the watchdog was awake to see it.

    A process that was stopped (SIGSTOP, a suspended machine) finds all its beats old when it goes
    on, and has not stalled: no look counts for more than two `ticks`, however late it comes.
    """

    def __init__(self, last_beat: float | None, now: float, tick: float) -> None:
        self._last_beat = last_beat
        self._looked = now
        self._most = 2 * tick
        self.seconds = 0.0

    def look(self, last_beat: float | None, now: float) -> float:
        """Take a look at the last beat; seconds of stillness so far."""
        if last_beat == self._last_beat:
            self.seconds += min(now - self._looked, self._most)
        else:
            self._last_beat, self.seconds = last_beat, 0.0
        self._looked = now
        return self.seconds


class Watchdog:
    """While entered, ends the process with `EXIT_STALLED` if `health` has no beat for `seconds`.

    The stacks of all threads go to the log first. A thread that never gives the interpreter's lock
    back stops this one too: then faulthandler ends the process, after four times as long, with its
    own dump and the exit code 1. (It also ends one that was stopped for so long.)
    """

    def __init__(
        self,
        health: Health,
        seconds: float,
        *,
        name: str,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._health = health
        self._seconds = seconds
        self._name = name
        self._end = end
        self._tick = min(1.0, seconds / 10)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join(_REPORT_SECONDS)

    def _watch(self) -> None:
        clock = self._health.clock
        still = Stillness(self._health.last_beat, clock(), self._tick)
        try:
            while still.seconds < self._seconds:
                faulthandler.dump_traceback_later(4 * self._seconds, exit=True, file=_STDERR)
                if self._left.wait(self._tick):
                    return
                still.look(self._health.last_beat, clock())
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._bite(still.seconds)

    def _bite(self, seconds: float) -> None:
        # In a thread of its own, because what the loop hangs at may be the log.
        report = threading.Thread(target=self._report, args=(seconds, stacks()), daemon=True)
        report.start()
        report.join(_REPORT_SECONDS)
        self._end(EXIT_STALLED)

    def _report(self, seconds: float, stacks: str) -> None:
        _log.critical(
            "the loop of %s has stood still for %.0f s; the process ends",
            self._name,
            seconds,
            extra={"stacks": stacks},
        )


def stacks() -> str:
    """What every thread but the calling one is doing, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident()
    ]
    return "\n".join(parts)
