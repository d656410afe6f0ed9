"""A CSV of image URLs and captions as the wild has them, with what is to come of every row.

Made for `pairscore.demo.server`, whose paths that misbehave it uses.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from pairscore.demo.rows import HEADER, ORDINARY, Row, RowMaker

CSV_NAME = "challenge_set.csv"
_ODD_SHARE = 4


@dataclass(frozen=True, slots=True)
class Dataset:
    """What `make_dataset` wrote; `rows` are in the order of the CSV, its header left out.

    `expected` in a row holds for a scorer that may ask loopback and no other private network, gives
    an answer less than a minute, and asks more than once.
    """

    folder: Path
    csv: Path
    expected_csv: Path
    rows: tuple[Row, ...]


def make_dataset(folder: Path, *, rows: int = 300, seed: int = 0, base_url: str) -> Dataset:
    """Write pictures, `challenge_set.csv` and `expected.csv` into `folder`, served at `base_url`.

    The same arguments give the same files. A quarter of the rows at most are odd: from some 200
    rows on, every oddity occurs. Pictures are at most 1,000; with more rows, they recur.

    Raises:
        ValueError: `rows` is below 1.
        OSError: the files cannot be written.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    maker = RowMaker(folder, base_url.rstrip("/"), seed)
    made = [maker.ordinary("right caption")]
    made += [make() for make in maker.oddities()[: rows // _ODD_SHARE]]
    kinds = maker.rng.choice(list(ORDINARY), size=rows, p=list(ORDINARY.values()))
    made += [maker.ordinary(str(kind)) for kind in kinds[len(made) :]]
    order = enumerate(maker.rng.permutation(rows))
    shuffled = tuple(_numbered(made[old], new) for new, old in order)
    dataset = Dataset(folder, folder / CSV_NAME, folder / "expected.csv", shuffled)
    _write(dataset)
    return dataset


def _numbered(row: Row, index: int) -> Row:
    return replace(row, cells=(f"r{index + 1:06}", *row.cells[1:])) if row.cells else row


def _write(dataset: Dataset) -> None:
    with dataset.csv.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in dataset.rows:
            writer.writerow(row.cells)
    with dataset.expected_csv.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "expected", "note"))
        for index, row in enumerate(dataset.rows):
            writer.writerow((index, row.expected or "", row.note))
