"""The process that services run under: when who started it is gone, they are ended and removed.

A program of its own, run by `deploy.local.guarding`: `guard.py PARENT_PID NAME [FOLDER]`. Requests
come as lines of JSON on standard input, answers go as lines of JSON to standard output; the first
line says which folder is for the data. The end of standard input, or of the process PARENT_PID, is
the end of the services, whatever ended the parent: each gets its end signal, after STOP_SECONDS
SIGKILL; then announced containers are removed, and the folder too unless it was given.
"""

import contextlib
import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import psutil

STOP_SECONDS: Final = 5.0
KILL_SECONDS: Final = 5.0

_LOOK_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Guard:
    """The services of one parent, and what they leave behind."""

    def __init__(self) -> None:
        self._services: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
        self._containers: list[str] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a `command`, say how a `process` ended, or take note of a `container`."""
        if "command" in request:
            try:
                return {"pid": self._start(request)}
            except OSError as error:
                return {"error": str(error)}
        if "process" in request:
            process, _ = self._services[request["process"]]
            return {"code": process.poll()}
        self._containers.append(request["container"])
        return {}

    def end(self) -> None:
        """End all services, with every process that they started, and remove the containers."""
        running = [
            (process, number)
            for process, number in self._services.values()
            if process.poll() is None
        ]
        family = [member for process, _ in running for member in _family(process.pid)]
        for process, number in running:
            process.send_signal(number)
        # One that is stopped (SIGSTOP) hears of it only when it goes on.
        _signal(family, signal.SIGCONT)
        _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
        _signal(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=KILL_SECONDS)
        if self._containers:
            _remove(self._containers)

    def _start(self, request: dict[str, Any]) -> int:
        account = pwd.getpwnam(request["account"]) if request["account"] else None
        with Path(request["log"]).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - deploy.local says what is run
                request["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=request["folder"],
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=None if account is None else [],
                process_group=0,
                preexec_fn=_die_with_the_guard,
            )
        self._services[process.pid] = (process, request["end_signal"])
        return process.pid


def _die_with_the_guard() -> None:
    # For the case that the guard itself is killed; only Linux offers it.
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _family(pid: int) -> list[psutil.Process]:
    # The process group would not do: each of Postgres's processes is in one of its own.
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _remove(names: list[str]) -> None:
    # Here and not above: it takes four times as long to import as all the rest.
    import docker  # type: ignore[import-untyped]
    import docker.errors  # type: ignore[import-untyped]

    def removed(name: str) -> bool:
        with contextlib.suppress(docker.errors.NotFound):
            client.containers.get(name).remove(force=True, v=True)
            return True
        return False

    # One that was being created when the parent died may turn up only now.
    deadline = time.monotonic() + STOP_SECONDS
    try:
        with contextlib.closing(docker.from_env()) as client:
            while names and time.monotonic() < deadline:
                names = [name for name in names if not removed(name)]
                time.sleep(0.1 if names else 0.0)
    except (docker.errors.DockerException, OSError) as error:
        sys.stderr.write(f"deploy.local: Docker may have kept {', '.join(names)}: {error}\n")


def _requests(parent: int) -> Iterator[dict[str, Any]]:
    """Requests until there can be no more: standard input ends, or the parent does.

    The second is for a parent whose end of the pipe lives on in a process that it forked.
    """
    received = b""
    while os.getppid() == parent:
        if not select.select([sys.stdin.fileno()], [], [], _LOOK_SECONDS)[0]:
            continue
        if not (data := os.read(sys.stdin.fileno(), 65_536)):
            return
        *lines, received = (received + data).split(b"\n")
        yield from map(json.loads, lines)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def main() -> None:
    """Serve the parent while it lives, then clean up."""
    parent, name, *given = sys.argv[1:]
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, _leave)
    guard, folder = Guard(), given[0] if given else tempfile.mkdtemp(prefix=f"pairscore-{name}-")
    try:
        with contextlib.suppress(BrokenPipeError):
            _say({"folder": folder})
            for request in _requests(int(parent)):
                _say(guard.answer(request))
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        try:
            guard.end()
        finally:
            if not given:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
