"""Commands as processes, which never outlive whoever started them."""

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
        except BaseException as error:
            error.add_note(_last_words(process))
            raise
        finally:
            process.kill()


def heeds(pid: int, number: signal.Signals) -> bool:
    """Whether a process has come so far that it handles a signal."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if command in {b"", Path("/proc/self/cmdline").read_bytes()}:
            return False  # it is still becoming what it was started as, and has our handlers
        caught = Path(f"/proc/{pid}/status").read_text().partition("\nSigCgt:")[2]
        return bool(caught and int(caught.split()[0], 16) >> (number - 1) & 1)
    return False


def _last_words(process: "subprocess.Popen[str]") -> str:
    """What a process had come to when a test gave up on it, for whoever reads of the failure."""
    code = process.poll()
    process.kill()
    said = "" if process.stderr is None or process.stderr.closed else process.stderr.read()
    ended = "was running" if code is None else f"had ended with {code}"
    return f"{process.args!r} {ended}: {said}"
