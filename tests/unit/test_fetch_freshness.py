"""How long a response is fresh, and what of it can be asked for again."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pairscore.fetch.freshness import (
    entity_tag,
    last_change,
    lifetime_left,
    parse_date,
    read_fields,
)
from pairscore.fetch.request import Validators, describe

NOW = datetime(2025, 7, 1, 10, 0, 0, tzinfo=UTC).timestamp()
DATE = "Date: Tue, 01 Jul 2025 09:00:00 GMT"
HOUR, DAY = 3600.0, 86400.0


def fields_of(*lines):
    return read_fields([line.encode("latin-1") + b"\r\n" for line in lines])


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["Cache-Control: max-age=60"], 60),
        (["cache-control:public,MAX-AGE=60 , immutable"], 60),
        (["CACHE-CONTROL: public", "Cache-Control: max-age=60"], 60),
        (['Cache-Control: max-age="60"'], 60),
        (['Cache-Control: ext="no-store, max-age=5", max-age=60'], 60),
        (["Cache-Control: max-age=60, max-age=60"], 60),
        (["Cache-Control: max-age=60, s-maxage=5, private"], 60),
        (["Cache-Control: max-age=60, stale-while-revalidate=600"], 60),
        (["Cache-Control: max-age=99999999999999999999"], 2**31),
        (["Cache-Control: max-age=" + "9" * 6000], 2**31),
        (["Cache-Control: max-age=60", DATE, "Expires: Wed, 02 Jul 2025 09:00:00 GMT"], 60),
        (["Cache-Control: max-age=60", "Expires: 0"], 60),
        ([DATE, "Expires: Tue, 01 Jul 2025 10:00:00 GMT"], HOUR),
        (["Expires: Tue, 01 Jul 2025 11:00:00 GMT"], HOUR),
        (["Date: yesterday", "Expires: Tue, 01 Jul 2025 11:00:00 GMT"], HOUR),
        ([DATE, *["Expires: Tue, 01 Jul 2025 10:00:00 GMT"] * 2], HOUR),
        ([DATE, "Cache-Control: public", "Expires: Tue, 01 Jul 2025 10:00:00 GMT"], HOUR),
    ],
)
def test_what_is_said_explicitly_counts_and_max_age_before_expires(lines, seconds):
    assert lifetime_left(fields_of(*lines), NOW) == seconds


@pytest.mark.parametrize(
    "lines",
    [
        ["Cache-Control: no-store, max-age=60"],
        ["Cache-Control: max-age=60", "Cache-Control: No-Cache"],
        ['Cache-Control: max-age=60, no-cache="Set-Cookie"'],
        ["Cache-Control: max-age=0"],
        ["Cache-Control: max-age"],
        ["Cache-Control: max-age="],
        ["Cache-Control: max-age=-1"],
        ["Cache-Control: max-age=1.5"],
        ["Cache-Control: max-age = 60"],
        ["Cache-Control: max-age=\xb2"],
        ["Cache-Control: max-age=60, max-age=70"],
        ['Cache-Control: max-age=60, ext="a, no-store'],
        [DATE, "Expires: 0"],
        [DATE, "Expires:"],
        [DATE, "Expires: Tue, 01 Jul 2025 08:00:00 GMT"],
        ["Expires: Tue, 01 Jul 2025 09:59:59 GMT"],
        ["Expires: Wed, 02 Jul 2025 10:00:00 GMT", "Expires: Thu, 03 Jul 2025 10:00:00 GMT"],
        [DATE, "Expires: -1", "Last-Modified: Mon, 30 Jun 2025 09:00:00 GMT"],
        ["Cache-Control: max-age=60", "Age: 61"],
        [DATE, "Last-Modified: Wed, 02 Jul 2025 09:00:00 GMT"],
    ],
)
def test_what_forbids_or_contradicts_or_is_past_is_stale(lines):
    assert lifetime_left(fields_of(*lines), NOW) == 0.0


@pytest.mark.parametrize(
    ("age", "left"),
    [("Age: 10", 50), ("age:60", 0), ("Age: 10, 20", 50), ("Age: -5", 60), ("Age: old", 60)],
)
def test_age_is_taken_off(age, left):
    assert lifetime_left(fields_of("Cache-Control: max-age=60", age), NOW) == left


def test_the_first_of_several_ages_counts():
    fields = fields_of("Age: 10", "Cache-Control: max-age=60", "Age: 50")
    assert lifetime_left(fields, NOW) == 50


def test_a_tenth_of_the_time_since_the_last_change_is_the_guess():
    modified = "Last-Modified: Mon, 30 Jun 2025 09:00:00 GMT"
    assert lifetime_left(fields_of(DATE, modified), NOW) == pytest.approx(DAY / 10)
    assert lifetime_left(fields_of(modified), NOW) == pytest.approx((DAY + HOUR) / 10)
    public = fields_of(DATE, modified, "Cache-Control: public", "Age: 640")
    assert lifetime_left(public, NOW) == pytest.approx(DAY / 10 - 640)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [DATE],
        ["Cache-Control: immutable, public"],
        ["Cache-Control: s-maxage=60"],
        ["Cache-Control:"],
        ["Age: 5"],
        ["Last-Modified: once"],
    ],
)
def test_where_nothing_is_said_nothing_is_known(lines):
    assert lifetime_left(fields_of(*lines), NOW) is None


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_dates_of_all_three_forms_are_read(text):
    assert parse_date(text, NOW) == 784111777
    assert last_change(fields_of(f"Last-Modified:  {text} ")) == text


def test_two_digits_are_a_year_at_most_fifty_years_ahead():
    for digits, year in (("25", 2025), ("75", 2075), ("76", 1976), ("00", 2000), ("99", 1999)):
        date = parse_date(f"Sunday, 06-Nov-{digits} 00:00:00 GMT", NOW)
        assert date == datetime(year, 11, 6, tzinfo=UTC).timestamp()


def test_a_leap_second_is_a_second():
    leap = parse_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)
    assert leap == parse_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT; x",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_date_is_none(text):
    assert parse_date(text, NOW) is None


@pytest.mark.parametrize("text", ["yesterday", "1994-11-06", "06 Nov 1994\r\nX: y", "Sun\xe9"])
def test_a_last_modified_that_is_no_date_is_not_asked_by(text):
    assert last_change(fields_of(f"Last-Modified: {text}")) is None


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', '""', '"a,b;c\\"', f'"{"x" * 254}"'])
def test_an_etag_is_kept_as_it_was_sent(etag):
    assert entity_tag(fields_of(f"ETag: {etag}")) == etag
    assert entity_tag(fields_of(f"etag:{etag}", f"ETAG: {etag}\t")) == etag


@pytest.mark.parametrize(
    "etag", ["", "a", "*", '"a', 'w/"a"', '"a" "b"', '"a b"', '"\xe9"', '"\x01"', f'"{"x" * 255}"']
)
def test_what_is_no_etag_or_too_long_is_none(etag):
    assert entity_tag(fields_of(f"ETag: {etag}")) is None


def test_validators_that_contradict_each_other_are_none():
    assert entity_tag(fields_of('ETag: "a"', 'ETag: "b"')) is None
    dates = fields_of(
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT",
    )
    assert last_change(dates) is None


NAMES = [
    *[b"Cache-Control", b"ETag", b"Expires", b"Last-Modified", b"Date", b"Age", b"X-Robots-Tag"]
]
VALUES = [
    *[b"max-age", b"=", b",", b'"', b"\\", b"no-store", b"60", b"9" * 400, b"-1", b"inf", b"nan"],
    *[b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b'W/"', b"\0", b"\xb2"],
    *[b"Fri, 31 Dec 9999 23:59:59 GMT", b"Sat Jan  1 00:00:00 0001", b"\r\n", b" ", b"noindex"],
]
values = st.lists(st.sampled_from(VALUES) | st.binary(max_size=6), max_size=6).map(b"".join)
known_lines = st.builds(lambda name, value: name + b": " + value, st.sampled_from(NAMES), values)


@hypothesis_settings(deadline=None, max_examples=500)
@given(st.lists(known_lines | st.binary(max_size=60), max_size=8), st.floats(0, 4e9))
@example([b"Expires: Fri, 31 Dec 9999 23:59:59 GMT", b"Date: Sat Jan  1 00:00:00 0001"], NOW)
def test_whatever_bytes_come_end_in_values(lines, now):
    origin = describe("http://example.org/", lines, now)
    assert origin.lifetime is None or (math.isfinite(origin.lifetime) and origin.lifetime >= 0)
    for text in (origin.etag, origin.last_modified):
        assert text is None or (text and text.isascii() and text.isprintable())
    known = Validators(origin.url, origin.etag, origin.last_modified)
    assert len(known.condition) == (origin.etag is not None) + (origin.last_modified is not None)


@pytest.mark.parametrize("text", ['"a"\r\nHost: other.example', '"\xe9"', "a\0b"])
def test_validators_that_could_not_be_sent_are_refused(text):
    for etag, changed in ((text, None), (None, text)):
        with pytest.raises(ValueError, match="no validator"):
            Validators("http://example.org/", etag, changed)
