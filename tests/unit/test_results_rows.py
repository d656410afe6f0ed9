"""A job's messages are laid out as the bytes that one machine writes, whatever the file was."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.results.rows import RowWriter
from tests.sinking import ODD, Job, job_of, plain_job


def written(job: Job) -> bytes:
    writer = RowWriter(job.closed)
    rows = [writer.row(score.encode()) for score in job.scores]
    return "".join([writer.header(), *rows]).encode()


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.text().map(lambda t: t.replace("\0", "")), max_size=5), st.integers(0, 3)
        )
    ),
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    terminator=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
    details=st.booleans(),
)
def test_any_file_comes_out_as_one_machine_writes_it(
    tmp_path_factory, rows, delimiter, terminator, bom, details
):
    text = io.StringIO()
    text.write(delimiter.join(["url", "caption", "n"]) + terminator)
    for cells, quoting in rows:
        csv.writer(
            text, delimiter=delimiter, lineterminator=terminator, quoting=(0, 1, 2, 0)[quoting]
        ).writerow(cells)
    source = tmp_path_factory.mktemp("any") / "in.csv"
    source.write_bytes(("\ufeff" * bom + text.getvalue()).encode())
    job = job_of(source, "any", details=details, delimiter=delimiter)
    assert written(job) == job.expected


@pytest.mark.parametrize("details", [False, True])
def test_odd_rows_come_out_as_one_machine_writes_them(tmp_path, details):
    source = tmp_path / "odd.csv"
    source.write_bytes(ODD)
    job = job_of(source, "odd", details=details)
    assert written(job) == job.expected


def test_a_job_of_no_file_has_its_urls_and_captions(tmp_path):
    job = plain_job("asked", 3, tmp_path)
    told = job.closed.model_copy(update={"csv": None, "header": ()})
    odd = job.scores[0].model_copy(update={"columns": (), "caption": 'a "b",\nc'})
    writer = RowWriter(told)
    assert writer.header() == "url,caption,similarity,error\n"
    assert writer.row(odd.encode()).startswith('http://a/good/0,"a ""b"",\nc",')


def test_columns_are_kept_where_nothing_is_known_of_the_file(tmp_path):
    job = plain_job("columns", 3, tmp_path)
    assert (
        written(Job(job.name, job.scores, job.closed.model_copy(update={"csv": None}), b"", ""))
        == job.expected
    )
