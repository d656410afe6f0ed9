"""Jobs are finished in a process that is killed at a call that changes what is on the disk.

`run_struck` has the process killed at the call of number `at` // 2, before it where `at` is even,
else after it. Children come from a fork server, which has no threads and starts each in no time.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sink.csv.finish import Finisher
from sink.csv.spool import Spool

STRUCK: Final = ("fsync", "replace", "unlink", "mkdir")
_DEADLINE: Final = 60.0


def run_struck(results: Path, at: int) -> int:
    """Finish what is due in a folder of results; the exit code of the process that does it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_finish, args=(results, at))
    process.start()
    process.join(_DEADLINE)
    assert process.exitcode is not None, "it does not end"
    code = process.exitcode
    process.close()
    return code


def _finish(results: Path, at: int) -> None:
    _strike(at)

    def now() -> datetime:
        return datetime.now(UTC)

    with Spool(results, "scores", now) as spool:
        finisher = Finisher(spool, results, now)
        while finisher.step().again == 0:
            pass


def _strike(at: int) -> None:
    calls = 0

    def struck(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            due = calls == at // 2
            if due and at % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **named)
            finally:
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapper

    for name in STRUCK:
        setattr(os, name, struck(getattr(os, name)))
