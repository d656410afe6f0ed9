"""Opening the input: gzip or not, UTF-8 with or without BOM, and every way in which it is not."""

import gzip
import hashlib
import io
import shlex
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pairscore.csv_file.records import MAX_RECORD, Record, RecordError, read_records
from pairscore.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_FOREIGN = {
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"BZh91AY&SY": "a bzip2 archive",
}


class _Tap(io.RawIOBase):
    """Passes a file's bytes on and takes their sha256 on the way."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._raw.readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        return count


@dataclass(frozen=True, slots=True)
class Source:
    """An open input; `text` stands after the byte order mark, if there was one."""

    path: Path
    text: io.TextIOWrapper
    bom: bool
    tap: _Tap

    @property
    def sha256(self) -> str:
        """Hex digest of the file's own bytes (compressed ones, where they are) read so far."""
        return self.tap.sha256.hexdigest()

    def records(self, delimiter: str) -> Iterator[Record]:
        """Read every record, the header first; afterwards the whole file has been digested.

        Raises:
            InputError: the file cannot be read as CSV; says where and what to do.
        """
        with explained(self.path):
            yield from read_records(self.text, delimiter)

    def sample(self, size: int = 1 << 16) -> str:
        """Read the first lines, `size` characters of them or one line more."""
        lines: list[str] = []
        with explained(self.path):
            while size > 0 and (line := self.text.readline(MAX_RECORD)):
                lines.append(line)
                size -= len(line)
        return "".join(lines)


@contextmanager
def open_source(path: Path, errors: str = "strict") -> Iterator[Source]:
    """Open a CSV file, plain or gzip by its first bytes.

    Raises:
        InputError: it cannot be opened, or is plainly something else than CSV in UTF-8.
    """
    with ExitStack() as stack:
        with explained(path):
            tap = _Tap(stack.enter_context(io.FileIO(path)))
            binary: io.BufferedReader = stack.enter_context(io.BufferedReader(tap, _CHUNK))
            if binary.peek(2)[:2] == b"\x1f\x8b":
                unpacked = stack.enter_context(gzip.GzipFile(fileobj=binary))
                binary = stack.enter_context(io.BufferedReader(unpacked, _CHUNK))
            start = binary.peek(10)[:10]
            _refuse_foreign(path, start)
            bom = start.startswith(_BOM)
            if bom:
                binary.read(len(_BOM))
        text = io.TextIOWrapper(binary, encoding="utf-8", errors=errors, newline="")
        stack.enter_context(text)
        yield Source(path, text, bom, tap)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what reading `path` can run into into an InputError of one line."""
    try:
        yield
    except RecordError as error:
        raise InputError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise InputError(_explain_encoding(path)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: the gzip data is cut short or damaged ({error}); fetch the file again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from None


def _refuse_foreign(path: Path, start: bytes) -> None:
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            advice = (
                f"convert it with `{_iconv(path, what.split()[0])}`"
                if what.startswith("UTF")
                else "save it as CSV, plain or gzip, first"
            )
            raise InputError(f"{path}: this is {what}, not CSV in UTF-8; {advice}")


def _explain_encoding(path: Path) -> str:
    """Find the first byte that is not UTF-8; read again, since the decoder reads ahead of lines."""
    line_number = 1
    with open_source(path, errors="surrogateescape") as source:
        offset = len(_BOM) if source.bom else 0
        while line := source.text.readline(MAX_RECORD):
            bad = next((i for i, char in enumerate(line) if "\udc80" <= char <= "\udcff"), None)
            if bad is not None:
                offset += len(line[:bad].encode())
                byte = line[bad].encode(errors="surrogateescape")[0]
                return (
                    f"{path}: line {line_number}: the byte 0x{byte:02x} at offset {offset} is not "
                    f"UTF-8; convert the file, perhaps with `{_iconv(path, 'WINDOWS-1252')}`"
                )
            offset += len(line.encode())
            line_number += line.endswith(("\n", "\r"))
    return f"{path}: it is not UTF-8, and it changes while it is being read; try again"


def _iconv(path: Path, encoding: str) -> str:
    source, target = shlex.quote(str(path)), shlex.quote(f"{path.name.split('.')[0]}.utf8.csv")
    if path.suffix == ".gz":
        return f"gzip -dc {source} | iconv -f {encoding} -t UTF-8 > {target}"
    return f"iconv -f {encoding} -t UTF-8 {source} > {target}"
