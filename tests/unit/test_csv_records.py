"""Reading records with their exact text, against csv.reader."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pairscore.csv_file import records as module
from pairscore.csv_file.records import RecordError, quote_cell, read_records, split_raw

DELIMITERS = st.sampled_from([",", "\t", ";", "|", " ", "é"])
TEXT = st.text(alphabet=st.one_of(st.sampled_from(list("\",;\t| \r\né'a")), st.characters()))


def reads(text: str, delimiter: str = ",", limit: int = module.MAX_RECORD):
    return list(read_records(io.StringIO(text, newline=""), delimiter, limit))


def clean(text: str) -> str:
    return text.replace("\0", "")


@settings(deadline=None)
@given(TEXT.map(clean), DELIMITERS)
@example('a,"b"c",d\r\n"x\ny",\r\r\n\n', ",")
def test_any_text_is_the_records_of_csv_reader_and_joins_to_itself(text, delimiter):
    plain = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    # A line end at the end of an open quote is part of its cell, and of nothing otherwise.
    closed = list(csv.reader(io.StringIO(text + "\n", newline=""), delimiter=delimiter))
    if plain and closed[-1] and closed[-1] != plain[-1]:
        with pytest.raises(RecordError, match="never closed"):
            reads(text, delimiter)
        return
    found = reads(text, delimiter)
    assert [r.cells for r in found] == plain
    assert "".join(r.raw + r.terminator for r in found) == text
    assert all(r.terminator in {"\n", "\r", "\r\n"} for r in found[:-1])


@settings(deadline=None)
@given(TEXT.map(clean), DELIMITERS)
@example('"a""b",""x",y,""', ",")
def test_raw_cells_join_to_the_record_and_read_as_its_cells(text, delimiter):
    try:
        found = reads(text, delimiter)
    except RecordError:
        return
    for record in found:
        parts = split_raw(record.raw, delimiter)
        assert delimiter.join(parts) == record.raw
        values = [reads(part, delimiter)[0].cells[0] if part else "" for part in parts]
        assert values == (record.cells or [""])


@settings(deadline=None)
@given(st.lists(TEXT.map(clean), min_size=2), DELIMITERS)
def test_quoted_cells_read_back_the_same(cells, delimiter):
    row = delimiter.join(quote_cell(cell, delimiter) for cell in cells)
    assert [record.cells for record in reads(row, delimiter)] == [cells]


def test_records_know_the_line_they_start_on():
    found = reads('a,b\r\n"1\n2\n",x\r\n\r\ny,z')
    assert [(r.line, r.cells) for r in found] == [
        (1, ["a", "b"]),
        (2, ["1\n2\n", "x"]),
        (5, []),
        (6, ["y", "z"]),
    ]


def test_a_line_of_blanks_is_a_row_of_one_cell_and_the_last_line_end_starts_no_row():
    assert [r.cells for r in reads("a,b\n  \n\n")] == [["a", "b"], ["  "], []]


@pytest.mark.parametrize("text", ['a,b\nc,"d\ne,f\n', 'a,b\nc,"', 'a,b\nc,"d""'])
def test_a_quote_never_closed_is_told_with_the_line_of_its_row(text):
    with pytest.raises(RecordError, match=r"^line 2: a quote .* never closed"):
        reads(text)


def test_a_nul_is_told_with_its_line():
    with pytest.raises(RecordError, match=r"^line 3: there is a NUL byte"):
        reads('a,b\n"c\nd\0",e\n')


@pytest.mark.parametrize("text", ["a,b\n" + "x" * 101, 'a,b\n"' + "x\n" * 51 + '",y\n'])
def test_a_record_over_the_limit_is_told_with_the_line_it_starts_on(text):
    with pytest.raises(RecordError, match=r"^line 2: .* longer than 100 characters"):
        reads(text, limit=100)


def test_a_record_at_the_limit_is_read():
    assert reads("x" * 98 + ",\n" + "y" * 100, limit=100)[1].cells == ["y" * 100]


def test_a_cell_of_ten_million_characters_is_read():
    big = "x" * 10_000_000
    assert reads(f'u,c\n1,"{big}"\n')[1].cells == ["1", big]
