"""The folder of results as the sink finds it: there, writable, and nobody else's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pairscore.errors import EnvironmentFault
from shared.results.spool import spool_path


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Make the folder if need be, and keep every other sink away from it.

    Raises:
        EnvironmentFault: it cannot be made or written to, or another sink is at it.
    """
    place = spool_path(results).parent / "lock"
    lock = FileLock(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()  # FileLock takes a folder that refuses new files for another sink's lock
        lock.acquire(blocking=False)
        for folder in (results, place.parent):
            _try_out(folder)
    except Timeout:
        raise EnvironmentFault(
            f"setting PAIRSCORE_RESULTS: another sink is at work in {results}; one is enough, or "
            "give this one a folder of its own"
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"setting PAIRSCORE_RESULTS: {error.filename or results}: cannot be written: "
            f"{error.strerror or error}; choose a folder that can"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _try_out(folder: Path) -> None:
    probe = folder / ".writable"
    probe.write_bytes(b"")
    probe.unlink()
