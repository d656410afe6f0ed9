"""Which process of a service this is: the same name when it comes back, another for each on a host.

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
def process_identity(service: str, chosen: str | None, folder: Path | None = None) -> Iterator[str]:
    """The name, held until the end of the block or of the process.

    By default the host's, with the number of a user who is not root, and one of those of the user's
    that run.

    Args:
        service: `worker` or `api`.
        chosen: a name given by the user, who then sees to it that it is the only one.
        folder: of the lock files by which workers of one host tell each other apart; default: one
            of this user's in the system's folder for temporary files.

    Raises:
        EnvironmentFault: the lock files cannot be written.
    """
    if chosen is not None:
        yield chosen
        return
    user = os.getuid()
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or service
    name = host if user == 0 else f"{host}-u{user}"  # users do not see each other's lock files
    folder = folder or Path(tempfile.gettempdir()) / f"pairscore-{service}s-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        number, lock = _first_free(folder, name, service)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder}: cannot be written ({error.strerror or error}); set "
            f"PAIRSCORE_{service.upper()}__ID to a name that no other {service} has"
        ) from None
    try:
        yield name if number == 0 else f"{name}-{number}"
    finally:
        lock.release()


def _first_free(folder: Path, name: str, service: str) -> tuple[int, FileLock]:
    for number in range(_MOST):
        lock = FileLock(folder / f"{name}-{number}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return number, lock
    raise EnvironmentFault(f"{folder}: {_MOST:,} {service}s run on this host; that is the most")
