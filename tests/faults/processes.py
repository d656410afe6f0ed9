"""Real processes, all of which end with this one."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO, cast

ROOT: Final = Path(__file__).resolve().parents[2]
_CLOSE_SECONDS: Final = 30.0


class Nursery:
    """Starts processes (see `tests.faults.nursery`); safe to use from threads."""

    def __init__(self, requests: TextIO, answers: TextIO) -> None:
        self._requests = requests
        self._answers = answers
        self._turn = threading.Lock()
        self._ended: dict[int, int] = {}

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        preloaded: bool,
    ) -> int:
        """Start `python -m MODULE ARGUMENTS`; its pid."""
        with self._turn:
            answer = self._ask(
                module=module,
                arguments=list(arguments),
                environment=dict(environment),
                log=str(log),
                preloaded=preloaded,
            )
            pid = int(answer["pid"])
            self._ended.pop(pid, None)  # of an earlier process: numbers come again
        return pid

    def code(self, pid: int) -> int | None:
        """The exit code of a process, or minus the signal that ended it; None if it runs."""
        with self._turn:
            if pid not in self._ended:
                ended = self._ask()["ended"]
                self._ended |= {int(each): code for each, code in ended.items()}
            return self._ended.get(pid)

    def _ask(self, **request: object) -> dict[str, Any]:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        line = self._answers.readline()
        assert line, "the nursery is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery; on leaving, all its processes are killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.nursery"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        requests, answers = cast("TextIO", process.stdin), cast("TextIO", process.stdout)
        try:
            yield Nursery(requests, answers)
        finally:
            requests.close()
            process.wait(_CLOSE_SECONDS)


def clean_environment() -> dict[str, str]:
    """That of this process, without any setting of pairscore."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PAIRSCORE_")
    }
