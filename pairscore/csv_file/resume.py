"""What an interrupted run has finished: its partial's rows, matched with those of the input."""

import io
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from pairscore.csv_file.layout import Layout
from pairscore.csv_file.output import writing
from pairscore.csv_file.records import MAX_RECORD, Record, RecordError, read_records
from pairscore.pair import Reason


def recover(
    partial: Path,
    head: str,
    layout: Layout,
    rows: Iterator[Record],
    found: Callable[[Reason | None], None],
) -> tuple[int, Iterator[Record]]:
    """Find how much of a partial is whole, and which input rows come after it.

    A process can be killed in the middle of a write, and a power cut can leave zeros or old blocks
    at a file's end, so that nothing is believed that does not fit: each row must be what `layout`
    makes of the input's next row, up to the outcome. The first that is not, and all after it, is
    to be cut off.

    Args:
        partial: the file of rows so far.
        head: what it starts with: the byte order mark, if any, and the header.
        layout: how its rows are written.
        rows: the input's rows, from the first.
        found: called with each finished row's reason, None for a score, in order.

    Returns:
        How many bytes to keep (0: not even the header is whole), and the rows that are not
        finished.
    """
    with writing(partial), partial.open("rb") as file:
        start = head.encode()
        if file.read(len(start)) != start:
            return 0, rows
        size = len(start)
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        for written in _readable(text, layout.delimiter):
            record = next(rows, None)
            if record is None:
                break
            try:
                reason = layout.recognise(written, record)
                length = len((written.raw + written.terminator).encode())
            except ValueError:
                return size, chain([record], rows)
            size += length
            found(reason)
        return size, rows


def _readable(text: io.TextIOWrapper, delimiter: str) -> Iterator[Record]:
    try:
        # A written row is a little longer than the one that was read.
        yield from read_records(text, delimiter, 2 * MAX_RECORD)
    except RecordError:
        return
