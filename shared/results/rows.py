"""A job's outcomes as the text of its CSV file: the bytes that `pairscore score` would write."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json

from pairscore.csv_file.layout import Layout
from pairscore.csv_file.records import Record, quote_cell
from pairscore.pair import Failure, Outcome, Reason, Score
from shared.messages import CsvFormat, JobMessage

PLAIN_HEADER: Final = ("url", "caption")
"""Columns of a job that came from no file."""

_PLAIN: Final = CsvFormat(output_name="scored.csv")


class RowWriter:
    """Lays out one job's header and rows, as the job's own file was written."""

    def __init__(self, job: JobMessage) -> None:
        written = job.csv or _PLAIN
        header = job.header or PLAIN_HEADER
        self._delimiter = written.delimiter
        self._of_a_file = bool(job.header)
        self._bom = written.bom
        self._header = self._record(header, written.header_raw if self._of_a_file else None)
        self._layout = Layout(
            delimiter=written.delimiter,
            terminator=written.terminator,
            width=len(header),
            details=written.details,
            dropped=frozenset(index for index in written.dropped if index < len(header)),
        )

    def header(self) -> str:
        """What the file starts with."""
        return ("\ufeff" if self._bom else "") + self._layout.header(self._header)

    def row(self, value: bytes) -> str:
        """The row of an outcome, from the bytes of its message, which were checked when stored."""
        message: dict[str, Any] = from_json(value)
        cells = message.get("columns") or ()
        if not cells and not self._of_a_file:
            cells = (message["url"], message["caption"])
        return self._layout.row(self._record(cells, message.get("raw")), _outcome(message))

    def _record(self, cells: Sequence[str], raw: str | None) -> Record:
        if raw is None:
            raw = self._delimiter.join(cells)
            if '"' in raw or "\n" in raw or "\r" in raw or self._delimiter in "".join(cells):
                raw = self._delimiter.join([quote_cell(cell, self._delimiter) for cell in cells])
        return Record(0, list(cells), raw, "")


def _outcome(message: dict[str, Any]) -> Outcome:
    """As `ScoreMessage.outcome`, without checking again what was checked."""
    error = message.get("error")
    if error is not None:
        return Failure(
            Reason(error),
            message.get("error_detail") or "",
            attempts=message["attempts"],
            image_sha256=message.get("image_sha256"),
        )
    return Score(
        similarity=message["similarity"],
        cosine=message["cosine"],
        caption_truncated=message.get("caption_truncated", False),
        image_sha256=message.get("image_sha256") or "",
        attempts=message["attempts"],
    )
