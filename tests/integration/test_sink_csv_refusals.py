"""What keeps the CSV sink from beginning or going on is said in one line, and loses nothing."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.results.folder import FolderResults
from tests.disks import remount, small_disk
from tests.fetching import wait_until
from tests.sinking import DEADLINE, Job, Place, get, place, plain_job


@pytest.fixture
def where(kafka, topic_prefix, tmp_path):
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path)


def refusal(where: Place, code: int, *arguments: str, **environment: str) -> str:
    """The one line that the sink ends with."""
    ended = where.run("csv", *arguments, **environment)
    assert ended.returncode == code, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("sink csv: ")
    return line


def test_a_second_sink_is_kept_out_until_the_first_is_killed(where, tmp_path):
    job = plain_job("only", 5, tmp_path / "in")
    with where.sink() as first:
        wait_until(lambda: first.said("storing outcomes"), within=DEADLINE)
        line = refusal(where, 3)
        assert "PAIRSCORE_RESULTS: another sink is at work" in line
        assert str(where.results) in line
        first.process.kill()
        first.process.wait(DEADLINE)
    where.publish([*job.scores, job.closed])
    with where.sink():
        wait_until(lambda: where.complete("only"), within=DEADLINE)
    where.assert_exact(job)


def test_a_folder_that_cannot_be_is_one_line(where, tmp_path):
    (tmp_path / "file").write_text("")
    line = refusal(where, 3, PAIRSCORE_RESULTS=str(tmp_path / "file" / "results"))
    assert "PAIRSCORE_RESULTS" in line
    assert str(tmp_path / "file") in line


def test_settings_that_cannot_be_are_one_line(where):
    assert "PAIRSCORE_SINK__COMMIT_ROWS" in refusal(where, 2, PAIRSCORE_SINK__COMMIT_ROWS="none")
    assert "PAIRSCORE_SINKS" in refusal(where, 2, PAIRSCORE_SINKS="1")


def test_no_broker_is_one_line(where):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        line = refusal(where, 3, PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=address)
    assert "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS" in line
    assert address in line


def test_topics_that_are_missing_or_small_are_one_line(where):
    line = refusal(where, 3, PAIRSCORE_KAFKA__TOPIC_PREFIX="nobodys.")
    assert "topic nobodys.scores does not exist" in line
    assert "PAIRSCORE_KAFKA__PARTITIONS" in refusal(where, 3, PAIRSCORE_KAFKA__PARTITIONS="9")


def test_a_job_that_there_is_not_is_one_line(where):
    ended = where.run("status", "nobody")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no job 'nobody'" in ended.stderr
    assert str(where.results) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@contextmanager
def too_small_a_disk(where: Place, folder: Path) -> Iterator[tuple[Job, Path]]:
    """The results are to be on a disk that the outcomes of a job, all published, do not fit on."""
    job = plain_job("full", 12_000, folder / "in")
    where.publish([job.begun, *job.scores, job.closed])
    with small_disk(folder / "disk", "3m") as small:
        where.results = small / "results"
        yield job, small


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_a_disk_too_full_to_store_on_is_waited_for_and_nothing_is_lost(where, tmp_path):
    with too_small_a_disk(where, tmp_path) as (job, small):
        with where.sink(PAIRSCORE_SINK__COMMIT_ROWS="1000") as sink:
            wait_until(lambda: sink.said("database or disk is full"), within=DEADLINE)
            complaint = next(line for line in sink.lines if "disk is full" in line["message"])
            assert complaint["level"] == "error"
            assert str(where.results) in complaint["message"]
            wait_until(lambda: get(sink, "/readyz")[0] == 503, within=DEADLINE)
            assert "disk is full" in get(sink, "/readyz")[1]
            assert get(sink, "/livez")[0] == 200
            stored = where.status["full"].done
            assert 0 < stored < 12_000
            remount(small, "size=64m")
            wait_until(lambda: where.complete("full"), within=DEADLINE)
            wait_until(lambda: get(sink, "/readyz")[0] == 200, within=DEADLINE)
            assert sink.said("going on after")
            assert sink.terminate() == 0
        where.assert_exact(job)
        assert FolderResults(where.results).duplicates() == 0


def test_a_sink_that_ends_while_the_disk_is_full_says_what_is_not_stored(where, tmp_path):
    with too_small_a_disk(where, tmp_path) as (job, small):
        with where.sink(PAIRSCORE_SINK__COMMIT_ROWS="1000") as sink:
            wait_until(lambda: sink.said("database or disk is full"), within=DEADLINE)
            assert sink.terminate() == 0
            last = sink.lines[-1]
            assert last["level"] == "warning"
            assert last["message"] == (
                "asked to end; the last 1000 records that were taken could not be stored, and are "
                "taken again when a sink is started"
            )
        remount(small, "size=64m")
        with where.sink() as sink:
            wait_until(lambda: where.complete("full"), within=DEADLINE)
            assert sink.terminate() == 0
            assert sink.said("everything taken is stored")
        where.assert_exact(job)
        assert FolderResults(where.results).duplicates() == 0


def test_a_disk_too_full_for_a_result_is_waited_for_while_others_are_stored(where, tmp_path):
    job = plain_job("large", 12_000, tmp_path / "in")
    where.publish([job.begun, *job.scores])
    with small_disk(tmp_path / "disk", "64m") as small:
        where.results = small / "results"
        with where.sink() as sink:
            wait_until(lambda: len(where.status) == 1, within=DEADLINE)
            wait_until(lambda: where.status["large"].done == 12_000, within=DEADLINE)
            remount(small, f"size={used(small) + 400_000}")
            where.publish([job.closed])
            wait_until(lambda: sink.said("No space left on device"), within=DEADLINE)
            assert str(where.results / "large") in get(sink, "/readyz")[1]
            assert where.status["large"].state == "closed"
            assert list((where.results / "large").iterdir()) == []
            other = plain_job("small", 50, tmp_path / "in")
            where.publish([*other.scores, other.closed])
            wait_until(lambda: where.complete("small"), within=DEADLINE)
            where.assert_exact(other)
            remount(small, "size=64m")
            wait_until(lambda: where.complete("large"), within=DEADLINE)
        where.assert_exact(job)


def test_a_disk_that_can_only_be_read_is_one_line_and_shows_its_jobs(where, tmp_path):
    job = plain_job("kept", 20, tmp_path / "in")
    where.publish([*job.scores, job.closed])
    with small_disk(tmp_path / "disk", "8m") as small:
        where.results = small / "results"
        with where.sink() as sink:
            wait_until(lambda: where.complete("kept"), within=DEADLINE)
            assert sink.terminate() == 0
        remount(small, "ro")
        assert "PAIRSCORE_RESULTS" in refusal(where, 3)
        where.assert_exact(job)
        shown = where.run("status", "kept")
        assert (shown.returncode, "complete" in shown.stdout) == (0, True)
        remount(small, "rw")
