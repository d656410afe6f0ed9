"""Services kept running, as systemd or Kubernetes would keep them."""

import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil

from tests import commands
from tests.faults.processes import Nursery

_LOOK_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 30.0
_KILL_SECONDS: Final = 10.0
_ASK_SECONDS: Final = 5.0
_TAIL_BYTES: Final = 3_000


@dataclass(frozen=True, slots=True)
class Command:
    """What a service is started with; `arguments` are asked for at every start."""

    module: str
    arguments: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    preloaded: bool = False


@dataclass(slots=True)
class Service:
    """One service; where it is `wanted`, it is started again unless it ends with exit code 0."""

    name: str
    command: Command
    log: Path
    pid: int = 0
    running: bool = False
    wanted: bool = True
    exits: list[int] = field(default_factory=list)
    starts: int = 0

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def stopped(self) -> bool:
        """Whether it hangs (SIGSTOP)."""
        with suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        return False

    def heeds(self, number: signal.Signals) -> bool:
        """Whether it has come so far that it handles a signal."""
        return self.running and commands.heeds(self.pid, number)

    def readiness(self) -> tuple[int, str]:
        """What /readyz answers, status and text; 0 where nothing does."""
        # The process itself creates its log, a moment after it was started.
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        ports = re.findall(r'"port": (\d+)', said)
        try:
            url = f"http://127.0.0.1:{ports[-1]}/readyz"
            with urllib.request.urlopen(url, timeout=_ASK_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (OSError, IndexError) as error:
            return 0, repr(error)

    def tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace")


class Supervisor:
    """Starts services, and starts them again when they end; counts how they ended."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self._nursery = nursery
        self._folder = folder
        self._turn = threading.Lock()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")
        self._crash: BaseException | None = None
        self.services: dict[str, Service] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join(_CLOSE_SECONDS)
        for service in self.services.values():
            if service.running:
                service.send(signal.SIGKILL)
        for service in self.services.values():
            _until(lambda: not self._look(service), _CLOSE_SECONDS)  # noqa: B023 - called here

    def start(self, name: str, command: Command) -> Service:
        """Start a service and keep it running."""
        service = Service(name, command, self._folder / f"{name}.log")
        with self._turn:
            self.services[name] = service
            self._launch(service)
        return service

    def start_again(self, service: Service) -> None:
        """Start a service that was ended, under the same name."""
        with self._turn:
            service.wanted = True
            self._launch(service)

    def kill(self, service: Service) -> None:
        """Send SIGKILL and wait for the end of the process; the service is started again.

        Raises:
            AssertionError: there was no process, or it did not end.
        """
        self.until(lambda: service.running, _KILL_SECONDS, f"{service.name} does not run")
        with self._turn:  # which is held from the end of a process to the start of the next
            before = len(service.exits)
            service.send(signal.SIGKILL)
        self.until(
            lambda: len(service.exits) > before, _KILL_SECONDS, f"{service.name} did not die"
        )

    def end(self, service: Service, within: float, codes: Collection[int] = (0,)) -> float:
        """Send SIGTERM and wait for a good end; how many seconds it took. It is not started again.

        Raises:
            AssertionError: it did not end in time, or with another exit code than `codes`.
        """
        # One that is started again just now would die of the signal: it has nothing to end yet.
        self.until(
            lambda: service.heeds(signal.SIGTERM), within, f"{service.name} does not heed SIGTERM"
        )
        begun = time.monotonic()
        with self._turn:
            service.wanted = False
            before = len(service.exits)
        service.send(signal.SIGTERM)
        self.until(
            lambda: len(service.exits) > before, within, f"{service.name} did not end upon SIGTERM"
        )
        assert service.exits[-1] in codes, f"{service.name} ended badly\n{self.report()}"
        return time.monotonic() - begun

    def until(
        self,
        condition: Callable[[], bool],
        within: float,
        otherwise: str,
        explain: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: it did not come true; says what all services logged last.
        """
        came = _until(condition, within, self._alert)
        assert came, f"{otherwise} within {within:.0f} s\n{explain()}\n{self.report()}"

    def pause(self, seconds: float) -> None:
        """Let time pass, while services are supervised."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + _CLOSE_SECONDS, "time stands still")

    def exits(self) -> Counter[int]:
        """How often services ended, by exit code or minus the signal."""
        return Counter(code for service in self.services.values() for code in service.exits)

    def report(self) -> str:
        """What the services did, and what each logged last."""
        return "\n".join(
            f"--- {each.name}: pid {each.pid}, {'runs' if each.running else 'ended'},"
            f" {each.starts} starts, exits {each.exits}\n{each.tail()}"
            for each in self.services.values()
        )

    def _alert(self) -> None:
        if self._crash is not None:
            raise AssertionError("the supervisor crashed") from self._crash

    def _watch(self) -> None:
        try:
            while not self._left.wait(_LOOK_SECONDS):
                for service in list(self.services.values()):
                    with self._turn:
                        if not self._look(service) and service.wanted and service.exits[-1] != 0:
                            self._launch(service)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._crash = error

    def _look(self, service: Service) -> bool:
        """Whether a service runs."""
        if service.running and (code := self._nursery.code(service.pid)) is not None:
            service.running = False
            service.exits.append(code)
        return service.running

    def _launch(self, service: Service) -> None:
        command = service.command
        service.pid = self._nursery.start(
            command.module,
            command.arguments(),
            command.environment,
            service.log,
            preloaded=command.preloaded,
        )
        service.running = True
        service.starts += 1


def _until(
    condition: Callable[[], bool], within: float, every_time: Callable[[], None] = lambda: None
) -> bool:
    pause, end = threading.Event(), time.monotonic() + within
    while not condition():
        every_time()
        if time.monotonic() >= end:
            return False
        pause.wait(0.02)
    return True
