"""A service as a process of this machine, which can be ended and started again, or made to hang."""

import contextlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from deploy.local.guarding import Guard, last_words
from deploy.local.waiting import until
from deploy.local.ways import WayClosed

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
_SIGNAL_SECONDS = 10.0


class Server:
    """One process, and those that it starts; its address and its data outlive it.

    Args:
        guard: what it runs under.
        name: of its log in the guard's folder, and in error messages.
        command: what it is started with.
        answers: whether it serves requests.
        account: the user that it runs as; by default this one.
        stop_signal: what it ends in good order upon.
        end_signal: what it gets when the guard ends; by default the same.
    """

    def __init__(
        self,
        guard: Guard,
        name: str,
        command: Sequence[str | Path],
        *,
        answers: Callable[[], bool],
        account: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        end_signal: signal.Signals | None = None,
    ) -> None:
        self.log = guard.folder / f"{name}.log"
        self._guard = guard
        self._name = name
        self._command = command
        self._answers = answers
        self._account = account
        self._stop_signal = stop_signal
        self._end_signal = end_signal or stop_signal
        self._process: psutil.Process | None = None

    @property
    def pid(self) -> int:
        """The process that runs, or ran last."""
        return self._known.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, be it a stopped one."""
        return self._process is not None and self._guard.code(self._process.pid) is None

    def start(self) -> None:
        """Start it where it does not run, and return when it answers.

        Raises:
            WayClosed: it ended, or did not answer within START_SECONDS.
        """
        self.launch()
        self.await_answer()

    def launch(self) -> None:
        """Start it where it does not run, and return at once."""
        if self.running:
            return
        try:
            pid = self._guard.start(
                self._command, log=self.log, account=self._account, end_signal=self._end_signal
            )
        except OSError as error:
            raise WayClosed(f"{self._name} cannot be started: {error}") from None
        self._process = psutil.Process(pid)

    def await_answer(self) -> None:
        """Return when it answers.

        Raises:
            WayClosed: it ended, or did not answer within START_SECONDS.
        """
        answered = False

        def answered_or_ended() -> bool:
            nonlocal answered
            answered = self._answers()
            return answered or not self.running

        in_time = until(answered_or_ended, START_SECONDS)
        if not answered:
            how = "ended at once" if in_time else f"did not answer within {START_SECONDS:.0f} s"
            said = self.log.read_text(errors="replace")
            raise WayClosed(f"{self._name} {how}; its log says: {last_words(said)}")

    def stop(self) -> None:
        """End it in good order, or after STOP_SECONDS anyhow."""
        if not self.running:
            return
        _send(self._known, self._stop_signal)
        self.resume()
        if not until(lambda: not self.running, STOP_SECONDS):
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), with the processes that it started."""
        if not self.running:
            return
        first, *others = self._family()
        for process in (first, *others):
            _send(process, signal.SIGKILL)
        # What is started next must find neither its port nor its shared memory in use.
        _must(
            lambda: not self.running and all(_status(process) is None for process in others),
            f"{self._name} does not die",
        )

    def pause(self) -> None:
        """Make it hang (SIGSTOP), with the processes that it started, until `resume`."""
        # The first one first, so that it starts no more of them.
        _stop(self._known)
        for process in self._family():
            _stop(process)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        for process in reversed(self._family()):
            _send(process, signal.SIGCONT)

    @property
    def _known(self) -> psutil.Process:
        if self._process is None:
            raise RuntimeError(f"{self._name} has not been started")
        return self._process

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._known, *self._known.children(recursive=True)]
        return [self._known]


def _stop(process: psutil.Process) -> None:
    _send(process, signal.SIGSTOP)
    _must(
        lambda: _status(process) in {None, psutil.STATUS_STOPPED},
        f"process {process.pid} does not stop",
    )


def _send(process: psutil.Process, number: signal.Signals) -> None:
    # By psutil, which sees that a pid has not come to mean another process.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _status(process: psutil.Process) -> str | None:
    """A process that ended has none, be it that nobody has asked yet how it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if process.is_running() and (status := process.status()) != psutil.STATUS_ZOMBIE:
            return status
    return None


def _must(condition: Callable[[], bool], otherwise: str) -> None:
    if not until(condition, _SIGNAL_SECONDS):
        raise TimeoutError(otherwise)
