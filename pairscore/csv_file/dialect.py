"""How a CSV file is written: its delimiter, line terminator and byte order mark."""

import io
from dataclasses import dataclass
from itertools import islice

from pairscore.csv_file.columns import count_found
from pairscore.csv_file.records import Record, RecordError, read_records
from pairscore.errors import InputError

DELIMITERS = (",", "\t", ";", "|")
"""Those that are sniffed; the earlier wins where nothing else tells."""

_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe", " ": "space"}
_SAMPLE_RECORDS = 200


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the writer must do as the file does; `terminator` is that of the header."""

    delimiter: str
    terminator: str
    bom: bool


def sniff_delimiter(sample: str, url: str | None, caption: str | None) -> str:
    """Tell the delimiter from the first lines of a file.

    The one that splits the header into the columns looked for wins; then one that splits it at all;
    then the one by which most rows are as wide as the header; then the one that gives most columns.
    `sample` may end inside a record, but not inside a line.
    """

    def merit(delimiter: str) -> tuple[int, bool, float, int]:
        records = _first_records(sample, delimiter)
        if not records:
            return 0, False, 0.0, 0
        header, *rows = (record.cells for record in records)
        width = len(header)
        even = sum(len(row) == width for row in rows) / len(rows) if rows else 0.0
        return count_found(header, url, caption), width > 1, even, width

    return max(DELIMITERS, key=merit)


def check_delimiter(delimiter: str) -> str:
    r"""Return the delimiter that was asked for; `\t` may be written as such or as `tab`.

    Raises:
        InputError: it is not one character, or one that CSV needs for itself.
    """
    wanted = "\t" if delimiter in ("\\t", "tab") else delimiter
    if len(wanted) != 1 or wanted in '"\r\n\0\ufeff' or not _encodable(wanted):
        raise InputError(
            f"delimiter {delimiter!r} cannot be used: give one character with --delimiter, "
            "such as ',' or ';' or '\\t'"
        )
    return wanted


def name_delimiter(delimiter: str) -> str:
    """The delimiter in words, where there is one."""
    return _NAMES.get(delimiter, repr(delimiter))


def _first_records(sample: str, delimiter: str) -> list[Record]:
    found: list[Record] = []
    try:
        found.extend(
            islice(read_records(io.StringIO(sample, newline=""), delimiter), _SAMPLE_RECORDS)
        )
    except RecordError:
        # The sample is cut, or the file is broken there: the survey will say which.
        return found
    return found


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
