"""Every loop lives visibly and ends when it is asked to."""

import threading
import time

import pytest

from producer.pulse import Pulse
from shared.shutdown import StopSignal
from shared.telemetry.health import Health


@pytest.fixture
def stop():
    return StopSignal()


def test_a_check_is_a_beat(stop):
    health = Health()
    Pulse(stop, health).check()
    assert health.last_beat is not None


def test_a_check_ends_what_was_asked_to_end(stop):
    pulse = Pulse(stop, Health())
    before = pulse.stopping
    pulse.check()
    stop.ask()
    assert (before, pulse.stopping) == (False, True)
    with pytest.raises(KeyboardInterrupt):
        pulse.check()


def test_a_wait_takes_its_time_and_beats_meanwhile(stop):
    health = Health()
    begun = time.monotonic()
    Pulse(stop, health).wait(0.05)
    assert time.monotonic() - begun >= 0.05
    assert health.last_beat is not None


def test_a_wait_ends_at_once_when_it_is_asked_to(stop):
    begun = time.monotonic()
    threading.Timer(0.05, stop.ask).start()
    with pytest.raises(KeyboardInterrupt):
        Pulse(stop, Health()).wait(60)
    assert time.monotonic() - begun < 10
