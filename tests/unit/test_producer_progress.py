"""What people are shown while rows are published and outcomes come, and at the end."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from pairscore.pair import Reason
from producer import summary
from producer.progress import make_reporter
from producer.publication import Published
from shared.results import JobStatus

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def status(scored: int, timed_out: int = 0, **more) -> JobStatus:
    fields: dict[str, Any] = {
        "job": "a-job",
        "source": "in.csv",
        "state": "open",
        "rows_published": 1000,
        "rows": None,
        "scored": scored,
        "failed": {Reason.TIMEOUT: timed_out},
        "models": {},
        "result": None,
        "created_at": BEGUN,
        "updated_at": BEGUN + timedelta(seconds=10),
    }
    return JobStatus(**{**fields, **more})


@pytest.fixture
def clock():
    return Clock()


def test_away_from_a_terminal_a_line_comes_now_and_then(clock):
    shown = io.StringIO()
    with make_reporter(Console(file=shown), 1000, clock) as reporter:
        reporter.begins(200)
        for second in range(1, 12):
            clock.now = second
            reporter.reached(200 + 10 * second)
    assert shown.getvalue().splitlines() == [
        "250 of 1,000 rows published, 10.0 rows/s, about 0:01:15 left",
        "300 of 1,000 rows published, 10.0 rows/s, about 0:01:10 left",
    ]


def test_a_line_tells_outcomes_too_where_they_are_waited_for(clock):
    shown = io.StringIO()
    with make_reporter(Console(file=shown), 1000, clock) as reporter:
        reporter.begins(0)
        reporter.reached(1000)
        reporter.stored(status(0))
        clock.now = 10
        reporter.stored(status(390, 10))
    assert shown.getvalue() == (
        "1,000 of 1,000 rows published, 390 scored, 10 failed, 40.0 rows/s, about 0:00:15 left\n"
    )


def test_a_rate_is_that_of_late(clock):
    shown = io.StringIO()
    with make_reporter(Console(file=shown), 100_000, clock) as reporter:
        reporter.begins(0)
        for second in range(1, 61):
            clock.now = 3600 + second
            reporter.reached(100 * second)
    assert "100.0 rows/s" in shown.getvalue().splitlines()[-1]


def test_a_terminal_has_bars_with_the_same_figures(clock):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    with make_reporter(console, 1000, clock) as reporter:
        reporter.begins(0)
        clock.now = 2
        reporter.reached(500)
        reporter.stored(status(0))
        clock.now = 4
        reporter.stored(status(90, 10))
        reporter.say("a line that stays")
    last = shown.getvalue()
    assert "a line that stays" in last
    for figure in ("published", "500/1000", "250.0 rows/s, about 0:00:02 left", "stored"):
        assert figure in last
    assert "100/1000 90 scored, 10 failed, 50.0 rows/s, about 0:00:18 left" in last


def test_a_job_without_rows_can_be_shown(clock):
    for terminal in (False, True):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, color_system=None)
        with make_reporter(console, 0, clock) as reporter:
            reporter.begins(0)
            clock.now += 10
            reporter.reached(0)
            reporter.stored(status(0))
        assert "Traceback" not in shown.getvalue()


def test_what_was_published_is_said_with_how_to_wait_for_it():
    published = Published("a-job", 1200, 0, BEGUN, was_closed=False)
    assert summary.of_publishing(published).splitlines() == [
        "job a-job: 1,200 rows published",
        "the same command with --wait shows its outcomes come",
    ]
    resumed = Published("a-job", 1200, 500, BEGUN, was_closed=False)
    assert "1,200 rows published, 500 of them before" in summary.of_publishing(resumed)
    closed = Published("a-job", 1, 1, BEGUN, was_closed=True)
    assert "job a-job: already published, 1 row\n" in summary.of_publishing(closed)


def test_a_complete_job_is_summed_up_as_pairscore_score_does():
    complete = status(
        985,
        state="complete",
        rows=1000,
        failed={Reason.TIMEOUT: 5, Reason.HTTP_ERROR: 10},
        result="results/a-job/challenge_scored.csv",
    )
    assert summary.of_job(complete).splitlines() == [
        "rows in                     1,000",
        "scored                        985",
        "failed                         15",
        "  http_error                   10",
        "  timeout                       5",
        "rows/s                      100.0",
        "job                     a-job",
        "result                  results/a-job/challenge_scored.csv",
    ]
