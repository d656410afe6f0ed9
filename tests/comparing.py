"""Two results of one file: they are the same, but for the last digits of similarities."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

_TOLERANCE: Final = 1e-3


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def compare(alone: Sequence[Sequence[str]], result: Sequence[Sequence[str]]) -> float:
    """The largest difference of two similarities; all else is the same.

    Raises:
        AssertionError: it is not.
    """
    [header, *expected], [other_header, *found] = alone, result
    assert other_header == header
    assert len(found) == len(expected)
    column = header.index("similarity")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        assert [*other[:column], *other[column + 1 :]] == [*one[:column], *one[column + 1 :]]
        if one[column] or other[column]:
            worst = max(worst, abs(float(one[column]) - float(other[column])))
            assert float(other[column]) == pytest.approx(float(one[column]), abs=_TOLERANCE)
    return worst
