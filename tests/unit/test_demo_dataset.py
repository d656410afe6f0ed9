"""The demo data has every oddity, says what becomes of each row, and is the same each time."""

import csv
import hashlib
import http.client
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pairscore.demo.dataset import Dataset, make_dataset
from pairscore.demo.rows import HEADER
from pairscore.demo.server import serve
from pairscore.pair import Reason

BASE = "http://127.0.0.1:8000"

# Nothing in the data asks for a certificate, robots.txt is not heeded, nothing is cancelled, and no
# row is our own fault.
UNREACHED = {Reason.TLS_ERROR, Reason.DISALLOWED, Reason.CANCELLED, Reason.INTERNAL}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("demo"), base_url=BASE)


def body(dataset: Dataset, url: str) -> bytes:
    return (dataset.folder / url.removeprefix(BASE + "/")).read_bytes()


def pictures(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    for row in dataset.rows:
        if row.expected is None and urlsplit(row.cells[1]).path.startswith("/images/"):
            yield row.note, body(dataset, row.cells[1])


def test_every_reason_that_data_can_cause_occurs(dataset: Dataset) -> None:
    reasons = Counter(row.expected for row in dataset.rows)
    assert set(reasons) == {None, *Reason} - UNREACHED
    assert reasons[None] > 0.8 * len(dataset.rows)


def test_the_csv_holds_the_rows_cell_for_cell(dataset: Dataset) -> None:
    with dataset.csv.open(encoding="utf-8", newline="") as file:
        header, *records = csv.reader(file)
    assert tuple(header) == HEADER
    assert [tuple(record) for record in records] == [row.cells for row in dataset.rows]
    malformed = {row.cells for row in dataset.rows if row.expected is Reason.MALFORMED_ROW}
    assert {len(cells) for cells in malformed} == {0, 2, 6}
    assert {len(row.cells) for row in dataset.rows if row.cells not in malformed} == {4}


def test_the_expected_reasons_are_written_beside_it(dataset: Dataset) -> None:
    with dataset.expected_csv.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(record["row"]) for record in written] == list(range(300))
    assert [record["expected"] for record in written] == [r.expected or "" for r in dataset.rows]


def test_captions_are_right_wrong_and_odd(dataset: Dataset) -> None:
    fits = Counter(row.fits for row in dataset.rows)
    assert fits[True] > 5 * fits[False] > 0
    notes = {row.note for row in dataset.rows}
    assert {"one attribute wrong: colour", "wholly wrong caption"} <= notes
    captions = [row.cells[2] for row in dataset.rows if len(row.cells) == len(HEADER)]
    for part in ('"', ",", "\n", "\N{SPARKLES}", "   "):
        assert any(part in caption for caption in captions)
    assert max(len(caption.split()) for caption in captions) > 77


def test_urls_and_contents_recur(dataset: Dataset) -> None:
    pairs = Counter(row.cells[1:3] for row in dataset.rows if len(row.cells) == len(HEADER))
    assert max(pairs.values()) > 1
    captions_of: dict[str, set[str]] = {}
    for url, caption in pairs:
        captions_of.setdefault(url, set()).add(caption)
    assert max(len(captions) for captions in captions_of.values()) > 1
    urls = {url for url in captions_of if url.startswith(BASE + "/images/0")}
    contents = {hashlib.sha256(body(dataset, url)).digest() for url in urls}
    assert len(contents) < len(urls)


def test_pictures_to_be_scored_can_be_read_in_every_format(dataset: Dataset) -> None:
    kinds = set()
    for _, data in pictures(dataset):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kinds.add((image.format, image.mode))
            assert min(image.size) >= 96
            assert max(image.size) <= 400
    formats = {kind for kind, _ in kinds}
    assert formats >= {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"}
    assert kinds >= {("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "P"), ("PNG", "RGBA")}


def test_the_huge_picture_is_a_small_file(dataset: Dataset) -> None:
    [bomb] = [row for row in dataset.rows if row.expected is Reason.TOO_MANY_PIXELS]
    data = body(dataset, bomb.cells[1])
    assert len(data) < 1000
    assert data[16:24] == (30_000).to_bytes(4, "big") * 2


def test_the_same_seed_gives_the_same_files_and_another_does_not(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> dict[str, str]:
        folder = tmp_path / name
        make_dataset(folder, rows=40, seed=seed, base_url=BASE)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    first = digest("first", 1)
    assert first == digest("second", 1)
    assert first != digest("third", 2)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 11, 40])
def test_small_data_sets_have_few_oddities_and_the_asked_number_of_rows(
    tmp_path: Path, rows: int
) -> None:
    dataset = make_dataset(tmp_path, rows=rows, base_url=BASE)
    assert len(dataset.rows) == rows
    scored = sum(row.expected is None for row in dataset.rows)
    assert scored >= max(1, rows * 0.7)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        make_dataset(tmp_path, rows=0, base_url=BASE)


def test_the_server_gives_every_row_the_answer_that_its_reason_names(tmp_path: Path) -> None:
    """Asks with a plain client, so that what needs an address guard or a decoder is left out."""
    answers = {
        Reason.HTTP_ERROR: {404, 410, 500},
        Reason.TOO_MANY_REDIRECTS: {302},
        None: {200},
        Reason.NOT_AN_IMAGE: {200},
        Reason.CORRUPT_IMAGE: {200},
        Reason.TOO_MANY_PIXELS: {200},
    }
    with serve(tmp_path) as base_url:
        dataset = make_dataset(tmp_path, base_url=base_url)
        client = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
        for row in dataset.rows:
            if row.expected in answers and row.cells[1].startswith(base_url):
                assert ask(client, row.cells[1]) in answers[row.expected], row
        client.close()


def ask(client: http.client.HTTPConnection, url: str) -> int:
    """The status at the end of at most five redirects and one more try after a 503."""
    status = 0
    for _ in range(6):
        client.request("GET", urlsplit(url).path)
        response = client.getresponse()
        response.read()
        status = response.status
        if status == 302:
            url = response.getheader("Location") or ""
        elif status != 503:
            break
    return status


def test_importing_the_demo_data_costs_no_torch() -> None:
    code = (
        "import sys, pairscore.demo, pairscore.demo.dataset, pairscore.demo.server;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
