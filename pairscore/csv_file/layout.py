"""What an output row looks like: the input's exact text, and the new cells in the right columns.

The new columns come right after the header's. A row with too few cells is filled up with empty
ones, and the surplus cells of a row with too many come after the new ones, so that the new cells
of every row are in the new columns.
"""

import re
from dataclasses import dataclass

from pairscore.csv_file.records import Record, quote_cell, split_raw
from pairscore.pair import Failure, Outcome, Reason, Score

COLUMNS = ("similarity", "error")
DETAIL_COLUMNS = ("cosine", "caption_truncated", "image_sha256", "attempts")

_SIMILARITY = re.compile(r"-?\d+\.\d{4}|-?inf|nan")


def new_columns(details: bool) -> tuple[str, ...]:
    """Names of the columns that are added, in order."""
    return COLUMNS + DETAIL_COLUMNS if details else COLUMNS


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are written: `width` is the input header's number of columns.

    `dropped` are the 0-based indices of input columns that are left out, because an earlier run
    wrote them and this one writes them anew.
    """

    delimiter: str
    terminator: str
    width: int
    details: bool
    dropped: frozenset[int] = frozenset()

    @property
    def kept(self) -> int:
        """How many of the input's columns the output has."""
        return self.width - len(self.dropped)

    def header(self, record: Record) -> str:
        """The output's header with its terminator."""
        return self._join(record, list(new_columns(self.details)))

    def row(self, record: Record, outcome: Outcome) -> str:
        """The output's row with its terminator: exactly one record, whatever the input's was."""
        cells = [_similarity(outcome), "" if isinstance(outcome, Score) else _plain(outcome.error)]
        if self.details:
            cells += _details(outcome)
        return self._join(record, cells)

    def frame(self, record: Record) -> tuple[str, str]:
        """The text before and after a row's new cells, delimiters included."""
        if len(record.cells) == self.width and not self.dropped:
            return record.raw + self.delimiter, ""
        cells = split_raw(record.raw, self.delimiter)
        cells += [""] * (self.width - len(cells))
        kept = [c for i, c in enumerate(cells[: self.width]) if i not in self.dropped]
        surplus = cells[self.width :]
        return (
            self.delimiter.join([*kept, ""]),
            self.delimiter.join(["", *surplus]) if surplus else "",
        )

    def recognise(self, written: Record, record: Record) -> Reason | None:
        """Why an output row has no similarity (None: it has one), once it is sure to be whole.

        Raises:
            ValueError: `written` is not what `row` makes of `record`, whatever the outcome was.
        """
        before, after = self.frame(record)
        surplus = max(0, len(record.cells) - self.width)
        if not (
            written.terminator == self.terminator
            and written.raw.startswith(before)
            and written.raw.endswith(after)
            and len(written.cells) == self.kept + len(new_columns(self.details)) + surplus
        ):
            raise ValueError("another row")
        similarity, error = written.cells[self.kept : self.kept + 2]
        if not error and _SIMILARITY.fullmatch(similarity):
            return None
        if similarity:
            raise ValueError("neither a similarity nor an error")
        return Reason(error.split(":", 1)[0])

    def _join(self, record: Record, cells: list[str]) -> str:
        before, after = self.frame(record)
        new = self.delimiter.join([quote_cell(cell, self.delimiter) for cell in cells])
        return f"{before}{new}{after}{self.terminator}"


def malformation(count: int, width: int) -> Failure | None:
    """What to say of a record of `count` cells under a header of `width`; None if they agree."""
    if count == width:
        return None
    if count == 0:
        return Failure(Reason.MALFORMED_ROW, "empty line")
    cells = "1 cell" if count == 1 else f"{count} cells"
    return Failure(Reason.MALFORMED_ROW, f"{cells} under {width} columns")


def _similarity(outcome: Outcome) -> str:
    return f"{outcome.similarity:z.4f}" if isinstance(outcome, Score) else ""


def _details(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.cosine:z.6f}" if isinstance(outcome, Score) else "",
        # The caption of a row without an image is never tokenised: there is nothing to say of it.
        str(outcome.caption_truncated).lower() if isinstance(outcome, Score) else "",
        outcome.image_sha256 or "",
        str(outcome.attempts),
    ]


def _plain(text: str) -> str:
    """One printable line: a detail may quote what a server said."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)
