"""A row of a CSV as a message: its key and its value, ready for Kafka."""

from collections.abc import Mapping
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
        caption = cells[self._caption] if self._caption < count else ""
        raw = exact_text(record, self._delimiter)
        of_cells = {"columns": cells, **({} if raw is None else {"raw": raw}), "width": self._width}
        return key_of(url), _encode(self._job, row, url, caption, created_at, of_cells, {})


def encode_pair(
    job: str,
    row: int,
    url: str,
    caption: str,
    created_at: datetime,
    reply_to: Mapping[str, Any] | None = None,
) -> bytes:
    """The value of a row that has no cells, likewise; `reply_to` is who waits for its outcome."""
    behind = {} if reply_to is None else {"reply_to": reply_to}
    return _encode(job, row, url, caption, created_at, {"columns": ()}, behind)


def _encode(
    job: str,
    row: int,
    url: str,
    caption: str,
    created_at: datetime,
    cells: Mapping[str, Any],
    behind: Mapping[str, Any],
) -> bytes:
    """The fields in the order of `PairMessage`."""
    return to_json(
        {
            "v": VERSION,
            "job": job,
            "row": row,
            "url": url,
            "caption": caption,
            **cells,
            "attempt": 1,
            "created_at": created_at,
            **behind,
        }
    )
