"""What became of a job's rows, by two counts that know nothing of each other."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.data import Row
from tests.faults.reader import Scores


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a job's rows: counted by the reader, and by the sink."""

    rows: int
    lost: int
    duplicated: int
    copies: Sequence[str]
    sink_rows: int
    sink_duplicates: int
    wrong: Sequence[str]

    def __str__(self) -> str:
        return (
            f"lost {self.lost}, duplicated {self.duplicated} (reader: "
            f"{self.rows - self.lost:,} of {self.rows:,}; sink: {self.sink_rows:,} of "
            f"{self.rows:,}, {self.sink_duplicates} came again)"
        )

    def check(self) -> None:
        """Each row is there once, by either count, with the outcome that it should have."""
        assert (self.lost, self.duplicated) == (0, 0), f"{self}; {self.copies[:20]}"
        assert (self.sink_rows, self.sink_duplicates) == (self.rows, 0), str(self)
        assert not self.wrong, f"{len(self.wrong)} outcomes are wrong: {self.wrong[:3]}"


def count(
    job: str, rows: Sequence[Row], scores: Scores, results: Path, status: Mapping[str, Any]
) -> Tally:
    """Count a complete job: on `scores`, and in what the sink wrote and says of itself."""
    [sink] = [each for each in status["jobs"] if each["job"] == job]
    with (results / sink["result"]).open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file, restval=""))
    manifest = json.loads((results / job / "manifest.json").read_bytes())
    assert sink["state"] == "complete", sink
    assert sink["missing"] == 0, sink
    assert len(written) == manifest["rows"], manifest
    assert len(written) == manifest["scored"] + sum(manifest["failed"].values()), manifest
    lost = scores.lost(job, len(rows))
    wrong = [f"row {row} was never published" for row in scores.beyond(job, len(rows))]
    for index, row in enumerate(rows):
        value, line = scores.found.get((job, index)), written[index]
        if value is not None and not _is_right(row, value):
            wrong.append(f"row {index}: {row}: {value}")
        if line["error"].partition(":")[0] != (row.expected or ""):
            wrong.append(f"line {index}: {row}: {line}")
    return Tally(
        rows=len(rows),
        lost=len(lost),
        duplicated=scores.duplicated(job),
        copies=scores.copies(job),
        sink_rows=len(written),
        sink_duplicates=status["duplicates"],
        wrong=wrong,
    )


def _is_right(row: Row, value: Mapping[str, Any]) -> bool:
    expected = None if row.expected is None else row.expected.value
    as_published = (value["url"], value["caption"], tuple(value["columns"])) == (
        row.url,
        row.caption,
        row.cells,
    )
    return as_published and value.get("error") == expected
