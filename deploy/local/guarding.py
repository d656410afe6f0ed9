"""Processes that end with this one, however it ends: what stands between us and `guard`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

from deploy.local import guard as guard_program

_CLOSE_SECONDS: Final = guard_program.STOP_SECONDS + guard_program.KILL_SECONDS + 20.0
_TELLING = re.compile(r"ERROR|FATAL|Exception|[Ee]rror|Could not|Unrecognized")
_TELLING_LINES, _TELLING_CHARACTERS = 3, 500


class Guard:
    """Runs processes for one service and keeps their data in `folder`. Safe to use from threads."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self._requests = requests
        self._answers = answers
        self._turn = threading.Lock()
        self.folder = Path(self._receive()["folder"])

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        account: str | None = None,
        end_signal: signal.Signals = signal.SIGTERM,
    ) -> int:
        """Start a process; returns its pid.

        Args:
            command: what it is started with.
            log: where its output is appended.
            account: the user that it runs as; by default this one.
            end_signal: what it gets when the guard ends.

        Raises:
            OSError: it cannot be started.
        """
        answer = self._ask(
            command=[str(word) for word in command],
            log=str(log),
            folder=str(self.folder),
            account=account,
            end_signal=int(end_signal),
        )
        if "error" in answer:
            raise OSError(answer["error"])
        return int(answer["pid"])

    def code(self, pid: int) -> int | None:
        """How a process started here ended: its exit code or minus its signal; None if not yet."""
        code: int | None = self._ask(process=pid)["code"]
        return code

    def remove_at_end(self, container: str) -> None:
        """Have a Docker container removed at the end, which need not exist yet."""
        self._ask(container=container)

    def _ask(self, **request: object) -> dict[str, Any]:
        with self._turn:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
            return self._receive()

    def _receive(self) -> dict[str, Any]:
        if not (line := self._answers.readline()):
            raise BrokenPipeError("the process that guards the services is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def guarded(name: str, folder: Path | None = None) -> Iterator[Guard]:
    """Start a guard; on leaving, its processes are ended.

    Args:
        name: of the service, for the name of a temporary folder.
        folder: where data go and stay; by default a temporary folder that is removed at the end.
    """
    if folder is not None:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
    program = Path(guard_program.__file__)
    process = subprocess.Popen(  # noqa: S603 - the command is written here
        [sys.executable, "-I", program, str(os.getpid()), name, *([folder] if folder else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C in a terminal is for the parent, whose work may need them to end in good order.
        start_new_session=True,
    )
    requests, answers = cast("TextIO", process.stdin), cast("TextIO", process.stdout)
    with process:
        try:
            yield Guard(requests, answers)
        finally:
            with contextlib.suppress(BrokenPipeError):
                requests.close()
            try:
                process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def last_words(said: str) -> str:
    """What the end of a log says about an early death, as one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)] or lines
    return " | ".join(telling[-_TELLING_LINES:])[-_TELLING_CHARACTERS:] or "nothing"
