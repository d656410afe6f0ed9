"""Progress for people: bars on a terminal, now and then a line elsewhere; all of it on stderr."""

from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from shared.results import JobStatus

_LINE_EVERY: Final = 5.0
_LOOK_EVERY: Final = 0.5
_LATE: Final = 30.0


class Reporter(Protocol):
    """Shows how far a job is; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def begins(self, start: int) -> None:
        """Publishing begins, with `start` rows published already."""

    def reached(self, rows: int) -> None:
        """So many rows are published."""

    def stored(self, status: JobStatus) -> None:
        """So far is the results store."""


def make_reporter(console: Console, total: int, clock: Callable[[], float]) -> Reporter:
    """Bars if `console` is a terminal, else lines; `total` is the job's number of rows."""
    return _Bars(console, total, clock) if console.is_terminal else _Lines(console, total, clock)


class _Rate:
    """Rows a second of late: neither what was there before nor a pause long ago foretells much."""

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self.rows = 0

    def update(self, rows: int) -> None:
        now = self._clock()
        self.rows = rows
        if not self._seen or now - self._seen[-1][0] >= _LOOK_EVERY:
            self._seen.append((now, rows))
        while len(self._seen) > 1 and now - self._seen[1][0] >= _LATE:
            self._seen.popleft()

    def __str__(self) -> str:
        if not self._seen:
            return ""
        begun, before = self._seen[0]
        rate = (self.rows - before) / max(self._clock() - begun, 1e-9)
        if rate <= 0:
            return ""
        left = timedelta(seconds=round((self._total - self.rows) / rate))
        return f"{rate:,.1f} rows/s, about {left} left" if left else f"{rate:,.1f} rows/s"


class _Bars:
    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._total = total
        self._rates = {what: _Rate(total, clock) for what in ("published", "stored")}
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def begins(self, start: int) -> None:
        self._show("published", start)

    def reached(self, rows: int) -> None:
        self._show("published", rows)

    def stored(self, status: JobStatus) -> None:
        counts = f"{status.scored:,} scored, {status.done - status.scored:,} failed"
        self._show("stored", status.done, counts)

    def _show(self, what: str, rows: int, counts: str = "") -> None:
        rate = self._rates[what]
        rate.update(rows)
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=self._total, detail="")
        detail = ", ".join(filter(None, (counts, str(rate))))
        self._progress.update(self._tasks[what], completed=rows, detail=detail)


class _Lines:
    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._total = total
        self._published = _Rate(total, clock)
        self._stored = _Rate(total, clock)
        self._shown = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        self._console.out(line, highlight=False)

    def begins(self, start: int) -> None:
        self._published.update(start)

    def reached(self, rows: int) -> None:
        self._published.update(rows)
        if rows < self._total:
            self._line("", self._published)

    def stored(self, status: JobStatus) -> None:
        self._stored.update(status.done)
        failed = status.done - status.scored
        self._line(f", {status.scored:,} scored, {failed:,} failed", self._stored)

    def _line(self, counts: str, rate: _Rate) -> None:
        if self._clock() - self._shown < _LINE_EVERY:
            return
        self._shown = self._clock()
        ahead = f", {rate}" if str(rate) else ""
        self.say(f"{self._published.rows:,} of {self._total:,} rows published{counts}{ahead}")
