"""Services as processes that cannot begin: what they say, with which exit code, and how soon."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import commands
from tests.fetching import wait_until

MOST_SECONDS = 30.0


@dataclass(frozen=True)
class Ended:
    """How a service ended, after how many seconds; those in which others had its core left out."""

    name: str
    code: int
    said: str
    seconds: float

    @property
    def line(self) -> str:
        """The one line that is said by a service that cannot begin, within 30 s."""
        assert self.code in {2, 3}, self.said
        assert self.said.count("\n") == 1, self.said
        assert self.said.startswith(f"{self.name}: "), self.said
        assert self.seconds < MOST_SECONDS
        return self.said.removeprefix(f"{self.name}: ").rstrip("\n")


def services(folder: Path) -> Mapping[str, list[str]]:
    """The command of each service, by the name it gives itself; what they need is in `folder`.

    The Postgres sink's database is to be in the environment.
    """
    source = folder / "in.csv"
    source.write_text("url,caption\nhttp://e.org/1.jpg,a cat\n")
    return {
        "worker": ["worker", "--model", "demo"],
        "producer": ["producer", "csv", str(source)],
        "sink csv": ["sink", "csv", "--results", str(folder / "results")],
        "sink postgres": ["sink", "postgres"],
    }


def run(name: str, command: Iterable[str], environment: Mapping[str, str]) -> Ended:
    """Run a service to its end."""
    began = time.monotonic()
    module = [sys.executable, "-m", *command]
    with commands.started(module, environment) as process:
        wait_until(lambda: _has_ended(process.pid), within=4 * MOST_SECONDS)
        seconds = time.monotonic() - began - _waited(process.pid)
        said, complained = process.communicate(timeout=MOST_SECONDS)
    assert said == ""
    return Ended(name, process.returncode, complained, seconds)


def _has_ended(pid: int) -> bool:
    """Whether a process has ended, of which something can be known as long as it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _waited(pid: int) -> float:
    """How many seconds the first thread of a process could have gone on and had no core."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) * 1e-9
    except FileNotFoundError:  # a kernel that does not count that
        return 0.0


def run_all(commands: Mapping[str, list[str]], environment: Mapping[str, str]) -> list[Ended]:
    """Run services at the same time, each to its end."""
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(run, *each, environment) for each in commands.items()]
        return [each.result() for each in started]
