"""The watchdog: it bites a loop that stands still, and no other."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from shared.telemetry.health import Health
from shared.watchdog import EXIT_STALLED, Stillness, Watchdog, stacks
from tests.fetching import wait_until

SECONDS = 20.0

STUCK = """
import faulthandler, re, sys, threading
from shared.settings import TelemetrySettings
from shared.telemetry.health import Health
from shared.telemetry.logs import configure_logging
from shared.watchdog import Watchdog

configure_logging(TelemetrySettings(log_format="json"), "worker")
health = Health()
health.beat()

def stand_still():
    threading.Event().wait(60)

def keep_the_lock():
    re.match("(a+)+$", "a" * 60 + "b")

with Watchdog(health, float(sys.argv[2]), name="worker"):
    threading.Thread(target=stand_still, name="helper", daemon=True).start()
    globals()[sys.argv[1]]()
"""


BEATING = """
import sys
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.watchdog import Watchdog

stop, health = StopSignal(), Health()
stop.install()
with Watchdog(health, 1.0, name="worker"):
    while not stop.asked:
        health.beat()
        sys.stdout.write("x")
        sys.stdout.flush()
        stop.wait(0.01)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stuck(how: str, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STUCK, how, str(seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def test_stillness_is_the_time_without_a_beat():
    still = Stillness(None, 0.0, tick=1.0)
    assert [still.look(None, now) for now in (1.0, 2.0, 3.5)] == [1.0, 2.0, 3.5]


def test_a_beat_ends_stillness():
    still = Stillness(0.0, 0.0, tick=1.0)
    still.look(0.0, 1.0)
    assert still.look(1.5, 2.0) == 0.0
    assert still.look(1.5, 3.0) == 1.0


def test_a_process_that_was_stopped_has_not_stood_still():
    still = Stillness(0.0, 0.0, tick=1.0)
    assert still.look(0.0, 1.0) == 1.0
    assert still.look(0.0, 601.0) == 3.0


def test_a_loop_that_beats_is_left_alone():
    bites: list[int] = []
    health = Health()
    pause = threading.Event()
    with Watchdog(health, 0.2, name="loop", end=bites.append):
        for _ in range(60):
            health.beat()
            pause.wait(0.01)
    assert bites == []


def test_a_loop_that_never_begins_is_bitten():
    bites: list[int] = []
    with Watchdog(Health(), 0.2, name="loop", end=bites.append):
        wait_until(lambda: bites != [])
    assert bites == [EXIT_STALLED]


def test_a_block_that_is_left_is_watched_no_more():
    before = threading.active_count()
    bites: list[int] = []
    with Watchdog(Health(), 0.2, name="loop", end=bites.append):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert bites == []


def test_the_process_ends_and_says_where_it_stood():
    ended = stuck("stand_still", 0.5)
    assert ended.returncode == EXIT_STALLED == 70
    [line] = ended.stderr.splitlines()
    said = json.loads(line)
    assert said["level"] == "critical"
    assert "the loop of worker has stood still" in said["message"]
    assert "thread MainThread:" in said["stacks"]
    assert "thread helper:" in said["stacks"]
    assert said["stacks"].count("in stand_still") == 2


def test_a_thread_that_keeps_the_interpreter_to_itself_is_ended_too():
    ended = stuck("keep_the_lock", 0.5)
    assert ended.returncode == 1
    assert "in keep_the_lock" in ended.stderr


def test_a_log_that_hangs_does_not_keep_the_process():
    reading, writing = subprocess.PIPE, subprocess.PIPE
    flood = "import sys; sys.stderr.write('x' * 200_000);"
    # Nobody reads its stderr: what writes there hangs for ever, the loop and the report alike.
    script = STUCK.replace("    threading.Event().wait(60)", f"    {flood}")
    command = [sys.executable, "-c", script, "stand_still", "0.5"]
    with subprocess.Popen(command, stdout=reading, stderr=writing) as process:
        try:
            assert process.wait(SECONDS) == EXIT_STALLED
        finally:
            process.kill()


def test_a_process_that_was_stopped_goes_on():
    command = [sys.executable, "-c", BEATING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 2.0)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.read(100)
            process.terminate()
            assert (process.communicate(timeout=SECONDS)[1], process.returncode) == (b"", 0)
        finally:
            process.kill()


@pytest.mark.parametrize("beats", [0, 1])
def test_health_is_alive_until_its_last_beat_is_too_old(beats):
    clock = Clock()
    health = Health(60.0, clock)
    for _ in range(beats):
        health.beat()
    clock.now += 59.0
    assert health.alive()
    clock.now += 1.0
    assert health.alive() == (beats == 0)
    assert health.silence() == 60.0 * beats
    health.beat()
    assert health.alive()
    assert not health.alive(now=clock.now + 60.0)


def test_health_is_ready_when_it_is_said_to_be():
    health = Health()
    states = [(health.is_ready, health.why)]
    for ok, why in ((True, ""), (False, "no partitions"), (False, "")):
        health.ready(ok, why)
        states.append((health.is_ready, health.why))
    assert states == [
        (False, "starting"),
        (True, ""),
        (False, "no partitions"),
        (False, "not ready"),
    ]


def test_stacks_name_the_other_threads():
    ended = threading.Event()

    def wait_here() -> None:
        ended.wait(SECONDS)

    thread = threading.Thread(target=wait_here, name="somebody")
    thread.start()
    try:
        wait_until(lambda: "wait_here" in stacks())
        assert "thread somebody:" in stacks()
        assert "test_stacks_name_the_other_threads" not in stacks()
    finally:
        ended.set()
        thread.join()
