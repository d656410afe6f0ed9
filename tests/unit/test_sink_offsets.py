"""Reading goes on where it was left, and never somewhere else in silence."""

import pytest

from sink.offsets import Range, find_start

PLACE = ("scores", 3)


@pytest.mark.parametrize("stored", [10, 15, 20])
def test_reading_goes_on_at_what_was_stored(stored):
    start = find_start(PLACE, stored, Range(10, 20))
    assert (start.offset, start.warning) == (stored, "")


def test_a_partition_that_is_new_is_read_from_its_beginning():
    start = find_start(PLACE, None, Range(0, 20))
    assert (start.offset, start.warning) == (0, "")


def test_records_that_are_gone_are_said():
    start = find_start(PLACE, 4, Range(10, 20))
    assert start.offset == 10
    assert "scores partition 3: the records from offset 4 to 9 are gone" in start.warning


def test_records_that_were_gone_before_the_first_start_are_said():
    start = find_start(PLACE, None, Range(10, 20))
    assert start.offset == 10
    assert "scores partition 3: the records before offset 10 are gone" in start.warning


def test_what_is_left_of_a_log_that_was_cut_is_read_again():
    start = find_start(PLACE, 30, Range(10, 20))
    assert start.offset == 10
    assert "up to offset 30 were stored, and Kafka ends at 20" in start.warning
