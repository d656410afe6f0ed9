"""`--wait` follows a job to its end, and says what may be missing where nothing comes.

The sink is a real one; the test plays the workers.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pairscore.pair import Failure, Outcome, Reason, Score
from producer import waiting as module
from producer.pulse import Pulse
from producer.waiting import Waiting
from shared.clients import make_producer
from shared.messages import ScoreMessage
from shared.results import open_results
from shared.settings import StoreSettings
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from tests.commands import ROOT
from tests.fetching import wait_until
from tests.producing import Place, place, write_set

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def here(kafka, topic_prefix) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


@contextmanager
def sink(here: Place, results: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "sink", "csv"]
    environment = here.environment(PAIRSCORE_RESULTS=str(results))
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(30) == 0


def score(here: Place, *, but: int = 0) -> None:
    """Publish an outcome of every row that is published, the last `but` left out."""
    producer = make_producer(here.connection, transactional_id=None)
    rows = here.pairs()
    for row in rows[: len(rows) - but]:
        outcome: Outcome = (
            Failure(Reason.TIMEOUT, attempts=4)
            if row.row % 10 == 0
            else Score(20.0, 0.2, caption_truncated=False, image_sha256="0" * 64, attempts=1)
        )
        message = ScoreMessage.of(row, outcome, model="a-model", scored_at=NOW)
        producer.produce(here.topics.scores, message.encode(), row.url.encode())
    assert producer.flush(20) == 0


def test_a_job_is_waited_for_to_its_end_and_summed_up(here, tmp_path):
    source = write_set(tmp_path / "challenge_set.csv", 100)
    results = tmp_path / "results"
    wait = {"PAIRSCORE_RESULTS": str(results)}
    with sink(here, results):
        with here.started(source, "--job", "a-job", "--wait", **wait) as process:
            wait_until(lambda: here.rows_published() == 100, within=60)
            score(here, but=1)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            score(here)
            printed, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        again = here.run(source, "--job", "a-job", "--wait", **wait)
    result = results / "a-job" / "challenge_scored.csv"
    assert result.read_text().count("\n") == 101
    for summary in (printed, again.stdout):
        lines = dict(line.split(None, 1) for line in summary.splitlines() if "rows in" not in line)
        assert "rows in                       100" in summary.splitlines()
        assert (lines["scored"], lines["failed"], lines["timeout"]) == ("90", "10", "10")
        assert lines["job"] == "a-job"
        assert Path(lines["result"]) == result
    assert here.rows_published() == 100


def test_waiting_is_interrupted_without_harm(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    wait = {"PAIRSCORE_RESULTS": str(tmp_path / "results")}
    with here.started(source, "--wait", **wait) as process:
        wait_until(lambda: here.rows_published() == 10, within=60)
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "producer: interrupted"
    assert here.run(source).stdout.splitlines()[0].endswith("already published, 10 rows")


def test_a_terminal_shows_bars(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 600)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
    with here.started(source, "--limit-rate", "400", stderr=follower, TERM="xterm") as process:
        os.close(follower)
        shown = b"".join(iter(lambda: read(leader), b"")).decode()
        assert process.wait(20) == 0
    os.close(leader)
    assert "published" in shown
    assert "600/600" in shown
    assert "rows/s" in shown


def read(leader: int) -> bytes:
    try:
        return os.read(leader, 65_536)
    except OSError:  # EIO: nobody has the other side any more
        return b""


def test_a_store_that_cannot_be_used_is_said_before_anything_is_published(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 10)
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    ended = here.run(source, "--wait", PAIRSCORE_POSTGRES_URL=url)
    assert ended.returncode == 3
    assert "secret" not in ended.stderr
    assert "PAIRSCORE_POSTGRES_URL" in ended.stderr.splitlines()[-1]
    assert here.jobs() == {}


@dataclass
class Patient:
    """Waits in this process for a job that is published, and is asked to end after some hints."""

    here: Place
    results: Path
    hints: int
    said: list[str] = field(default_factory=list)

    def wait(self) -> list[str]:
        stop = StopSignal()

        def say(line: str) -> None:
            self.said.append(line)
            if len(self.said) == self.hints:
                stop.ask()

        store = open_results(StoreSettings(results=str(self.results)))
        waiting = Waiting(
            store,
            "a-job",
            dead_letters=self.here.topics.dead_letters,
            pulse=Pulse(stop, Health()),
            stored=lambda _: None,
            say=say,
        )
        with closing(store), pytest.raises(KeyboardInterrupt):
            waiting.until_complete()
        return self.said


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "_HINT_SECONDS", 0.5)
    monkeypatch.setattr(module, "_STILL_SECONDS", 1.0)


NO_SINK = "no sink stores job a-job at {}, where its result is waited for: start one"


@pytest.mark.usefixtures("impatient")
def test_that_no_sink_runs_is_said_now_and_then(here, tmp_path):
    assert here.run(write_set(tmp_path / "in.csv", 10), "--job", "a-job").returncode == 0
    began = time.monotonic()
    said = Patient(here, tmp_path / "results", hints=3).wait()
    assert time.monotonic() - began >= 1.5
    for line in said:
        assert line.startswith(NO_SINK.format(tmp_path / "results"))
        assert "PAIRSCORE_RESULTS or PAIRSCORE_POSTGRES_URL" in line


@pytest.mark.usefixtures("impatient")
def test_a_sink_that_ended_before_the_job_was_closed_is_missed(here, tmp_path):
    source = write_set(tmp_path / "in.csv", 4000)
    results = tmp_path / "results"
    with here.started(source, "--job", "a-job", "--limit-rate", "500") as process:
        with sink(here, results), closing(open_results(StoreSettings(results=str(results)))) as s:
            wait_until(lambda: s.job("a-job") is not None, within=60)
        assert process.wait(60) == 0
    [line] = Patient(here, results, hints=1).wait()
    assert line.startswith(NO_SINK.format(results))


@pytest.mark.usefixtures("impatient")
def test_where_to_look_is_said_now_and_then_while_no_outcome_comes(here, tmp_path):
    results = tmp_path / "results"
    assert here.run(write_set(tmp_path / "in.csv", 10), "--job", "a-job").returncode == 0
    score(here, but=4)
    with sink(here, results):
        with closing(open_results(StoreSettings(results=str(results)))) as store:
            wait_until(lambda: (s := store.job("a-job")) is not None and s.done == 6, within=60)
        first, second = Patient(here, results, hints=2).wait()
    for line in (first, second):
        assert re.match(r"no outcome has come for \d+ s, and 4 are missing: see ", line)
        assert "`python -m sink status a-job`" in line
        assert "`python scripts/lag.py`" in line
        assert f"topic {here.topics.dead_letters} " in line
