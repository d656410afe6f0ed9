"""The files of one output: `OUTPUT.partial` that grows, what says how it was begun, and the lock.

Rows go to `OUTPUT.partial`; when all are there it is renamed to OUTPUT, so that OUTPUT is always a
whole result or an old one. The partial is plain text even where OUTPUT is to be gzip, and is packed
at the end: a gzip stream can neither be cut at a row nor be continued to the same bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from filelock import FileLock, Timeout

from pairscore.csv_file.packing import holds, pack
from pairscore.csv_file.sidecar import Sidecar
from pairscore.errors import EnvironmentFault, InputError

_FLUSH_SECONDS = 0.25
_FLUSH_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Output:
    """Where an output is written; `path` is the result, and its neighbours carry its name."""

    path: Path

    @property
    def partial(self) -> Path:
        """The rows so far."""
        return self._beside(".partial")

    @property
    def sidecar(self) -> Path:
        """What `partial` was begun with."""
        return self._beside(".partial.json")

    @property
    def packed(self) -> bool:
        """Whether the result is gzip."""
        return self.path.suffix == ".gz"

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def check_place(self, source: Path) -> None:
        """Make sure that the result can be put here and is not the input.

        Raises:
            InputError: it cannot, or it is.
        """
        if str(self.path) == "-":
            raise InputError("standard output is not supported; name a file with --output")
        folder = self.path.parent
        if not folder.is_dir():
            raise InputError(f"{self.path}: the folder {folder} does not exist; create it first")
        for place in (self.path, self.partial, self.sidecar):
            try:
                exists, same = place.exists(), place.exists() and place.samefile(source)
            except OSError as error:
                raise InputError(
                    f"{place}: cannot be used: {error.strerror or error}; "
                    "choose another with --output"
                ) from None
            if same:
                raise InputError(
                    f"{place}: the output would overwrite the input; choose another with --output"
                )
            if exists and not place.is_file():
                raise InputError(f"{place}: this is not a file; choose another with --output")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(
                f"{self.path}: the folder {folder} cannot be written to; "
                "choose another with --output"
            )

    def check_leftovers(self, *, resume: bool, overwrite: bool) -> Sidecar | None:
        """Look at what is here already; return what the partial to go on from was begun with.

        Raises:
            InputError: something is here that the options do not say what to do with.
        """
        begun: Sidecar | None = None
        if self.partial.exists():
            if resume:
                begun = Sidecar.read(self.sidecar)
                overwrite = overwrite or begun.overwrite or self._was_packed()
            elif not overwrite:
                raise InputError(
                    f"{self.partial}: an earlier run was interrupted; continue it with --resume, "
                    "or discard it with --overwrite"
                )
        if self.path.exists() and not overwrite:
            raise InputError(
                f"{self.path}: the output exists already; replace it with --overwrite, "
                "or choose another with --output"
            )
        return begun

    def _was_packed(self) -> bool:
        """Whether the result is the partial, packed by a run that ended before it had tidied up."""
        return self.packed and self.path.is_file() and holds(self.path, self.partial)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run away from this output.

        Raises:
            InputError: another run is at it, or the lock file cannot be written.
        """
        place = self._beside(".lock")
        lock = FileLock(place)
        try:
            place.touch()  # FileLock takes a folder that refuses new files for another run's lock
            lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                f"{self.path}: another run is writing this output; wait for it, "
                "or choose another with --output"
            ) from None
        except OSError as error:
            raise InputError(
                f"{place}: cannot be written: {error.strerror or error}; "
                "choose another place with --output"
            ) from None
        try:
            yield
        finally:
            # Removed while it is held: whoever locks a file that has no name any more tries again.
            with suppress(FileNotFoundError):
                place.unlink()
            lock.release()

    def begin(self, sidecar: Sidecar) -> None:
        """Discard an earlier partial and say what the next one is begun with.

        In this order, so that a crash in between leaves no partial with a sidecar that is not its
        own.
        """
        with writing(self.partial):
            self.partial.unlink(missing_ok=True)
            sidecar.write(self.sidecar)
            self.partial.touch()
            sync_folder(self.path.parent)

    def finish(self) -> str:
        """Turn the whole partial into the result; return the result's sha256, in hex."""
        with writing(self.path):
            if self.packed:
                packed = self._beside(".partial.gz")
                pack(self.partial, packed)
                packed.replace(self.path)
                self.partial.unlink()
            else:
                self.partial.replace(self.path)
            sync_folder(self.path.parent)
            self.sidecar.unlink(missing_ok=True)
            with self.path.open("rb") as result:
                return hashlib.file_digest(result, "sha256").hexdigest()


class PartialWriter:
    """Appends rows to a partial, and hands them to the system some at a time.

    That happens with the first row that comes a quarter of a second after the last time, or that
    makes 256 KiB: a killed process loses at most the rows of a quarter of a second, which may be
    older than that where none came after them. Leaving the context, by an exception too, puts
    everything on the disk.
    """

    def __init__(self, path: Path, keep: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the partial, cut to its first `keep` bytes."""
        self._path = path
        self._clock = clock
        self._rows: list[bytes] = []
        self._size = 0
        with writing(path):
            self._file: BinaryIO = path.open("r+b", buffering=0)
            self._file.truncate(keep)
            self._file.seek(keep)
        self._due = clock() + _FLUSH_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self._path), self._file:
            self._flush()
            os.fsync(self._file.fileno())

    def write(self, text: str) -> None:
        """Append a row."""
        row = text.encode()
        self._rows.append(row)
        self._size += len(row)
        if self._size >= _FLUSH_BYTES or self._clock() >= self._due:
            with writing(self._path):
                self._flush()

    def _flush(self) -> None:
        waiting = memoryview(b"".join(self._rows))
        self._rows.clear()
        self._size = 0
        while waiting:
            waiting = waiting[self._file.write(waiting) :]
        self._due = self._clock() + _FLUSH_SECONDS


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: cannot be written: {error.strerror or error}; "
            "see to the disk, then continue with --resume"
        ) from error


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk: a rename survives a power cut only then (man 2 fsync)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
