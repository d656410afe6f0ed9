"""Rows of cells as a table of plain text, for a terminal of any width."""

import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Final

_BETWEEN: Final = "  "


def terminal_width() -> int | None:
    """How many characters a line may have; None where nobody looks, as in a pipe or a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Collection[str],
    width: int | None = None,
    spare: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """The lines of a table, and the names of the columns that it had no room for.

    Columns are flush right, but for those in `left`. Where the table is wider than `width`, those
    in `spare` are left out one by one until it is not; the others are shown whatever comes of it.
    """
    columns = {name: (name, *cells) for name, *cells in zip(head, *rows, strict=True)}
    gone: list[str] = []
    for name in spare:
        if width is None or _width(columns.values()) <= width:
            break
        del columns[name]
        gone.append(name)
    aligned = [_aligned(cells, flush_left=name in left) for name, cells in columns.items()]
    return [_BETWEEN.join(line).rstrip() for line in zip(*aligned, strict=True)], gone


def _aligned(cells: Sequence[str], *, flush_left: bool) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if flush_left else cell.rjust(width) for cell in cells]


def _width(columns: Collection[Sequence[str]]) -> int:
    return sum(max(map(len, cells)) for cells in columns) + len(_BETWEEN) * (len(columns) - 1)
