"""A row of a CSV as a message: its key and its value, ready for Kafka."""

from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json

from pairscore.csv_file import Survey
from pairscore.csv_file.records import Record, quote_cell
from shared.messages import VERSION, key_of

_CHAR_BYTES: Final = 6
"""Most that one character takes in JSON: a control character is \\u001f, four bytes are UTF-8's."""

_CELL_BYTES: Final = 3
"""Quotes and comma."""

_OTHER_BYTES: Final = 1_024
"""Job, row, names of fields and the like."""


def exact_text(record: Record, delimiter: str) -> str | None:
    """The record's own text where its cells, written plainly, would give another; else None."""
    raw = record.raw
    # A quote is all that can make a difference.
    if '"' not in raw:
        return None
    return None if delimiter.join([quote_cell(c, delimiter) for c in record.cells]) == raw else raw


def most_bytes(characters: int) -> int:
    """The longest message that a row of so many characters can become."""
    # Every character of a row can be there three times: in its text, in its cell, and in the URL or
    # the caption.
    return 3 * _CHAR_BYTES * characters + _CELL_BYTES * (characters + 1) + _OTHER_BYTES


class RowEncoder:
    """Encodes the rows of one job.

    The value is, byte for byte, that of the `PairMessage` with the same fields; made without it,
    because a hundred thousand a second go through here.
    """

    def __init__(self, job: str, survey: Survey) -> None:
        self._job = job
        self._delimiter = survey.dialect.delimiter
        self._width = survey.layout.width
        self._url = survey.url.index
        self._caption = survey.caption.index

    def encode(self, row: int, record: Record, created_at: datetime) -> tuple[bytes, bytes]:
        """The key and the value of a row.

        A malformed row has the URL and the caption that are at their places, else empty ones: what
        it is worth is the worker's to say.
        """
        cells = record.cells
        count = len(cells)
        url = cells[self._url] if self._url < count else ""
        fields: dict[str, Any] = {
            "v": VERSION,
            "job": self._job,
            "row": row,
            "url": url,
            "caption": cells[self._caption] if self._caption < count else "",
            "columns": cells,
        }
        raw = exact_text(record, self._delimiter)
        if raw is not None:
            fields["raw"] = raw
        fields["width"] = self._width
        fields["attempt"] = 1
        fields["created_at"] = created_at
        return key_of(url), to_json(fields)
