"""CSV records with their exact text: what was read can be written again, character for character.

The grammar is that of `csv.reader` with its default (Excel) dialect and a delimiter of one's
choice: cells may be quoted with `"`, a quoted cell may hold delimiters, line ends and doubled
quotes, and text after a closing quote belongs to the cell (RFC 4180 forbids it, files have it).
LF, CR LF and CR all end a record, in any mixture.
"""

import csv
from collections.abc import Iterator
from typing import NamedTuple, Self, TextIO

MAX_RECORD = 16 * 1024 * 1024
"""Characters in the longest record read: bounds memory, and finds quotes never closed."""


class Record(NamedTuple):
    """One record; `raw` is its exact text without the terminator that ended it (empty at the end).

    `line` is the 1-based number of the physical line it starts on. An empty line is a record
    without cells; a line of blanks is like any other (`"  "` is a record of one cell).
    """

    line: int
    cells: list[str]
    raw: str
    terminator: str


class RecordError(Exception):
    """Text that cannot be told apart into records; `line` is where, `problem` what."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


class _Lines:
    """Hands physical lines to `csv.reader`, and remembers those of the record being read."""

    def __init__(self, stream: TextIO, limit: int) -> None:
        self._readline = stream.readline
        self._limit = limit
        self._room = limit
        self._taken: list[str] = []
        self.count = 0
        self.ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._readline(self._room + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.count += 1
        self._room -= len(line)
        if self._room < 0:
            first = self.count - len(self._taken)
            raise RecordError(
                first,
                f"the row that starts here is longer than {self._limit:,} characters; "
                "close the quote that was left open in it, or shorten it",
            )
        if "\0" in line:
            raise RecordError(
                self.count,
                "there is a NUL byte; this is binary or UTF-16 data, save it as CSV in UTF-8 first",
            )
        self._taken.append(line)
        return line

    def take(self) -> tuple[int, str]:
        """The number of the first line since the last call, and the text of all of them."""
        taken = self._taken
        first = self.count - len(taken) + 1
        text = taken[0] if len(taken) == 1 else "".join(taken)
        taken.clear()
        self._room = self._limit
        return first, text


def read_records(stream: TextIO, delimiter: str, limit: int = MAX_RECORD) -> Iterator[Record]:
    """Read every record of `stream`, which must leave line ends alone (`newline=""`).

    Raises:
        RecordError: a NUL, a record of more than `limit` characters, or a quote never closed.
    """
    # The limit of the csv module holds for the whole process: it is only ever raised, and _Lines
    # keeps records short enough that it never decides here.
    if csv.field_size_limit() < limit:
        csv.field_size_limit(limit)
    lines = _Lines(stream, limit)
    for cells in csv.reader(lines, delimiter=delimiter):
        first, text = lines.take()
        if lines.ended:
            raise RecordError(
                first, "a quote in the row that starts here is never closed; close or remove it"
            )
        # No line end is stripped but the terminator: an earlier one lies inside quotes, and the
        # closing quote comes after it.
        raw = text.rstrip("\r\n")
        yield Record(first, cells, raw, text[len(raw) :])


def split_raw(raw: str, delimiter: str) -> list[str]:
    """Split a record's text into the text of its cells, quotes included.

    `delimiter.join` of the result is `raw`; there are as many cells as `csv.reader` finds, but that
    an empty line is one empty cell.
    """
    cells: list[str] = []
    start = 0
    while True:
        end = raw.find(delimiter, _after_quotes(raw, start))
        if end < 0:
            return [*cells, raw[start:]]
        cells.append(raw[start:end])
        start = end + len(delimiter)


def _after_quotes(raw: str, start: int) -> int:
    """Where the quoted part of the cell at `start` is over; `start` if the cell has none."""
    if not raw.startswith('"', start):
        return start
    at = start + 1
    while (close := raw.find('"', at)) >= 0:
        if not raw.startswith('"', close + 1):
            return close + 1
        at = close + 2
    return len(raw)


def quote_cell(cell: str, delimiter: str) -> str:
    """Write a cell so that it reads back the same: in quotes where it needs them."""
    if delimiter in cell or '"' in cell or "\n" in cell or "\r" in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell
