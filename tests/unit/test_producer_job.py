"""What a CSV's job is called, what is said of it, and when it is not the same job any more."""

import gzip
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairscore.csv_file import Survey, survey_input
from pairscore.csv_file.columns import Column
from pairscore.csv_file.dialect import Dialect
from pairscore.csv_file.layout import Layout
from pairscore.csv_file.records import Record
from pairscore.errors import InputError
from producer.job import CsvJob, continue_job, describe_job, name_job, read_deadline
from shared.messages import JobMessage, JobState, check_job, decode

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PLAIN = b"url,caption\nu,c\n"
SURVEY = Survey(
    path=Path("in.csv"),
    dialect=Dialect(",", "\n", bom=False),
    header=Record(1, ["url", "caption"], "url,caption", "\n"),
    url=Column(0, "url"),
    caption=Column(1, "caption"),
    layout=Layout(",", "\n", 2, details=False),
    rows=1,
    longest=3,
    sha256="0" * 64,
    stamp=(0, 0),
    notes=(),
)


@pytest.fixture
def folder(tmp_path):
    def survey(name="in.csv", data=PLAIN, **options):
        path = tmp_path / name
        path.write_bytes(data)
        return survey_input(path, **options)

    return survey


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("challenge_set.csv", "challenge_set"),
        ("a.b.csv", "a.b"),
        ("pairs", "pairs"),
        ("Übung 1 (neu).csv", "bung-1-neu-"),
        (".csv", "job"),
        ("...csv", "job"),
        ("_x.csv", "x"),
        ("x" * 200 + ".csv", "x" * 115),
    ],
)
def test_a_job_is_named_after_the_file_and_its_content(folder, name, stem):
    survey = folder(name)
    assert name_job(None, survey) == check_job(f"{stem}-{survey.sha256[:12]}")


def test_a_packed_file_has_its_name_without_either_suffix(folder):
    survey = folder("pairs.csv.gz", gzip.compress(PLAIN, mtime=0))
    assert name_job(None, survey) == f"pairs-{survey.sha256[:12]}"


def test_other_content_has_another_name_and_the_same_the_same(folder):
    first = name_job(None, folder())
    assert name_job(None, folder()) == first
    assert name_job(None, folder(data=PLAIN + b"u,d\n")) != first


def test_a_name_that_was_given_is_taken_or_refused(folder):
    assert name_job("my-job.2", folder()) == "my-job.2"
    for name in ("", "-x", "a/b", "..", "a b", "x" * 129, "é", "a\n"):
        with pytest.raises(InputError, match=r"^--job: .* cannot be a job's name"):
            name_job(name, folder())


def test_a_job_says_how_its_file_is_written(folder):
    data = b'\xef\xbb\xbf"id";error;url;caption\r\n1;x;u;c\r\n'
    survey = folder("challenge_set.csv", data, details=True, overwrite=True)
    job = describe_job("a-job", survey, NOW)
    assert (job.source, job.source_sha256) == ("challenge_set.csv", survey.sha256)
    assert job.header == ("id", "error", "url", "caption")
    assert (job.url_column, job.caption_column) == (2, 3)
    assert job.csv is not None
    assert job.csv.model_dump() == {
        "delimiter": ";",
        "terminator": "\r\n",
        "bom": True,
        "header_raw": '"id";error;url;caption',
        "dropped": (1,),
        "details": True,
        "output_name": "challenge_scored.csv",
    }
    assert (job.state, job.rows_published, job.rows) == (JobState.OPEN, 0, None)


def test_others_read_it_as_the_message_that_all_jobs_have(folder):
    job = describe_job("a-job", folder(), NOW)
    for said in (job, job.published(1), job.closed(1)):
        read = decode(JobMessage, said.encode())
        assert read == JobMessage(**said.model_dump(exclude={"url_column", "caption_column"}))
        assert decode(CsvJob, said.encode()) == said
    assert (job.closed(1).rows, job.closed(1).state) == (1, JobState.CLOSED)
    assert (job.published(1).rows_published, job.published(1).state) == (1, JobState.OPEN)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("x" * 230 + ".csv", "scored.csv"),
        ("x" * 230 + ".gz", "scored.csv.gz"),
        ("x" * 220 + ".csv", "x" * 220 + "_scored.csv"),
        (b"\xff.csv".decode(errors="surrogateescape"), "\\udcff_scored.csv"),
    ],
)
def test_the_result_has_a_name_that_a_file_can_have(folder, name, output):
    job = describe_job("a-job", folder(name), NOW)
    assert job.csv is not None
    assert job.csv.output_name == output
    assert decode(CsvJob, job.encode()) == job


