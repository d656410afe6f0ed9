"""Progress lines and the bar, on a console that is none and on one that is."""

import io

from rich.console import Console

from pairscore.cli.progress import reporter
from pairscore.pair import Failure, Reason, Score

SCORE = Score(25.0, 0.25, False, "00", 1)
FAILURE = Failure(Reason.TIMEOUT)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_most_every_five_seconds_and_say_what_is_left():
    clock, out = Clock(), io.StringIO()
    with reporter(Console(file=out), total=320, clock=clock) as progress:
        for number in range(1, 81):
            clock.now += 0.125
            progress(number, FAILURE if number % 10 == 0 else SCORE)
    lines = out.getvalue().splitlines()
    assert lines == [
        "40 of 320 rows (12.5%), 8.0 rows/s, 4 failed, about 35 s left",
        "80 of 320 rows (25.0%), 8.0 rows/s, 8 failed, about 30 s left",
    ]


def test_rate_of_a_resumed_run_counts_only_its_own_rows():
    clock, out = Clock(), io.StringIO()
    with reporter(Console(file=out), total=10_000, clock=clock) as progress:
        for number in range(20):
            clock.now += 5
            progress(9_001 + number, SCORE)
    lines = out.getvalue().splitlines()
    # A rate from a few rows, one of which may have held back the rest, foretells nothing.
    assert lines[0] == "9,001 of 10,000 rows (90.0%), 0.2 rows/s, 0 failed"
    assert lines[-1].endswith("0.2 rows/s, 0 failed, about 1 h 21 min left")


def test_bar_on_a_terminal_ends_with_all_rows_and_failures():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with reporter(console, total=3) as progress:
        for number in range(1, 4):
            progress(number, FAILURE if number == 3 else SCORE)
    assert "3/3" in out.getvalue()
    assert "1 failed" in out.getvalue()
