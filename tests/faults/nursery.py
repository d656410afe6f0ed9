"""Starts the fleet's processes, and ends them all when who asked for them is gone.

`python -m tests.faults.nursery`: requests come as lines of JSON on standard input, answers go as
lines of JSON to standard output. The end of standard input is the end of every process.

A `preloaded` process is a fork of this one, which has imported torch: it runs the same module as
`python -m` would, with the seconds left out that every start would spend on importing.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PRELOADED: Final = ("pairscore.scorer", "worker.loop", "shared.telemetry.server")


def main() -> None:
    """Serve until standard input ends; in a process that was started, be what it is to be."""
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    # Ctrl-C in a terminal is for pytest, which ends this one by closing its standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = _serve()
    if request is not None:
        _become(**request)


def _serve() -> dict[str, Any] | None:
    """Answer requests; returns None at their end, and what to be in a process just started."""
    running: set[int] = set()
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if "module" in request:
            pid = os.fork()
            if pid == 0:
                return request
            running.add(pid)
            _say({"pid": pid})
        else:
            ended = _reap(running)
            running -= ended.keys()
            _say({"ended": ended})
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return None


def _reap(running: set[int]) -> dict[int, int]:
    """The processes that have ended, with their exit codes or minus their signals."""
    ended: dict[int, int] = {}
    for pid in running:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _become(
    module: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    log: str,
    *,
    preloaded: bool,
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":  # in case the nursery itself is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _redirect(Path(log))
    if not preloaded:
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
