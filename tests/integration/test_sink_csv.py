"""The CSV sink against real Kafka, as a process: every row once, whatever comes."""

import gzip
import json
import random
from itertools import product
from pathlib import Path

import pytest

from shared.results.folder import FolderResults
from tests.fetching import wait_until
from tests.sinking import DEADLINE, MODEL, ODD, Job, Place, get, job_of, place, plain_job


@pytest.fixture
def where(kafka, topic_prefix, tmp_path):
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path)


def finish(where: Place, *jobs: Job) -> None:
    wait_until(lambda: where.complete(*(job.name for job in jobs)), within=DEADLINE)


OUTPUTS = ("out.csv", "out.csv.gz")


def odd_file(folder: Path, name: str = "odd.csv", data: bytes = ODD) -> Path:
    source = folder / name
    source.write_bytes(data)
    return source


def test_a_result_is_the_file_that_one_machine_writes(where, tmp_path):
    jobs = [
        job_of(odd_file(tmp_path), f"odd{i}", details=details, output=f"{i}-{output}")
        for i, (details, output) in enumerate(product((False, True), OUTPUTS))
    ]
    for job in jobs:
        # Rows come in any order, before and after what is said of their job.
        scores = random.Random(1).sample(job.scores, len(job.scores))
        where.publish([*scores[:5], job.begun, *scores[5:8], job.closed, *scores[8:]], at_once=3)
    with where.sink() as sink:
        finish(where, *jobs)
        assert sink.terminate() == 0
    for job in jobs:
        where.assert_exact(job)
        assert where.status[job.name].models == {MODEL: len(job.scores)}
        left = {path.name for path in (where.results / job.name).iterdir()}
        assert left == {job.output_name, "manifest.json"}


FORMS = {
    "semicolon": b'url;caption;n\nhttp://a/1;"a;b";1\nhttp://a/2;a,b;2\n',
    "tab-cr": b"caption\turl\rc\thttp://a/1\rd\thttp://a/bad\r",
    "quoted": b'"url","caption"\n"http://a/1","c"\nhttp://a/2,d\n',
    "header-alone": b"url,caption\n",
    "dropped": b"url,caption,error,similarity\nhttp://a/1,c,x,1\nhttp://a/2,d,,2,s\nhttp://a/3\n",
    "gzip": gzip.compress(ODD),
}


def test_files_of_every_form_come_out_as_one_machine_writes_them(where, tmp_path):
    jobs = [
        job_of(odd_file(tmp_path, f"{name}.csv", data), name, overwrite=name == "dropped")
        for name, data in FORMS.items()
    ]
    for job in jobs:
        where.publish([job.closed, *job.scores])
    with where.sink():
        finish(where, *jobs)
    for job in jobs:
        where.assert_exact(job)


def test_outcomes_that_come_twice_are_counted_and_written_once(where, tmp_path):
    job = plain_job("twice", 500, tmp_path / "in")
    again = [job.scores[5], job.scores[5], *job.scores[100:150]]
    where.publish([*job.scores[:300], *again, *job.scores[300:], job.closed])
    with where.sink() as sink:
        finish(where, job)
        late = job.scores[:10]
        where.publish(late)
        results = FolderResults(where.results)
        wait_until(lambda: results.duplicates() == len(again) + len(late), within=DEADLINE)
        metrics = get(sink, "/metrics")[1]
    where.assert_exact(job)
    assert f"pairscore_sink_duplicates_total {len(again) + len(late)}.0" in metrics
    assert "pairscore_sink_jobs_complete_total 1.0" in metrics
    assert 'pairscore_sink_rows_stored_total{error=""} ' in metrics
    table = where.run("status").stdout
    assert f"{len(again) + len(late)} outcomes came again" in table


def test_what_is_no_message_is_kept_aside_and_said(where, tmp_path):
    job = plain_job("clean", 20, tmp_path / "in")
    newer = json.loads(job.scores[0].encode()) | {"v": 2}
    untrue = json.loads(job.scores[0].encode()) | {"row": -1}
    foreign = [b"\xff not json", json.dumps(newer).encode(), None, json.dumps(untrue).encode()]
    where.publish_bytes(foreign)
    where.publish_bytes([b"{}"], where.topics.jobs)
    where.publish([*job.scores, job.closed])
    with where.sink() as sink:
        finish(where, job)
        wait_until(lambda: FolderResults(where.results).rejected() == 5, within=DEADLINE)
        metrics = get(sink, "/metrics")[1]
        assert sink.said("are no messages of ours")
    where.assert_exact(job)
    assert 'pairscore_sink_rejected_total{defect="undecodable"} 2.0' in metrics
    assert 'pairscore_sink_rejected_total{defect="unknown_version"} 1.0' in metrics
    assert 'pairscore_sink_rejected_total{defect="invalid"} 2.0' in metrics
    assert "5 records were no messages of ours" in where.run("status").stdout


def test_a_row_that_its_job_has_not_never_completes_it(where, tmp_path):
    job = plain_job("few", 10, tmp_path / "in")
    strays = [job.scores[0].model_copy(update={"row": row}) for row in (10, 700)]
    where.publish([*job.scores[:9], *strays])
    with where.sink():
        wait_until(lambda: where.status.get("few") is not None, within=DEADLINE)
        wait_until(lambda: where.status["few"].done == 11, within=DEADLINE)
        where.publish([job.closed, strays[0].model_copy(update={"row": 11})])
        wait_until(lambda: FolderResults(where.results).rejected() == 3, within=DEADLINE)
        status = where.status["few"]
        assert (status.state, status.done, status.lag) == ("closed", 9, 1)
        where.publish(job.scores[9:])
        finish(where, job)
    where.assert_exact(job)


def test_a_job_from_no_file_becomes_a_plain_file_and_can_be_read_by_row(where, tmp_path):
    made = plain_job("asked", 300, tmp_path / "in")
    scores = [score.model_copy(update={"columns": ()}) for score in made.scores]
    closed = made.closed.model_copy(
        update={"source": "api", "csv": None, "header": (), "source_sha256": None}
    )
    results = FolderResults(where.results)
    where.publish([*scores[:200], closed])
    with where.sink():
        wait_until(lambda: len(results.page("asked").outcomes) == 200, within=DEADLINE)
        assert results.page("asked", 150, 10).outcomes == scores[150:160]
        where.publish(scores[200:])
        finish(where, made)
    assert (where.results / "asked" / "scored.csv").read_bytes() == made.expected
    assert where.manifest("asked")["input_sha256"] is None
    assert results.page("asked", 0, 1000).outcomes == scores
    assert results.page("asked", 297, 10).outcomes == scores[297:]
    assert results.page("asked", 300, 10).outcomes == []


def test_many_jobs_at_once_each_get_their_own(where, tmp_path):
    jobs = [plain_job(f"job{i}", rows, tmp_path / "in") for i, rows in enumerate([0, 1, 40] * 12)]
    scores = [score for job in jobs for score in job.scores]
    random.Random(2).shuffle(scores)
    where.publish([*(job.begun for job in jobs), *scores, *(job.closed for job in jobs)])
    with where.sink():
        finish(where, *jobs)
    for job in jobs:
        where.assert_exact(job)
