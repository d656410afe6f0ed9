"""The files of a complete job, put where they belong only when they are whole.

`RESULTS/JOB/` gets the CSV file, for a job of the API's `outcomes.jsonl` too, and last
`manifest.json`: what it describes is there, and on the disk. A crash before leaves what was there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from pairscore import __version__
from pairscore.csv_file.output import sync_folder
from pairscore.csv_file.packing import pack
from shared.results.folder import OUTCOMES_NAME
from shared.results.rows import RowWriter
from shared.results.status import make_status
from sink.csv.spool import DueJob
from sink.faults import StoreFault

MANIFEST_NAME: Final = "manifest.json"
PLAIN_NAME: Final = "scored.csv"

_PARTIAL: Final = ".result.partial"
_PACKED: Final = ".result.partial.gz"
_OUTCOMES: Final = ".outcomes.partial"
_MANIFEST: Final = ".manifest.partial"
_OURS: Final = {MANIFEST_NAME, OUTCOMES_NAME, _PARTIAL, _PACKED, _OUTCOMES, _MANIFEST}


@contextmanager
def writing_result(
    results: Path, job: DueJob, now: Callable[[], datetime]
) -> "Iterator[ResultWriter]":
    """Begin a job's result; leaving the block without `finish` leaves nothing of it behind.

    Raises:
        StoreFault: nothing can be written there now.
    """
    writer = ResultWriter(results, job, now)
    try:
        writer.begin()
        yield writer
    finally:
        writer.discard()


class ResultWriter:
    """Writes one job's result; `size` is how many bytes were written so far."""

    def __init__(self, results: Path, job: DueJob, now: Callable[[], datetime]) -> None:
        self._job = job
        self._now = now
        self._results = results
        self._folder = results / job.message.job
        self._name = output_name(job)
        self._rows = RowWriter(job.message)
        self._written = 0
        self._file: BinaryIO | None = None
        self._outcomes: BinaryIO | None = None
        self.size = 0

    def begin(self) -> None:
        """Open the files and write the header."""
        with refusals(self._folder):
            if not self._folder.is_dir():
                self._folder.mkdir()
                sync_folder(self._results)
            self._check_owner()
            self._file = (self._folder / _PARTIAL).open("wb")
            if self._job.message.csv is None or self._job.message.is_of_the_api:
                self._outcomes = (self._folder / _OUTCOMES).open("wb")
            self._put(self._file, self._rows.header().encode())

    def discard(self) -> None:
        """Remove what is not finished, so that a full disk has that room again."""
        for file in (self._file, self._outcomes):
            if file is not None:
                with suppress(OSError):
                    file.close()
        for name in (_PARTIAL, _PACKED, _OUTCOMES, _MANIFEST):
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def write(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Append rows, which continue where the last ones ended.

        Raises:
            StoreFault: they cannot be written now.
        """
        values = []
        for row, value in rows:
            if row != self._written:
                raise RuntimeError(f"job {self._job.message.job}: {row} follows {self._written}")
            self._written += 1
            values.append(value)
        with refusals(self._folder):
            text = "".join([self._rows.row(value) for value in values])
            self._put(self._file, text.encode())
            if self._outcomes is not None:
                self._put(self._outcomes, b"".join([value + b"\n" for value in values]))

    def finish(self) -> str:
        """Put the files in their places; where the CSV file is, below the folder of results.

        Raises:
            StoreFault: that cannot be done now.
        """
        if self._written != self._job.message.rows:
            raise RuntimeError(f"job {self._job.message.job}: {self._written} rows written")
        with refusals(self._folder):
            partial = self._folder / _PARTIAL
            _settle(self._file)
            if self._name.endswith(".gz"):
                packed = self._folder / _PACKED
                pack(partial, packed)
                partial.unlink()
                partial = packed
            with partial.open("rb") as whole:
                digest = hashlib.file_digest(whole, "sha256").hexdigest()
            # An old manifest must not be found beside a new file.
            (self._folder / MANIFEST_NAME).unlink(missing_ok=True)
            if self._outcomes is not None:
                _settle(self._outcomes)
                (self._folder / _OUTCOMES).replace(self._folder / OUTCOMES_NAME)
            partial.replace(self._folder / self._name)
            sync_folder(self._folder)
            self._write_manifest(digest)
        return f"{self._job.message.job}/{self._name}"

    def _write_manifest(self, digest: str) -> None:
        place = self._folder / _MANIFEST
        text = json.dumps(manifest(self._job, self._name, digest, self._now()), indent=2)
        with place.open("wb") as file:
            file.write(f"{text}\n".encode())
            _settle(file)
        place.replace(self._folder / MANIFEST_NAME)
        sync_folder(self._folder)

    def _put(self, file: BinaryIO | None, data: bytes) -> None:
        if file is not None:
            file.write(data)
            self.size += len(data)

    def _check_owner(self) -> None:
        """Where upper and lower case are one, two jobs may have one folder."""
        place = self._folder / MANIFEST_NAME
        mine = self._job.message.job
        try:
            found = json.loads(place.read_bytes())["job"] if place.is_file() else mine
        except (ValueError, KeyError, TypeError):
            return  # damaged, or nothing of ours
        if found != mine:
            raise StoreFault(
                f"{self._folder}: the result of job {found} is here, and that of job {mine} would "
                "take its place; move it away"
            )


def output_name(job: DueJob) -> str:
    """The name of the result's file: the job's own, unless it is one of ours."""
    if job.message.csv is None:
        return PLAIN_NAME
    name = job.message.csv.output_name
    return PLAIN_NAME if name.casefold() in _OURS else name


def manifest(job: DueJob, name: str, digest: str, now: datetime) -> Mapping[str, Any]:
    """What the result is: rows = scored + the sum of `failed`; digests are of files as they are."""
    message = job.message
    status = make_status(
        job.counts,
        job=message.job,
        source=message.source,
        state="complete",
        rows_published=message.rows_published,
        rows=message.rows,
        result=name,
        created_at=message.created_at,
        updated_at=now,
    )
    failed = sorted(status.failed.items(), key=lambda item: (-item[1], item[0]))
    return {
        "job": message.job,
        "source": message.source,
        "rows": message.rows,
        "scored": status.scored,
        "failed": {reason.value: rows for reason, rows in failed},
        "models": dict(sorted(status.models.items())),
        "input_sha256": message.source_sha256,
        "output": name,
        "output_sha256": digest,
        "created_at": message.created_at.isoformat(),
        "completed_at": now.isoformat(),
        "pairscore": __version__,
    }


def _settle(file: BinaryIO | None) -> None:
    if file is not None:
        file.flush()
        os.fsync(file.fileno())
        file.close()


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turn what the system refuses into a fault that may pass."""
    try:
        yield
    except OSError as error:
        raise StoreFault(
            f"setting PAIRSCORE_RESULTS: {folder}: cannot be written: {error.strerror or error}"
        ) from error
