"""Uploads: a body is written to a file, checked whole, and only then published as a job.

So a request that is refused has published nothing, and one that was broken off goes on where it was
when it is sent again with the same `Idempotency-Key`.
"""

import asyncio
import gzip
import hashlib
import io
import os
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from pydantic_core import from_json

from pairscore.csv_file import Survey, TooManyRows, survey_input
from pairscore.errors import EnvironmentFault, InputError
from producer.api.problems import Kind, ProblemError, explain
from producer.api.schemas import PairIn
from producer.checks import check_job, check_rows
from producer.encoding import encode_pair, most_bytes
from producer.job import CsvJob, describe_job
from producer.publication import RowsChanged
from shared.messages import API, MAX_ROWS, key_of
from shared.settings import KafkaSettings

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK_BYTES: Final = 1 << 20
# Looking ahead costs as much as so many lines.
_BLANK_RUN: Final = 100
_GZIP: Final = b"\x1f\x8b"
_LONGEST_REPLY: Final = {"partition": 99_999, "key": "k" * 64}
# A character may be six of JSON's.
_LINE_BYTES: Final = 6
_LINE: Final = re.compile(r"line (\d+)")
_ICONV: Final = re.compile(r"convert (?:it|the file, perhaps) with `.*`$")
_OPTIONS: Final = (
    ("--url-column", "?url_column="),
    ("--caption-column", "?caption_column="),
    ("--delimiter", "?delimiter="),
    ("--overwrite", "?overwrite=true"),
)


@dataclass(frozen=True, slots=True)
class Spooled:
    """A body in a file, and its hex digest."""

    path: Path
    sha256: str


@asynccontextmanager
async def spooled(body: AsyncIterator[bytes], folder: Path) -> AsyncIterator[Spooled]:
    """Write a body to a file, which is removed at the end of the block.

    Raises:
        EnvironmentFault: there is no room for it.
    """
    path = await asyncio.to_thread(_make_file, folder)
    try:
        yield await _write(body, path)
    finally:
        with suppress(OSError):
            path.unlink()


def _make_file(folder: Path) -> Path:
    try:
        number, path = tempfile.mkstemp(dir=folder, prefix="pairscore-")
        os.close(number)
    except OSError as error:
        raise _no_room(folder, error) from None
    return Path(path)


async def _write(body: AsyncIterator[bytes], path: Path) -> Spooled:
    digest = hashlib.sha256()
    waiting = bytearray()

    def append() -> None:
        try:
            with path.open("ab") as file:
                file.write(waiting)
        except OSError as error:
            raise _no_room(path.parent, error) from None
        digest.update(waiting)

    async for chunk in body:
        waiting += chunk
        if len(waiting) >= _CHUNK_BYTES:
            await asyncio.to_thread(append)
            waiting.clear()
    await asyncio.to_thread(append)
    return Spooled(path, digest.hexdigest())


