"""Progress for people: a bar on a terminal, now and then a line elsewhere; all of it on stderr."""

import time
from collections.abc import Callable
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pairscore.pair import Failure, Outcome

_LINE_EVERY: Final = 5.0
_ENOUGH: Final = 20
_BAR_EVERY: Final = 0.1


class Reporter(Protocol):
    """Shows how far a run is; a context manager, to be told of each row."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def __call__(self, rows: int, outcome: Outcome) -> None:
        """`rows` rows of the output are written; `outcome` is the last one's."""


def reporter(console: Console, total: int, clock: Callable[[], float] = time.monotonic) -> Reporter:
    """A bar if `console` is a terminal, else lines."""
    return _Bar(console, total, clock) if console.is_terminal else _Lines(console, total, clock)


class _Tally:
    """Counts what this run did; what an earlier run did is not in its rate."""

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self.total = total
        self.rows = 0
        self.done = 0
        self.failed = 0
        self._clock = clock
        self._begun = clock()

    def add(self, rows: int, outcome: Outcome) -> None:
        self.rows = rows
        self.done += 1
        self.failed += isinstance(outcome, Failure)

    @property
    def rate(self) -> float:
        return self.done / max(self._clock() - self._begun, 1e-9)


class _Bar:
    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tally = _Tally(total, clock)
        self._shown = -1.0
        self._progress = Progress(
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.1f} rows/s, {task.fields[failed]:,} failed,"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task = self._progress.add_task("", total=total, rate=0.0, failed=0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        self._progress.stop()

    def __call__(self, rows: int, outcome: Outcome) -> None:
        self._tally.add(rows, outcome)
        # Drawing costs more than a row does where rows are cheap.
        if self._clock() - self._shown >= _BAR_EVERY:
            self._show()

    def _show(self) -> None:
        self._shown = self._clock()
        tally = self._tally
        self._progress.update(
            self._task, completed=tally.rows, rate=tally.rate, failed=tally.failed
        )


class _Lines:
    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._tally = _Tally(total, clock)
        self._shown = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, rows: int, outcome: Outcome) -> None:
        self._tally.add(rows, outcome)
        if self._clock() - self._shown < _LINE_EVERY:
            return
        self._shown = self._clock()
        tally = self._tally
        # One slow row holds back what is done behind it: a rate from few rows foretells nothing.
        left = (tally.total - rows) / tally.rate
        ahead = f", about {_duration(left)} left" if tally.done >= _ENOUGH else ""
        self._console.out(
            f"{rows:,} of {tally.total:,} rows ({rows / tally.total:.1%}), "
            f"{tally.rate:,.1f} rows/s, {tally.failed:,} failed{ahead}",
            highlight=False,
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
