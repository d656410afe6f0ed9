"""Which worker this is: the same name when it comes back, another for each on the host.

The name is its transactional id, by which Kafka fences whoever had it before: two that run must not
share one, and one that was killed should get its own again, since that ends at once the transaction
it left open.
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from pairscore.errors import EnvironmentFault

_MOST: Final = 1_000


@contextmanager
def worker_identity(chosen: str | None, folder: Path | None = None) -> Iterator[str]:
    """The name, held until the end of the block or of the process.

    Args:
        chosen: a name given by the user, who then sees to it that it is the only one.
        folder: of the lock files by which workers of one host tell each other apart; default: one
            of this user's in the system's folder for temporary files.

    Raises:
        EnvironmentFault: the lock files cannot be written.
    """
    if chosen is not None:
        yield chosen
        return
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "worker"
    folder = folder or Path(tempfile.gettempdir()) / f"pairscore-workers-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        number, lock = _first_free(folder, host)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder}: cannot be written ({error.strerror or error}); set PAIRSCORE_WORKER__ID to "
            "a name that no other worker has"
        ) from None
    try:
        yield host if number == 0 else f"{host}-{number}"
    finally:
        lock.release()


def _first_free(folder: Path, host: str) -> tuple[int, FileLock]:
    for number in range(_MOST):
        lock = FileLock(folder / f"{host}-{number}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return number, lock
    raise EnvironmentFault(f"{folder}: {_MOST:,} workers run on this host; that is the most")
