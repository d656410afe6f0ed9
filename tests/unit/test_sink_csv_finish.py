"""Complete jobs become files: whole ones, or none, whatever ends the process or is in the way."""

import hashlib
import json
import os
import signal
from datetime import datetime
from pathlib import Path

import pytest

from pairscore.pair import Reason
from shared.results.folder import FolderResults
from sink.csv.finish import Finisher
from sink.csv.result import MANIFEST_NAME
from tests.sinking import MODEL, Job, plain_job
from tests.spooling import batch_of, now, spool_in
from tests.struck import STRUCK, run_struck


def store(results: Path, *jobs: Job) -> None:
    with spool_in(results) as spool:
        for job in jobs:
            spool.store(batch_of([job.closed, *job.scores]))


def finish(results: Path, clock=None) -> list[str]:
    """Finish all that can be; what stood in the way, each time it did."""
    whys = []
    with spool_in(results) as spool:
        finisher = Finisher(spool, results, now, **({"clock": clock} if clock else {}))
        while (finished := finisher.step()).again < 1:
            whys.append(finished.why)
        whys.append(finished.why)
        finisher.close()
    return sorted({why for why in whys if why})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["plain", "packed", "asked"])
def test_a_kill_at_any_step_leaves_the_old_result_or_the_new_one(tmp_path, form):
    output = "out.csv.gz" if form == "packed" else "out.csv"
    job = plain_job("struck", 50, tmp_path / "in", output=output)
    files = {output, MANIFEST_NAME}
    if form == "asked":
        job = Job(
            job.name,
            [score.model_copy(update={"columns": ()}) for score in job.scores],
            job.closed.model_copy(update={"csv": None, "header": ()}),
            job.expected,
            "scored.csv",
        )
        files = {"scored.csv", "outcomes.jsonl", MANIFEST_NAME}
    results = tmp_path / "results"
    store(results, job)
    folder = results / "struck"
    kills = 0
    for at in range(2, 100):
        code = run_struck(results, at)
        if (folder / MANIFEST_NAME).exists():
            manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
            found = (folder / job.output_name).read_bytes()
            assert hashlib.sha256(found).hexdigest() == manifest["output_sha256"]
        if (folder / job.output_name).exists():
            assert (folder / job.output_name).read_bytes() == job.expected
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills > 2 * len(STRUCK)
    assert names(folder) == files
    status = FolderResults(results).job("struck")
    assert status is not None
    assert (status.state, status.done) == ("complete", 50)


def test_the_manifest_says_what_the_result_is(tmp_path):
    job = plain_job("told", 30, tmp_path / "in")
    results = tmp_path / "results"
    store(results, job)
    assert finish(results) == []
    manifest = json.loads((results / "told" / MANIFEST_NAME).read_bytes())
    completed = datetime.fromisoformat(manifest.pop("completed_at"))
    assert completed.tzinfo is not None
    assert datetime.fromisoformat(manifest.pop("created_at")) == job.closed.created_at
    assert manifest.pop("pairscore")
    assert manifest == {
        "job": "told",
        "source": "told.csv",
        "rows": 30,
        "scored": 26,
        "failed": {Reason.HTTP_ERROR.value: 4},
        "models": {MODEL: 30},
        "input_sha256": job.closed.source_sha256,
        "output": job.output_name,
        "output_sha256": hashlib.sha256(job.expected).hexdigest(),
    }


def test_a_large_result_is_put_on_the_disk_while_the_loop_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("sink.csv.finish._LARGE", 1)
    job = plain_job("large", 3_000, tmp_path / "in", output="out.csv.gz")
    results = tmp_path / "results"
    store(results, job)
    assert finish(results) == []
    assert (results / "large" / "out.csv.gz").read_bytes() == job.expected


def test_rows_leave_the_spool_when_their_result_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("sink.csv.finish._PURGE_ROWS", 700)
    monkeypatch.setattr("sink.csv.spool._KEPT_FREE_PAGES", 0)
    results = tmp_path / "results"
    jobs = [plain_job("done", 3_000, tmp_path / "in"), plain_job("waits", 10, tmp_path / "in")]
    store(results, jobs[0])
    with spool_in(results) as spool:
        spool.store(batch_of(jobs[1].scores))
        full = spool.bytes_on_disk
    finish(results)
    with spool_in(results) as spool:
        assert spool.bytes_on_disk < full / 2
    kept = FolderResults(results)
    assert len(kept.page("waits").outcomes) == 10
    status = kept.job("done")
    assert status is not None
    assert (status.done, status.result) == (3_000, str(results / "done" / jobs[0].output_name))


class Clock:
    """Seconds that rise when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_job_whose_folder_cannot_be_made_keeps_no_other_back(tmp_path):
    results = tmp_path / "results"
    jobs = [plain_job(name, 20, tmp_path / "in") for name in ("aaa", "bbb", "ccc")]
    store(results, *jobs)
    (results / "aaa").write_text("in the way")
    clock = Clock()
    with spool_in(results) as spool:
        finisher = Finisher(spool, results, now, clock)
        complete = finisher.step()
        while complete.again == 0:
            complete = finisher.step()
        assert (results / "bbb" / MANIFEST_NAME).exists()
        assert (results / "ccc" / MANIFEST_NAME).exists()
        assert str(results / "aaa") in complete.why
        assert "PAIRSCORE_RESULTS" in complete.why
        (results / "aaa").unlink()
        assert finisher.step().complete == 0, "it is too early to try again"
        clock.seconds += 3.0
        retried = finisher.step()
        assert (retried.complete, retried.why) == (1, "")
    assert (results / "aaa" / jobs[0].output_name).read_bytes() == jobs[0].expected


def test_what_cannot_be_finished_leaves_nothing_that_takes_room(tmp_path, monkeypatch):
    results = tmp_path / "results"
    store(results, plain_job("full", 20, tmp_path / "in"))

    def fail(_: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        (results / "full").mkdir()
        (why,) = finish(results)
    assert "No space left on device" in why
    assert names(results / "full") == set()
    assert finish(results) == []
    assert MANIFEST_NAME in names(results / "full")


def test_another_jobs_folder_is_left_alone(tmp_path):
    # As where upper and lower case are one: the folder of this job has a result of that one.
    results = tmp_path / "results"
    store(results, plain_job("Mine", 5, tmp_path / "in"))
    (results / "Mine").mkdir()
    (results / "Mine" / MANIFEST_NAME).write_text('{"job": "mine"}')
    (why,) = finish(results)
    assert "the result of job mine is here" in why
    assert names(results / "Mine") == {MANIFEST_NAME}


@pytest.mark.parametrize("name", ["manifest.json", "Manifest.JSON", ".result.partial"])
def test_no_result_takes_the_place_of_what_is_the_sinks_own(tmp_path, name):
    job = plain_job("named", 5, tmp_path / "in")
    csv = job.closed.csv
    assert csv is not None
    message = job.closed.model_copy(update={"csv": csv.model_copy(update={"output_name": name})})
    results = tmp_path / "results"
    with spool_in(results) as spool:
        spool.store(batch_of([message, *job.scores]))
    finish(results)
    assert (results / "named" / "scored.csv").read_bytes() == job.expected
    assert json.loads((results / "named" / MANIFEST_NAME).read_bytes())["output"] == "scored.csv"
