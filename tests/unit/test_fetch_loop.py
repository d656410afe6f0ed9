"""The loop's ends: closing it while others still want to wake it."""

import os
import time

from pairscore.fetch.loop import CurlLoop


def test_a_wake_that_comes_late_does_not_write_into_the_next_file_of_that_descriptor():
    loop = CurlLoop(time.monotonic)
    loop.close()
    pipes = [os.pipe() for _ in range(8)]
    try:
        loop.wake()
        for read, write in pipes:
            os.close(write)
            assert os.read(read, 1) == b""
    finally:
        for read, _ in pipes:
            os.close(read)


def test_a_wake_ends_a_turn_and_more_wakes_than_a_pipe_holds_do_no_harm():
    loop = CurlLoop(time.monotonic)
    for _ in range(100_000):
        loop.wake()
    begun = time.monotonic()
    assert list(loop.turn(30)) == []
    assert time.monotonic() - begun < 15
    loop.close()