def _no_room(folder: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"setting PAIRSCORE_API__SPOOL: {folder}: cannot be written: {error.strerror or error}"
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upload may be, in bytes: a row as a message, a line, all of it; and how many rows.

    `job_bytes` is for the message that begins the job, which has the header of a CSV.
    """

    row_bytes: int
    upload_bytes: int
    rows: int
    job_bytes: int | None = None

    @property
    def line_bytes(self) -> int:
        """The longest line."""
        return max(1_000_000, _LINE_BYTES * self.row_bytes)


@dataclass(frozen=True, slots=True)
class PairFile:
    """A file of pairs as NDJSON that was checked against limits: how many there are."""

    path: Path
    count: int
    limits: Limits


class PairRows:
    """The rows of a file of pairs, to be published."""

    def __init__(self, job: str, file: PairFile) -> None:
        self._job = job
        self._file = file

    @property
    def name(self) -> str:
        """What it is, for people."""
        return "the body"

    @property
    def count(self) -> int:
        """How many rows it has."""
        return self._file.count

    @contextmanager
    def open(self) -> Iterator[Iterator[tuple[str, str]]]:
        """Its (url, caption), in order.

        Raises:
            RowsChanged: it is no such file any more.
        """
        try:
            with open_lines(self._file.path, self._file.limits) as lines:
                pairs = (from_json(line) for _, line in lines)
                yield ((pair["url"], pair["caption"]) for pair in pairs)
        except (OSError, EOFError, zlib.error, ValueError, KeyError):
            raise RowsChanged from None

    def encode(
        self, row: int, record: tuple[str, str], created_at: datetime
    ) -> tuple[bytes, bytes]:
        """The key and the value of a row's message."""
        url, caption = record
        return key_of(url), encode_pair(self._job, row, url, caption, created_at)


@contextmanager
def open_lines(path: Path, limits: Limits) -> Iterator[Iterator[tuple[int, bytes]]]:
    """The lines of a file that are not blank, each with its number; gzip or not by its first bytes.

    Gzip makes long lines, and many, out of next to nothing: the iterator raises `ProblemError` for
    one that is longer than `limits` allow, for more bytes in all, and for more lines than rows.
    """
    with _open(path, limits) as file:
        yield _lines(file, limits)


@contextmanager
def _open(path: Path, limits: Limits) -> Iterator[io.BufferedReader]:
    with path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as packed:
            yield io.BufferedReader(_Unpacked(packed, limits.upload_bytes), _CHUNK_BYTES)


class _Unpacked(io.RawIOBase):
    """What comes out of a gzip file, but no more than so many bytes."""

    def __init__(self, packed: gzip.GzipFile, most: int) -> None:
        self._packed = packed
        self._most = most
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """As the file's; raises `ProblemError` where there is more."""
        count = self._packed.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise ProblemError(
                Kind.TOO_LARGE, f"the body is longer than {self._most:,} bytes unpacked"
            )
        return count


def _lines(file: io.BufferedReader, limits: Limits) -> Iterator[tuple[int, bytes]]:
    number = blank = 0
    while line := file.readline(limits.line_bytes):
        number += 1
        if len(line) >= limits.line_bytes:
            raise ProblemError(
                Kind.INVALID,
                f"line {number}: it is longer than {limits.line_bytes:,} bytes",
                line=number,
            )
        if not line.isspace():
            blank = 0
            yield number, line
        elif (blank := blank + 1) % _BLANK_RUN == 0:
            number += _skip_blank(file)
        if number > limits.rows:
            raise too_many_rows(limits.rows)


def _skip_blank(file: io.BufferedReader) -> int:
    """Pass by the empty lines that are in the buffer, and count them."""
    waiting = file.peek()
    end = waiting.rfind(b"\n", 0, len(waiting) - len(waiting.lstrip())) + 1
    file.read(end)
    return waiting.count(b"\n", 0, end)


def check_pairs(path: Path, limits: Limits) -> PairFile:
    """Make sure that each line is a pair that fits into a message.

    Raises:
        ProblemError: one is not; says which.
    """
    row = 0
    try:
        with open_lines(path, limits) as lines:
            for number, line in lines:
                try:
                    pair = PairIn.model_validate_json(line)
                except ValidationError as error:
                    raise ProblemError(
                        Kind.INVALID, f"row {row}: {explain(error)}", row=row, line=number
                    ) from None
                check_size(pair.url, pair.caption, row, limits.row_bytes, number)
                row += 1
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(error) from None
    if row == 0:
        raise ProblemError(Kind.INVALID, "the body has no rows; send one JSON object a line")
    return PairFile(path, row, limits)


def check_size(url: str, caption: str, row: int, limit: int, line: int | None = None) -> None:
    """Make sure that a pair fits into a message of `limit` bytes.

    Raises:
        ProblemError: it does not.
    """
    if most_bytes(len(url) + len(caption)) <= limit:
        return
    now = datetime.now().astimezone()
    size = len(encode_pair("x" * 128, MAX_ROWS, url, caption, now, _LONGEST_REPLY))
    if size > limit:
        raise ProblemError(
            Kind.INVALID,
            f"row {row}: it makes a message of {size:,} bytes, and {limit:,} are allowed "
            "(PAIRSCORE_KAFKA__MAX_MESSAGE_BYTES); shorten it",
            row=row,
            line=line,
        )


def too_many_rows(most: int) -> ProblemError:
    """What to say of a job that is too long."""
    return ProblemError(
        Kind.TOO_LARGE, f"a job has {most:,} rows at most, empty lines among them; send several"
    )


def _damaged(error: Exception) -> ProblemError:
    return ProblemError(Kind.MALFORMED, f"the gzip data is cut short or damaged ({error})")


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """How a CSV is to be read; as `survey_input` has it."""

    url_column: str | None = None
    caption_column: str | None = None
    delimiter: str | None = None
    overwrite: bool = False


def check_csv(path: Path, options: CsvOptions, kafka: KafkaSettings, limits: Limits) -> Survey:
    """Check all of a CSV.

    Raises:
        ProblemError: it cannot be used; says why and, where it can be told, in which line.
    """
    _check_unpacked(path, limits)
    try:
        survey = survey_input(
            path,
            url_column=options.url_column,
            caption_column=options.caption_column,
            delimiter=options.delimiter,
            overwrite=options.overwrite,
            most_rows=limits.rows,
        )
        if survey.rows == 0:
            raise InputError("the body has a header and no rows")
        now = datetime.now().astimezone()
        job = describe_job("x" * 128, survey, now)
        check_job(job, survey, limits.job_bytes)
        check_rows(survey, job, kafka)
    except TooManyRows:
        raise too_many_rows(limits.rows) from None
    except InputError as error:
        raise refused_csv(str(error), path) from None
    return survey


def _check_unpacked(path: Path, limits: Limits) -> None:
    """Make sure that what is to be read is not without end: before any of it is looked at."""
    try:
        with _open(path, limits) as file:
            while isinstance(file.raw, _Unpacked) and file.read(_CHUNK_BYTES):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(error) from None


def refused_csv(said: str, path: Path) -> ProblemError:
    """A problem from what the command would say of the file."""
    said = _ICONV.sub("send it as UTF-8", said)
    said = said.replace(f"{path}: ", "").replace(str(path), "the body")
    for option, parameter in _OPTIONS:
        said = said.replace(option, parameter)
    found = _LINE.search(said)
    return ProblemError(Kind.INVALID, said, line=int(found[1]) if found else None)


def csv_job(
    name: str, client: str | None, survey: Survey, now: datetime, deadline: datetime | None
) -> CsvJob:
    """The message that begins a job of a CSV."""
    job = describe_job(name, survey, now, deadline)
    form = None if job.csv is None else job.csv.model_copy(update={"output_name": "scored.csv"})
    return job.model_copy(update={"source": API, "client": client, "csv": form})
