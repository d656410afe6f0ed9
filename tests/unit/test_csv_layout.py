"""Writing rows: the input's text unchanged, the new cells in the new columns."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairscore.csv_file.layout import Layout, malformation, new_columns
from pairscore.csv_file.records import Record, RecordError, read_records
from pairscore.pair import Failure, Reason, Score

SCORE = Score(24.56789, 0.2456789, True, "ab" * 32, 2)
LOST = Failure(Reason.HTTP_ERROR, "404", attempts=3)
DELIMITERS = st.sampled_from([",", "\t", ";", "|", "4", "."])
TERMINATORS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(alphabet=st.one_of(st.sampled_from(list('",;\t| \r\né4.')), st.characters()))
OUTCOMES = st.one_of(
    st.builds(
        Score,
        st.floats(-100, 100),
        st.floats(-1, 1),
        st.booleans(),
        st.just("cd" * 32),
        st.integers(0, 9),
    ),
    st.builds(
        Failure,
        st.sampled_from(Reason),
        st.text(),
        st.integers(0, 9),
        st.sampled_from([None, "ef" * 32]),
    ),
)


def record_of(text: str, delimiter: str = ",") -> Record:
    return next(read_records(io.StringIO(text, newline=""), delimiter))


def parse(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


@settings(deadline=None)
@given(
    text=TEXT.map(lambda t: t.replace("\0", "")),
    delimiter=DELIMITERS,
    terminator=TERMINATORS,
    width=st.integers(2, 5),
    details=st.booleans(),
    outcome=OUTCOMES,
    dropped=st.sets(st.integers(2, 4)),
)
def test_every_row_is_one_record_of_the_old_cells_and_the_new(
    text, delimiter, terminator, width, details, outcome, dropped
):
    try:
        records = list(read_records(io.StringIO(text, newline=""), delimiter))
    except RecordError:
        return
    dropped = frozenset(i for i in dropped if i < width)
    layout = Layout(delimiter, terminator, width, details, dropped)
    for record in records:
        row = layout.row(record, outcome)
        assert row.endswith(terminator)
        (cells,) = parse(row, delimiter)
        old = (record.cells + [""] * width)[: max(width, len(record.cells))]
        new = len(new_columns(details))
        kept = layout.kept
        assert cells[:kept] == [c for i, c in enumerate(old[:width]) if i not in dropped]
        assert cells[kept + new :] == old[width:]
        similarity, error = cells[kept : kept + 2]
        if isinstance(outcome, Score):
            assert float(similarity) == pytest.approx(outcome.similarity, abs=6e-5)
            assert error == ""
        else:
            assert similarity == ""
            assert error.split(":")[0] == outcome.reason.value
            assert error.isprintable()
        if len(record.cells) == width and not dropped:
            assert row.encode().startswith(record.raw.encode())


@settings(deadline=None)
@given(TEXT.map(lambda t: "a" + t.replace("\0", "")), OUTCOMES, st.booleans(), TERMINATORS)
def test_a_written_row_is_recognised_and_no_other_is(text, outcome, details, terminator):
    try:
        record, *others = read_records(io.StringIO(text, newline=""), ",")
    except RecordError:
        return
    layout = Layout(",", terminator, 3, details)
    row = layout.row(record, outcome)
    expected = None if isinstance(outcome, Score) else outcome.reason
    assert layout.recognise(record_of(row), record) == expected
    for other in others:
        if layout.frame(other) != layout.frame(record):
            with pytest.raises(ValueError):  # noqa: PT011 - any, as the caller takes it
                layout.recognise(record_of(row), other)


@pytest.mark.parametrize(
    "written",
    [
        "u,c,24.5679,\r\n",
        "u,c,24.5679,",
        "u,c,24.56,\n",
        "u,c,,\n",
        "u,c,24.5679\n",
        "u,c,24.5679,,\n",
        "u,c,24.5679,http_error\n",
        "u,c,,no_reason: x\n",
        "u,x,24.5679,\n",
    ],
)
def test_a_row_that_was_not_written_so_is_not_recognised(written):
    with pytest.raises(ValueError):  # noqa: PT011 - any, as the caller takes it
        Layout(",", "\n", 2, details=False).recognise(record_of(written), record_of("u,c\n"))


@pytest.mark.parametrize(
    ("raw", "outcome", "details", "row"),
    [
        ("u,c", SCORE, False, "u,c,24.5679,"),
        ("u,c", SCORE, True, f"u,c,24.5679,,0.245679,true,{'ab' * 32},2"),
        ("u,c", LOST, False, "u,c,,http_error: 404"),
        ("u,c", LOST, True, "u,c,,http_error: 404,,,,3"),
        ('"u" ,"c ""x"""', SCORE, False, '"u" ,"c ""x""",24.5679,'),
        ("u", LOST, False, "u,,,http_error: 404"),
        ("", LOST, False, ",,,http_error: 404"),
        ('u,"c,d",e,"f"', LOST, False, 'u,"c,d",,http_error: 404,e,"f"'),
        ("u,c", Failure(Reason.DNS_ERROR, "a, b\n\0\ud800"), False, 'u,c,,"dns_error: a, b   "'),
        ("u,c", Score(-0.00001, -1e-9, False, "", 0), True, "u,c,0.0000,,0.000000,false,,0"),
    ],
)
def test_rows_look_so(raw, outcome, details, row):
    record = record_of(raw + "\n")
    assert Layout(",", "\n", 2, details).row(record, outcome) == row + "\n"


def test_dropped_columns_are_left_out_of_header_and_rows():
    layout = Layout(";", "\r\n", 4, details=False, dropped=frozenset({1, 3}))
    assert layout.header(record_of("url;error;caption;similarity\n", ";")) == (
        "url;caption;similarity;error\r\n"
    )
    assert layout.row(record_of('u;"x;y";c;9;z\n', ";"), SCORE) == "u;c;24.5679;;z\r\n"
    assert layout.row(record_of("u;x\n", ";"), LOST) == "u;;;http_error: 404\r\n"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ("u,c", None),
        (",", None),
        ("", "malformed_row: empty line"),
        ("  ", "malformed_row: 1 cell under 2 columns"),
        ("u,c,d", "malformed_row: 3 cells under 2 columns"),
    ],
)
def test_only_a_wrong_number_of_cells_makes_a_row_malformed(raw, error):
    failure = malformation(len(record_of(raw + "\n").cells), 2)
    assert (failure and failure.error) == error
