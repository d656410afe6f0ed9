"""Bodies of uploads: what is in them, and what is no good."""

import gzip
import json
from pathlib import Path

import pytest

from producer.api.problems import Kind, ProblemError
from producer.api.uploads import CsvOptions, Limits, check_csv, check_pairs, open_lines
from shared.settings import KafkaSettings

PAIR = json.dumps({"url": "http://e.org/1", "caption": "c"}).encode()
LIMITS = Limits(row_bytes=10_000, upload_bytes=1_000_000, rows=2_000)


def body(folder: Path, content: bytes, *, packed: bool) -> Path:
    path = folder / "body"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n"])
@pytest.mark.parametrize("run", [0, 1, 99, 100, 101, 250, 700])
def test_blank_lines_are_passed_by_and_counted(tmp_path, run, blank, packed):
    content = blank * run + b"  " + PAIR + b"\n" + blank * run + PAIR + b" \n\n" + PAIR
    path = body(tmp_path, content, packed=packed)
    with open_lines(path, LIMITS) as lines:
        found = [(number, line.strip()) for number, line in lines]
    assert found == [(run + 1, PAIR), (2 * run + 2, PAIR), (2 * run + 4, PAIR)]
    assert check_pairs(path, LIMITS).count == 3


def test_blank_lines_across_buffers_are_counted(tmp_path):
    blank = 3_000_000
    path = body(tmp_path, b" \n" * blank + b"  " + PAIR, packed=True)
    with open_lines(path, Limits(10_000, 10_000_000, rows=blank + 1)) as lines:
        assert list(lines) == [(blank + 1, b"  " + PAIR)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line", [PAIR, b"", b" "])
def test_lines_are_bounded_whatever_is_in_them(tmp_path, line, packed):
    content = PAIR + b"\n" + (line + b"\n") * 5_000
    with pytest.raises(ProblemError, match=r"2,000 rows at most") as caught:
        check_pairs(body(tmp_path, content, packed=packed), LIMITS)
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line", [b"u,c", b"", b'"', b'"u', b'"\n"'])
def test_rows_of_a_csv_are_bounded_whatever_is_in_them(tmp_path, line, packed):
    content = b"url,caption\n" + (line + b"\n") * 5_000
    with pytest.raises(ProblemError) as caught:
        check_csv(
            body(tmp_path, content, packed=packed),
            CsvOptions(delimiter=","),
            KafkaSettings(),
            Limits(row_bytes=10_000, upload_bytes=100_000, rows=2_000),
        )
    assert "2,000 rows" in str(caught.value.detail) or "quote" in str(caught.value.detail)


def test_what_unpacks_to_more_is_refused_before_it_is_read(tmp_path):
    content = b'url,caption\n"' + b"\n" * 2_000_000
    with pytest.raises(ProblemError, match="longer than 1,000,000 bytes unpacked") as caught:
        check_csv(body(tmp_path, content, packed=True), CsvOptions(), KafkaSettings(), LIMITS)
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_is_too_long_is_not_read_to_its_end(tmp_path, packed):
    path = body(tmp_path, PAIR + b"\n" + b"a" * 1_500_000, packed=packed)
    with pytest.raises(ProblemError, match="line 2: it is longer than 1,000,000 bytes") as caught:
        check_pairs(path, Limits(10_000, 5_000_000, rows=9))
    assert (caught.value.kind, caught.value.line) == (Kind.INVALID, 2)
