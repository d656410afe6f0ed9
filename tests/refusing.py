"""Services as processes that cannot begin: what they say, with which exit code, and how soon."""

import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import commands

MOST_SECONDS = 30.0


@dataclass(frozen=True)
class Ended:
    """How a service ended."""

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
    done = commands.run(module, environment, within=2 * MOST_SECONDS)
    assert done.stdout == ""
    return Ended(name, done.returncode, done.stderr, time.monotonic() - began)


def run_all(commands: Mapping[str, list[str]], environment: Mapping[str, str]) -> list[Ended]:
    """Run services at the same time, each to its end."""
    with ThreadPoolExecutor() as pool:
        started = [pool.submit(run, *each, environment) for each in commands.items()]
        return [each.result() for each in started]
