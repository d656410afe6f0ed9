"""A file of lines in order, read from any of them on without reading those before."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO


def read_lines(
    path: Path, key: Callable[[bytes], int], start: int, limit: int, most_bytes: int
) -> list[bytes]:
    """At most `limit` lines, from the first whose key is at least `start` on.

    There is one at least, and they end where they have `most_bytes`. Keys rise from line to line;
    the first is found by halving, in about 30 reads of a line.
    """
    with path.open("rb") as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        while low < high:
            middle = (low + high) // 2
            begun, line = _line_from(file, middle)
            if not line or key(line) >= start:
                high = middle
            else:
                low = begun + 1
        begun, _ = _line_from(file, low)
        file.seek(begun)
        found: list[bytes] = []
        size = 0
        for line in islice(file, limit):
            found.append(line)
            size += len(line)
            if size >= most_bytes:
                break
        return found


def _line_from(file: BinaryIO, at: int) -> tuple[int, bytes]:
    """The first line that begins at `at` or after it, and where that is; empty at the end."""
    file.seek(max(0, at - 1))
    if at > 0:
        file.readline()
    return file.tell(), file.readline()
