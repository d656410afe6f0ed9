"""A row becomes the message that the model has, and its text can be had back from it."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pairscore.csv_file import Survey
from pairscore.csv_file.columns import Column
from pairscore.csv_file.dialect import Dialect
from pairscore.csv_file.layout import Layout
from pairscore.csv_file.records import Record, RecordError, quote_cell, read_records
from producer.encoding import RowEncoder, exact_text, most_bytes
from shared.messages import PairMessage, Rejection, decode, key_of

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
CSV_TEXT = st.text(st.sampled_from('a ,;"\r\n\t\\/é\u2028\U0001f600\x01\x7f'), max_size=30)


def survey(delimiter: str = ",", width: int = 3, url: int = 1, caption: int = 2) -> Survey:
    return Survey(
        path=Path("in.csv"),
        dialect=Dialect(delimiter, "\n", bom=False),
        header=Record(1, ["id", "url", "caption"], "id,url,caption", "\n"),
        url=Column(url, "url"),
        caption=Column(caption, "caption"),
        layout=Layout(delimiter, "\n", width, details=False),
        rows=0,
        longest=0,
        sha256="0" * 64,
        stamp=(0, 0),
        notes=(),
    )


def read(text: str, delimiter: str = ",") -> list[Record]:
    try:
        return list(read_records(io.StringIO(text, newline=""), delimiter))
    except RecordError:
        return []


def decoded(value: bytes) -> PairMessage:
    message = decode(PairMessage, value)
    assert not isinstance(message, Rejection), message
    return message


@given(st.lists(TEXT, max_size=5), st.integers(0, 2**40))
@example(["1", "https://example.org/é.jpg", 'a "quoted"\r\ncaption'], 7)
@example(["1", "https://" + "x" * 9000, "a key that is a digest"], 7)
def test_a_row_is_the_message_that_the_model_makes(cells, row):
    record = Record(2, cells, ",".join(quote_cell(cell, ",") for cell in cells), "\n")
    key, value = RowEncoder("a-job", survey()).encode(row, record, NOW)
    expected = PairMessage(
        job="a-job",
        row=row,
        url=cells[1] if len(cells) > 1 else "",
        caption=cells[2] if len(cells) > 2 else "",
        columns=tuple(cells),
        raw=None,
        width=3,
        created_at=NOW,
    )
    assert value == expected.encode()
    assert decoded(value) == expected
    assert key == key_of(expected.url)


@given(CSV_TEXT, st.sampled_from([",", ";", "\t", " "]))
@example('"a","b"\n', ",")
@example('""\n', ",")
@example('a "b" c,d\n', ",")
@example('"a"b,c\n', ",")
def test_the_text_of_every_record_can_be_had_back(text, delimiter):
    encoder = RowEncoder("a-job", survey(delimiter))
    for record in read(text, delimiter):
        message = decoded(encoder.encode(0, record, NOW)[1])
        plain = delimiter.join(quote_cell(cell, delimiter) for cell in message.columns)
        assert message.columns == tuple(record.cells)
        assert (plain if message.raw is None else message.raw) == record.raw
        assert message.raw is None or plain != record.raw


def test_text_is_sent_twice_only_where_it_must_be():
    plain, quoted, needlessly = read('a,b c\n"a,b",c\n"a",b\n')
    assert exact_text(plain, ",") is None
    assert exact_text(quoted, ",") is None
    assert exact_text(needlessly, ",") == '"a",b'


@pytest.mark.parametrize(
    ("text", "url", "caption"),
    [("\n", "", ""), ("1\n", "", ""), ("1,u\n", "u", ""), ("1,u,c,more\n", "u", "c")],
)
def test_a_malformed_row_has_what_is_in_its_place(text, url, caption):
    [record] = read(text)
    message = decoded(RowEncoder("a-job", survey()).encode(0, record, NOW)[1])
    assert (message.url, message.caption) == (url, caption)
    assert (message.columns, message.width) == (tuple(record.cells), 3)


@given(CSV_TEXT.filter(bool) | st.text(st.sampled_from('"\x01,\U0001f600'), min_size=1))
def test_no_message_is_longer_than_its_row_can_make_it(text):
    encoder = RowEncoder("j" * 128, survey(url=0, caption=1, width=10**6))
    for record in read(text):
        _, value = encoder.encode(2**62 - 1, record, NOW)
        assert len(value) <= most_bytes(len(record.raw))


def test_a_row_of_control_characters_is_no_longer_than_said():
    [record] = read("\x01" * 1000 + "," + "\x01" * 1000 + '\\,"\x01"\n')
    encoder = RowEncoder("a-job", survey(url=0, caption=1))
    size = len(encoder.encode(0, record, NOW)[1])
    assert 3 * 6 * 2000 < size <= most_bytes(len(record.raw))
