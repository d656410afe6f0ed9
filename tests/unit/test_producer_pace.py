"""Rows take turns at the rate asked for, and a pause is not made up for by a flood."""

from producer.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def publish(pace: Pace, clock: Clock, rows: int) -> float:
    """Publish at once whenever a turn comes; the seconds that takes."""
    begun = clock.now
    for _ in range(rows):
        clock.now += pace.wait()
        pace.take()
    return clock.now - begun


def test_the_first_row_need_not_wait_and_the_next_has_to():
    clock = Clock()
    pace = Pace(10, clock)
    assert pace.wait() == 0
    pace.take()
    assert round(pace.wait(), 9) == 0.1
    clock.now += 0.1
    assert pace.wait() == 0


def test_many_rows_take_as_long_as_the_rate_says():
    clock = Clock()
    assert round(publish(Pace(250, clock), clock, 1001), 6) == 4


def test_a_rate_below_one_is_one_too():
    clock = Clock()
    assert round(publish(Pace(0.5, clock), clock, 3), 6) == 4


def test_a_short_pause_is_caught_up_on():
    clock = Clock()
    pace = Pace(100, clock)
    publish(pace, clock, 1)
    clock.now += 0.11
    assert round(publish(pace, clock, 11), 6) == 0
    assert pace.wait() > 0


def test_a_long_pause_is_not():
    clock = Clock()
    pace = Pace(100, clock)
    publish(pace, clock, 1)
    clock.now += 3600
    assert round(publish(pace, clock, 25), 6) == 0
    assert publish(pace, clock, 100) > 0.95
