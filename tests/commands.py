"""Commands as processes, which never outlive whoever started them."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(
    command: Sequence[str], environment: Mapping[str, str], *, within: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, which it must come to `within` so many seconds."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> "Iterator[subprocess.Popen[str]]":
    """A command while the block runs, and never longer."""
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdout=stdout, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