def test_an_unknown_job_begins_and_the_same_one_goes_on(folder):
    wanted = describe_job("a-job", folder(), NOW)
    assert continue_job(None, wanted) is wanted
    found = describe_job("a-job", folder(), datetime(2025, 1, 1, tzinfo=UTC)).published(5)
    assert continue_job(found, wanted) is found


def test_a_file_of_another_name_and_the_same_content_goes_on_with_the_job(folder):
    found = describe_job("a-job", folder("before.csv"), NOW).published(1)
    assert continue_job(found, describe_job("a-job", folder("after.csv"), NOW)) is found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"details": True}, "details was False and is True"),
        ({"url_column": "other"}, "the column of image URLs was 0 and is 2"),
        ({"caption_column": "other"}, "the column of captions was 1 and is 2"),
    ],
)
def test_other_options_are_another_job(folder, options, said):
    data = b"url,caption,other\nu,c,o\n"
    found = describe_job("a-job", folder(data=data), NOW)
    wanted = describe_job("a-job", folder(data=data, **options), NOW)
    with pytest.raises(InputError, match=rf"^job a-job .*\({said}\); choose another .*--job"):
        continue_job(found, wanted)


def test_other_content_is_another_job_and_only_that_is_said(folder):
    found = describe_job("a-job", folder(data=b"url;caption\nu;c\n"), NOW)
    with pytest.raises(InputError, match=r"\(the file's sha256 was '\w+' and is '\w+'\)"):
        continue_job(found, describe_job("a-job", folder(), NOW))


@given(st.text(min_size=1, max_size=300))
def test_whatever_a_file_is_called_its_job_has_a_legal_name(name):
    named = replace(SURVEY, path=Path("folder") / name.replace("/", ""))
    job = name_job(None, named)
    assert check_job(job) == job
    assert job.endswith("-" + "0" * 12)


def test_a_deadline_that_is_given_later_is_the_jobs_until_it_is_closed(folder):
    survey = folder()
    deadline = datetime(2026, 1, 3, tzinfo=UTC)
    begun = describe_job("a-job", survey, NOW).published(0)
    wanted = describe_job("a-job", survey, NOW, deadline)
    assert wanted.deadline == deadline
    assert continue_job(begun, wanted).deadline == deadline
    later = describe_job("a-job", survey, NOW, deadline + timedelta(days=1))
    assert continue_job(wanted, later).deadline == deadline
    assert continue_job(wanted, describe_job("a-job", survey, NOW)).deadline == deadline
    assert continue_job(begun.closed(1), wanted).deadline is None


@pytest.mark.parametrize(
    ("given", "hours"),
    [
        ("13:30", 1.5),
        ("12:00", 24),
        ("6:00", 18),
        ("00:00", 12),
        ("2026-01-02T13:00:00", 1),
        ("2026-01-02T13:00:00+00:00", 5),
        ("2026-01-02T12:00:00Z", 4),
        ("2026-01-03", 12),
    ],
)
def test_a_deadline_is_the_next_such_time_here_or_a_time_in_full(monkeypatch, given, hours):
    monkeypatch.setenv("TZ", "UTC-4")  # four hours ahead
    time.tzset()
    try:
        noon = datetime(2026, 1, 2, 8, tzinfo=UTC)
        found = read_deadline(given, noon)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found - noon == timedelta(hours=hours)
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "given", ["6", "25:00", "6 o'clock", "2026-13-01", "", "06:00:00Z", "9999-12-31T23:59:59-12:00"]
)
def test_what_is_no_time_is_refused_in_one_line(given):
    with pytest.raises(InputError, match=r"^--deadline: .* is no time; write 06:00") as error:
        read_deadline(given, NOW)
    assert "\n" not in str(error.value)


def test_a_deadline_that_is_over_is_no_reason_not_to_go_on_with_a_job(folder):
    over = read_deadline("2025-12-31T06:00+00:00", NOW)
    assert over < NOW
    begun = describe_job("a-job", folder(), over - timedelta(hours=1), over).published(0)
    assert continue_job(begun, describe_job("a-job", folder(), NOW, over)) == begun
