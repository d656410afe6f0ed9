"""Messages: what goes in comes out, and what is none of ours is a `Rejection`, never an error."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pairscore.pair import Failure, Outcome, Reason, Score
from shared.examples import EXAMPLES
from shared.messages import (
    CancellationMessage,
    CsvFormat,
    Defect,
    JobMessage,
    JobState,
    PairMessage,
    Rejection,
    ScoreMessage,
    check_job,
    decode,
    key_of,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
PAIR = EXAMPLES["pair"][0]
KINDS = (PairMessage, ScoreMessage, JobMessage, CancellationMessage)

# Every character but surrogates, which no UTF-8 text has.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
jobs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
times = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
)
rows = st.integers(0, (1 << 62) - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
pairs = st.builds(
    PairMessage,
    job=jobs,
    row=rows,
    url=texts,
    caption=texts,
    columns=st.lists(texts, max_size=4).map(tuple),
    raw=st.none() | texts,
    width=st.none() | st.integers(1, 1000),
    attempt=st.integers(1, 9),
    created_at=times,
)
outcomes: st.SearchStrategy[Outcome] = st.builds(
    Score,
    similarity=numbers,
    cosine=numbers,
    caption_truncated=st.booleans(),
    image_sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    attempts=st.integers(0, 9),
) | st.builds(
    Failure,
    reason=st.sampled_from(Reason),
    detail=texts,
    attempts=st.integers(0, 9),
    image_sha256=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
formats = st.builds(
    CsvFormat,
    delimiter=st.characters(exclude_categories=["Cs"], exclude_characters='"\r\n\0'),
    terminator=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    header_raw=st.none() | texts,
    dropped=st.lists(st.integers(0, 100), max_size=3).map(tuple),
    details=st.booleans(),
    output_name=st.just("challenge_scored.csv"),
)


def job_message(**changes) -> JobMessage:
    fields = {
        "job": "j",
        "source": "api",
        "rows_published": 3,
        "state": "open",
        "created_at": NOW,
        **changes,
    }
    return JobMessage.model_validate(fields)


def rejection(kind, value: bytes | None, **options) -> Rejection:
    found = decode(kind, value, **options)
    assert isinstance(found, Rejection)
    assert found.detail.isprintable()
    return found


def changed(message, **changes) -> bytes:
    return json.dumps({**json.loads(message.encode()), **changes}).encode()


@given(pairs)
def test_a_pair_comes_out_as_it_went_in(message):
    assert decode(PairMessage, message.encode()) == message


@given(pairs, outcomes, times)
def test_a_score_comes_out_as_it_went_in(pair, outcome, now):
    message = ScoreMessage.of(pair, outcome, model="m", scored_at=now)
    found = decode(ScoreMessage, message.encode())
    assert found == message
    assert isinstance(found, ScoreMessage)
    assert (found.job, found.row, found.url, found.caption) == (
        pair.job,
        pair.row,
        pair.url,
        pair.caption,
    )
    assert (found.columns, found.raw) == (pair.columns, pair.raw)
    assert found.attempts == outcome.attempts + pair.attempt - 1
    assert found.outcome.image_sha256 == outcome.image_sha256
    if isinstance(outcome, Score):
        assert isinstance(found.outcome, Score)
        assert found.outcome.similarity == outcome.similarity
        assert found.outcome.cosine == outcome.cosine
        assert found.outcome.caption_truncated == outcome.caption_truncated
    else:
        assert isinstance(found.outcome, Failure)
        assert found.outcome.error == outcome.error


@given(jobs, times)
def test_a_cancellation_comes_out_as_it_went_in(job, now):
    message = CancellationMessage(job=job, cancelled_at=now)
    assert decode(CancellationMessage, message.encode()) == message


@given(
    jobs, texts, st.lists(texts, max_size=4).map(tuple), st.none() | formats, rows, st.booleans()
)
def test_a_job_comes_out_as_it_went_in(job, source, header, csv, published, closed):
    message = job_message(
        job=job,
        source=source,
        header=header,
        csv=csv,
        rows_published=published,
        rows=published if closed else None,
        state=JobState.CLOSED if closed else JobState.OPEN,
    )
    assert decode(JobMessage, message.encode()) == message


@pytest.mark.parametrize("name", EXAMPLES)
def test_fields_of_a_newer_producer_are_ignored(name):
    for message in EXAMPLES[name]:
        newer = changed(message, shoe_size=46, nested={"deep": [1, None]})
        assert decode(type(message), newer) == message


@pytest.mark.parametrize("kind", KINDS)
@given(value=st.binary(max_size=200))
def test_no_bytes_at_all_raise(kind, value):
    found = decode(kind, value)
    assert isinstance(found, Rejection)
    assert "\n" not in found.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("name", EXAMPLES)
@given(data=st.data())
def test_no_value_of_a_field_raises(name, data):
    message = data.draw(st.sampled_from(EXAMPLES[name]))
    field = data.draw(st.sampled_from(sorted(type(message).model_fields)))
    found = decode(type(message), changed(message, **{field: data.draw(json_values)}))
    assert isinstance(found, Rejection | type(message))
    if isinstance(found, Rejection):
        assert "\n" not in found.detail


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"{",
        b'{"v": 1,}',
        b"[" * 100_000,
        b'{"row": ' + b"9" * 9_999 + b"}",
        b'{"job": "\xed\xa0\x80"}',
    ],
)
def test_what_is_no_json_is_undecodable(value):
    assert rejection(PairMessage, value).defect is Defect.UNDECODABLE


@pytest.mark.parametrize("half", ["\\ud800", "\\udfff", "a\\udc00\\ud800b", "\\ud800x"])
@pytest.mark.parametrize("field", ["url", "caption", "job"])
def test_half_a_character_is_undecodable(field, half):
    value = PAIR.encode().replace(f'"{field}":"'.encode(), f'"{field}":"{half}'.encode())
    assert rejection(PairMessage, value).defect is Defect.UNDECODABLE


@pytest.mark.parametrize("version", [0, 2, 10**9, "1", "2\n", None, 1.5, [], {"a": "b" * 100}])
def test_another_version_is_named(version):
    # Whatever else is wrong with it: the fields of that version are not known.
    value = json.dumps({"v": version, "row": -1}).encode()
    found = rejection(PairMessage, value)
    assert found.defect is Defect.UNKNOWN_VERSION
    assert found.detail.startswith(f"version {version!r:.40}, known is 1")


def test_a_message_without_a_version_is_of_the_first():
    fields = json.loads(PAIR.encode())
    del fields["v"]
    assert decode(PairMessage, json.dumps(fields).encode()) == PAIR


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job", ""),
        ("job", "../up"),
        ("job", ".hidden"),
        ("job", "a/b"),
        ("job", "a\n"),
        ("job", "a" * 129),
        ("row", -1),
        ("row", 1 << 62),
        ("row", "5"),
        ("row", True),
        ("row", 1.5),
        ("url", None),
        ("caption", 7),
        ("columns", "abc"),
        ("columns", ["a", 1]),
        ("width", 0),
        ("attempt", 0),
        ("created_at", "2026-01-01T00:00:00"),
        ("created_at", "yesterday"),
        ("created_at", 1_700_000_000),
    ],
)
def test_a_field_that_is_wrong_is_named(field, value):
    found = rejection(PairMessage, changed(PAIR, **{field: value}))
    assert found.defect is Defect.INVALID
    assert found.detail.startswith(field)


@pytest.mark.parametrize("field", ["job", "row", "url", "caption", "created_at"])
def test_a_field_that_is_missing_is_named(field):
    fields = json.loads(PAIR.encode())
    del fields[field]
    found = rejection(PairMessage, json.dumps(fields).encode())
    assert found == Rejection(Defect.INVALID, f"{field}: Field required")


@pytest.mark.parametrize("value", [b"[]", b"null", b"7", b'"text"'])
def test_json_that_is_no_object_is_invalid(value):
    assert rejection(PairMessage, value).defect is Defect.INVALID


def test_a_message_over_the_limit_is_oversized():
    value = PAIR.encode()
    assert decode(PairMessage, value, max_bytes=len(value)) == PAIR
    found = rejection(PairMessage, value, max_bytes=len(value) - 1)
    assert found.defect is Defect.OVERSIZED
    assert str(len(value)) in found.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"similarity": None},
        {"cosine": None},
        {"error": "timeout"},
        {"similarity": None, "error": "no_such_reason"},
    ],
)
def test_a_score_is_a_similarity_or_an_error(changes):
    found = rejection(ScoreMessage, changed(EXAMPLES["score"][0], **changes))
    assert found.defect is Defect.INVALID


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_similarity_is_a_number(number):
    found = rejection(ScoreMessage, changed(EXAMPLES["score"][0], similarity=number))
    assert found.defect in {Defect.INVALID, Defect.UNDECODABLE}


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "closed"},
        {"state": "closed", "rows": 2},
        {"state": "open", "rows": 3},
        {"rows_published": -1},
        {"state": "ajar"},
    ],
)
def test_a_closed_job_has_the_rows_that_were_published(changes):
    with pytest.raises(ValidationError):
        job_message(**changes)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "é" * 121])
def test_a_result_is_a_file_and_never_a_path(name):
    with pytest.raises(ValidationError):
        CsvFormat(output_name=name)


@pytest.mark.parametrize("name", ["a", "A.b_c-d", "0" * 128])
def test_a_job_may_have_the_name_of_a_folder(name):
    assert check_job(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a b", "a/b", "é", "0" * 129, "a\n"])
def test_what_could_be_another_folder_is_no_name_of_a_job(name):
    with pytest.raises(ValueError, match="cannot be a job's name"):
        check_job(name)


@given(texts)
def test_rows_of_one_url_have_one_key(url):
    assert key_of(url) == url.encode()


def test_a_url_that_nobody_could_ask_for_has_a_short_key():
    long = "https://a.example/" + "x" * 9_000
    assert key_of(long) == key_of(long)
    assert key_of(long) != key_of(long + "y")
    assert len(key_of(long)) < 100
