"""Keeps programs running: starts again what ended, and ends all in order when it is left.

Services that end whenever they cannot go on need somebody who starts them again; in a cluster that
is Kubernetes or systemd. They run under a guard, so that none outlives this process.
"""

import codecs
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, Self

from deploy.local.guarding import Guard
from deploy.local.waiting import until
from pairscore.errors import EnvironmentFault, InputError, PairscoreError
from shared.shutdown import Deadline, StopSignal

LOOK_SECONDS: Final = 0.1

_FIRST_DELAY, _LAST_DELAY = 0.5, 10.0
_FIRST_ENDS = 3
_KILL_SECONDS = 5.0
# A guard starts all in a folder and an environment of its own. Absolute, as PATH may be anything.
_IN_PLACE: Final = ("/bin/sh", "-c", 'cd "$0" && exec /usr/bin/env "$@"')


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: `python ARGUMENTS`, in the folder of this process.

    `environment` is added to that of this process. `log` takes its output. `ready` says whether it
    can do its work, `stop_seconds` how long it may take to end. Those of one `kind` end together.
    """

    name: str
    kind: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    stop_seconds: float


@dataclass(slots=True)
class _Service:
    program: Program
    pid: int | None = None
    code: int = 0
    due: float | None = None
    ends: int = 0
    """In a row, without having been ready in between."""
    was_ready: bool = False
    is_ready: bool = False


class Supervisor:
    """Looks after programs while the context lasts; all calls come from one thread.

    Args:
        guard: what they run under.
        stop: whether this process was asked to end.
        say: told what people should know, a line at a time.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        guard: Guard,
        stop: StopSignal,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guard = guard
        self._stop = stop
        self._say = say
        self._clock = clock
        self._services: list[_Service] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End them, those that were started last first, each in the time that it may take."""
        for _kind, group in groupby(reversed(self._services), lambda each: each.program.kind):
            self._end(list(group))

    def start(self, *programs: Program) -> None:
        """Start programs, and start them again whenever they end with an error."""
        for program in programs:
            service = _Service(program)
            self._services.append(service)
            self._launch(service)

    @property
    def programs(self) -> list[Program]:
        """Those that were started."""
        return [service.program for service in self._services]

    def unready(self) -> list[Program]:
        """Those that were not able to do their work since they were started last."""
        return [service.program for service in self._services if not service.is_ready]

    def wait(self, seconds: float) -> None:
        """Let time pass, while programs are looked after.

        Raises:
            KeyboardInterrupt: this process was asked to end.
            InputError: a program was told something wrong.
            EnvironmentFault: one never came to be able to do its work.
        """
        deadline = Deadline(seconds, self._clock)
        while True:
            for service in self._services:
                self._look(service)
            if self._stop.wait(min(deadline.left(), LOOK_SECONDS)):
                raise KeyboardInterrupt
            if deadline.passed:
                return

    def until(self, condition: Callable[[], bool], within: float, otherwise: str) -> None:
        """Wait for a condition, as `wait` does.

        Raises:
            EnvironmentFault: it does not come true in time; says `otherwise`.
        """
        deadline = Deadline(within, self._clock)
        while not condition():
            if deadline.passed:
                raise EnvironmentFault(f"{otherwise} within {within:.0f} s")
            self.wait(LOOK_SECONDS)

    def run(self, program: Program, within: float) -> None:
        """Run a program to its end, and pass on what it says, as `wait` does.

        Raises:
            InputError: it was told something wrong.
            EnvironmentFault: it ended with another error, or does not end in time.
        """
        said = codecs.getincrementaldecoder("utf-8")("replace")
        with _opened(program.log) as log:
            service = _Service(program, self._spawn(program))

            def has_ended() -> bool:
                running = self._running([service])
                sys.stdout.write(said.decode(log.read()))
                sys.stdout.flush()
                return not running

            try:
                self.until(has_ended, within, f"{program.name} does not end")
            finally:
                self._end([service])
        if service.code:
            raise _fault(program, service.code)

    def _spawn(self, program: Program) -> int:
        variables = [f"{name}={value}" for name, value in program.environment.items()]
        command = [*_IN_PLACE, str(Path.cwd()), *variables, sys.executable, *program.arguments]
        return self._guard.start(command, log=program.log.resolve())

    def _launch(self, service: _Service) -> None:
        service.pid = self._spawn(service.program)
        service.is_ready = False

    def _look(self, service: _Service) -> None:
        if service.pid is None:
            if service.due is not None and self._clock() >= service.due:
                self._launch(service)
        elif not self._running([service]):
            self._take_note(service)
        elif not service.is_ready and service.program.ready():
            service.is_ready = service.was_ready = True
            service.ends = 0

    def _take_note(self, service: _Service) -> None:
        program, code = service.program, service.code
        service.ends += 1
        service.due = None
        if code == 0:
            self._say(f"{program.name} was asked to end, and has; it is not started again")
            return
        # What cannot be mended by starting again; a broker that is away for a while can.
        if code == InputError.exit_code or (not service.was_ready and service.ends >= _FIRST_ENDS):
            raise _fault(program, code)
        delay = min(_FIRST_DELAY * 2 ** (service.ends - 1), _LAST_DELAY)
        service.due = self._clock() + delay
        self._say(f"{program.name} {_how(code)}; started again in {delay:g} s ({program.log})")

    def _end(self, services: Sequence[_Service]) -> None:
        left = self._running(services)
        for service in left:
            _send(service, signal.SIGTERM)
            # One that is stopped (SIGSTOP) hears of it only when it goes on.
            _send(service, signal.SIGCONT)
        seconds = max(service.program.stop_seconds for service in services)
        until(lambda: not self._running(services), seconds, clock=self._clock)
        left = self._running(services)
        for service in left:
            self._say(f"{service.program.name} did not end within {seconds:.0f} s: killed")
            _send(service, signal.SIGKILL)
        until(lambda: not self._running(left), _KILL_SECONDS, clock=self._clock)

    def _running(self, services: Sequence[_Service]) -> list[_Service]:
        for service in services:
            if service.pid is not None and (code := self._guard.code(service.pid)) is not None:
                service.pid, service.code = None, code
        return [service for service in services if service.pid is not None]


def _send(service: _Service, number: signal.Signals) -> None:
    # Its pid is nobody else's before the guard has been asked how it ended.
    if service.pid is not None:
        os.kill(service.pid, number)


def _opened(log: Path) -> BinaryIO:
    """To read what is written to it from now on."""
    log.touch()
    opened = log.open("rb")
    opened.seek(0, os.SEEK_END)
    return opened


def _fault(program: Program, code: int) -> PairscoreError:
    kind = InputError if code == InputError.exit_code else EnvironmentFault
    return kind(f"{program.name} {_how(code)}: {_last_line(program.log)} (log: {program.log})")


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
