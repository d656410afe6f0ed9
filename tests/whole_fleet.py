"""Every service of a fleet as a process, each with an environment of its own."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import commands
from tests.fetching import wait_until
from tests.postgres_sinks import ask

DEADLINE = 90.0
STAYING = ("worker", "sink csv", "sink postgres")


def write_rows(source: Path, rows: int) -> None:
    """A CSV whose rows all come to nothing soon: `blocked_address`."""
    lines = [f"http://127.0.0.1:1/{row}.jpg,a cat" for row in range(rows)]
    source.write_text("\n".join(["url,caption", *lines, ""]))


@contextmanager
def running(folder: Path, environment: Callable[[str], Mapping[str, str]]) -> Iterator[list[Path]]:
    """A worker and a sink of each kind while the block runs; their logs.

    `environment` gives a service's, by its name.
    """
    logs: list[Path] = []
    with ExitStack() as stack:
        for service in STAYING:
            logs.append(folder / f"{service.replace(' ', '-')}.log")
            log = stack.enter_context(logs[-1].open("a")).fileno()
            command = [sys.executable, "-m", *service.split()]
            stack.enter_context(
                commands.started(command, environment(service), stdout=log, stderr=log)
            )
        yield logs


def publish(source: Path, job: str, environment: Mapping[str, str], *more: str) -> None:
    """`python -m producer csv`, to its end."""
    command = [sys.executable, "-m", "producer", "csv", str(source), "--job", job, *more]
    done = commands.run(command, environment, within=DEADLINE)
    assert done.returncode == 0, done.stderr


def wait_for_outcomes(results: Path, database: str, job: str, source: Path, rows: int) -> None:
    """Wait until both sinks have all rows of a job, each once."""
    written = results / job / f"{source.stem}_scored.csv"
    query = "SELECT count(*) FROM pairscore.scores WHERE job = %s AND error = 'blocked_address'"
    wait_until(written.exists, within=DEADLINE)
    assert written.read_text().count(",blocked_address") == rows
    wait_until(lambda: ask(database, query, job) == [(rows,)], within=DEADLINE)
