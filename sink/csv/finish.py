"""Complete jobs become results, a little at a time, between one batch and the next.

In the loop's own thread, because a second one that lays out rows would take the interpreter from
the first at each of its thousands of calls to SQLite. Only what needs no interpreter has a thread:
putting a large file on the disk, packing it, its digest.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Final, TypeAlias

from sink.csv.result import writing_result
from sink.csv.spool import DueJob, Spool
from sink.faults import Persistent, StoreFault
from sink.loop import Finished

_AT_ONCE: Final = 8
_STEP_SECONDS: Final = 0.1
_CHUNK_ROWS: Final = 2_000
_CHUNK_BYTES: Final = 4_000_000
_PURGE_ROWS: Final = 10_000
_LARGE: Final = 8_000_000
_LOOK_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)
_Work: TypeAlias = Generator[bool, None, None]
"""Writes a job's result piece by piece; yields whether it waits for a thread."""


class _Progress(Enum):
    WORKING = auto()
    WAITING = auto()
    COMPLETE = auto()
    REFUSED = auto()


class Finisher:
    """Writes results of up to 8 jobs in turn, so that a small one need not wait for a large one.

    A job whose result cannot be written is tried again every few seconds, and keeps no other back.
    """

    def __init__(
        self,
        spool: Spool,
        results: Path,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._results = results
        self._now = now
        self._clock = clock
        self._works: dict[int, _Work] = {}
        self._refused: dict[int, Persistent] = {}
        self._purging = Persistent(clock)

    def step(self) -> Finished:
        """Work for about a tenth of a second.

        Raises:
            StoreFault: the spool cannot be read.
        """
        end = self._clock() + _STEP_SECONDS
        complete = 0
        idle = True
        while self._take_up():
            found = [self._advance(number) for number in list(self._works)]
            complete += found.count(_Progress.COMPLETE)
            idle = all(progress is _Progress.WAITING for progress in found)
            if idle or self._clock() >= end:
                break
        more = self._purging.due and self._purging.attempt(self._purge)
        if more or (self._works and not idle):
            again = 0.0
        else:
            again = _LOOK_SECONDS if self._works else math.inf
        return Finished(complete, again, self._why())

    def close(self) -> None:
        """Leave off; what is not finished leaves nothing behind."""
        for work in self._works.values():
            work.close()
        self._works.clear()

    def _take_up(self) -> bool:
        """Begin with jobs that are due; whether there is anything to do."""
        if room := _AT_ONCE - len(self._works):
            resting = (number for number, refusal in self._refused.items() if not refusal.due)
            for job in self._spool.due_jobs(room, without={*self._works, *resting}):
                self._works[job.id] = self._work(job)
        return bool(self._works)

    def _advance(self, number: int) -> _Progress:
        try:
            waits = next(self._works[number])
        except StopIteration:
            del self._works[number]
            if (refusal := self._refused.pop(number, None)) is not None:
                refusal.succeeded()
            return _Progress.COMPLETE
        except StoreFault as fault:
            del self._works[number]
            self._refused.setdefault(number, Persistent(self._clock)).failed(str(fault))
            return _Progress.REFUSED
        return _Progress.WAITING if waits else _Progress.WORKING

    def _work(self, job: DueJob) -> _Work:
        start = 0
        with writing_result(self._results, job, self._now) as writer:
            while rows := self._spool.rows(job.id, start, _CHUNK_ROWS, _CHUNK_BYTES):
                writer.write(rows)
                start = rows[-1][0] + 1
                yield False
            if writer.size < _LARGE:
                result = writer.finish()
            else:
                finishing = _in_thread(writer.finish)
                while not finishing.done():
                    yield True
                result = finishing.result()
        self._spool.complete(job.id, result)
        _log.info(
            "job complete",
            extra={
                "job": job.message.job,
                "rows": job.message.rows,
                "result": str(self._results / result),
            },
        )

    def _purge(self) -> bool:
        return self._spool.purge(_PURGE_ROWS)

    def _why(self) -> str:
        refusals = (self._purging, *self._refused.values())
        return next((refusal.why for refusal in refusals if refusal.why), "")


def _in_thread(action: Callable[[], str]) -> "Future[str]":
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        # Raised where the future is asked.
        except BaseException as error:  # noqa: BLE001
            future.set_exception(error)

    # A daemon: who is asked to end need not wait for it, since what it has not finished is done
    # again.
    threading.Thread(target=run, name="finish", daemon=True).start()
    return future
