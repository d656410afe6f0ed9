"""Ending: deadlines, signals, and the exit code of a service."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pairscore.errors import EnvironmentFault, InputError
from shared.service import run_service
from shared.shutdown import Deadline, StopSignal, try_to_close

SECONDS = 20.0

WAITING = """
import sys
from shared.shutdown import StopSignal
stop = StopSignal()
stop.install()
sys.stdout.write("ready\\n")
sys.stdout.flush()
while not stop.wait(0.01 if "busy" in sys.argv else 30):
    pass
sys.stdout.write(f"asked by {stop.number}\\n")
sys.stdout.flush()
if "stay" in sys.argv:
    stop.wait(0)
    sys.stdin.read()
"""

SERVICE = """
import logging, sys
from pairscore.errors import EnvironmentFault
from shared.service import run_service
from shared.settings import TelemetrySettings
from shared.telemetry.logs import configure_logging

def main():
    logging.getLogger("shared.clients").warning("noise")
    if "logging" in sys.argv:
        configure_logging(TelemetrySettings(log_format="json"), "sink")
    if "fault" in sys.argv:
        raise EnvironmentFault("setting X: no broker answers; start one")
    if "defect" in sys.argv:
        raise RuntimeError("two\\nlines")
    if "interrupt" in sys.argv:
        raise KeyboardInterrupt
    return 7

sys.exit(run_service("sink csv", main))
"""


FIRING = """
import random, signal, time
from shared.shutdown import StopSignal
stop = StopSignal()
signal.signal(signal.SIGALRM, lambda number, frame: stop.ask())
end = time.monotonic() + 2
while time.monotonic() < end:
    stop = StopSignal()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 6e-5))
    stop.wait(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WAITING, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def service(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SERVICE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def test_a_deadline_says_what_is_left():
    clock = Clock()
    deadline = Deadline(5.0, clock)
    assert (deadline.left(), deadline.passed) == (5.0, False)
    clock.now += 4.0
    assert (deadline.left(), deadline.passed) == (1.0, False)
    clock.now += 1.0
    assert (deadline.left(), deadline.passed) == (0.0, True)
    clock.now += 100.0
    assert (deadline.left(), deadline.passed) == (0.0, True)


def test_nobody_asked_until_somebody_does():
    stop = StopSignal()
    before = [stop.asked, stop.wait(0), stop.wait(-1)]
    stop.ask()
    assert before == [False, False, False]
    assert [stop.asked, stop.wait(0), stop.wait(-1)] == [True, True, True]
    assert stop.number is None


def test_who_asks_in_the_moment_that_a_wait_ends_is_heard(monkeypatch):
    stop = StopSignal()

    class Poll:
        def register(self, *_: object) -> None:
            pass

        def poll(self, _: float) -> list[object]:
            stop.ask()
            return []  # it was over just before

    monkeypatch.setattr("shared.shutdown.select.poll", Poll)
    assert stop.wait(0.0)
    assert stop.asked


def test_all_who_wait_are_woken_and_those_who_come_later_do_not_wait():
    stop = StopSignal()
    woken: list[bool] = []
    threads = [
        threading.Thread(target=lambda: woken.append(stop.wait(SECONDS)), daemon=True)
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    stop.ask()
    for thread in threads:
        thread.join(SECONDS)
    assert woken == [True] * 8
    assert stop.wait(SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("how", ["busy", "idle"])
def test_a_signal_asks(number, how):
    with started(how) as process:
        process.send_signal(number)
        shown, complaints = process.communicate(timeout=SECONDS)
        assert (process.returncode, shown, complaints) == (0, f"asked by {number}\n", "")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(second):
    with started("stay") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"asked by {signal.SIGTERM}\n"
        process.send_signal(second)
        assert process.wait(SECONDS) == 128 + second


def test_a_service_ends_with_what_its_main_returns():
    ended = service()
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "", "")


def test_a_fault_is_one_line_without_the_warnings_before_it():
    ended = service("fault")
    assert ended.returncode == 3
    assert ended.stderr == "sink csv: setting X: no broker answers; start one\n"


def test_an_interrupt_is_no_traceback():
    ended = service("interrupt")
    assert (ended.returncode, ended.stderr) == (130, "sink csv: interrupted\n")


def test_a_defect_shows_its_traceback_even_before_there_is_a_log():
    ended = service("defect")
    assert ended.returncode == 1
    assert ended.stderr.startswith("sink csv: this is a defect in pairscore")
    assert ended.stderr.endswith("RuntimeError: two\nlines\n")


def test_a_defect_is_one_line_of_the_log():
    ended = service("defect", "logging")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert '"level": "critical"' in ended.stderr
    assert "RuntimeError: two" in ended.stderr


def test_errors_keep_their_exit_codes(capsys):
    def bad_input() -> int:
        raise InputError("a.csv: no such file")

    def bad_machine() -> int:
        raise EnvironmentFault("no broker")

    assert run_service("producer", bad_input) == 2
    assert run_service("producer", bad_machine) == 3
    assert capsys.readouterr().err == "producer: a.csv: no such file\nproducer: no broker\n"


def test_a_handler_never_blocks_the_thread_that_waits():
    # It fires at every moment of `wait`; one handled while an Event is locked blocks for ever.
    command = [sys.executable, "-c", FIRING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_hangs_when_it_is_closed_is_let_be():
    closed, never = [], threading.Event()
    try_to_close(lambda: closed.append(1), "quick", 60.0)
    assert closed == [1]
    began = time.monotonic()
    try_to_close(never.wait, "hanging", 0.2)
    assert 0.2 <= time.monotonic() - began < 5
    never.set()


def test_what_is_raised_by_closing_is_raised_to_who_asked():
    def fail() -> None:
        raise InputError("as it was told to")

    with pytest.raises(InputError, match="as it was told to"):
        try_to_close(fail, "failing", 60.0)


DEADLOCKED = """
import ctypes, sys
from shared.shutdown import StopSignal
stop = StopSignal()
stop.install(grace=0.5)
sys.stdout.write("ready\\n")
sys.stdout.flush()
library = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER
library.pthread_mutex_lock(mutex)
library.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a mutex of zeros is one of glibc's")
def test_a_process_whose_main_thread_hangs_in_a_library_ends_when_it_is_asked_to():
    command = [sys.executable, "-c", DEADLOCKED]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 3
        finally:
            process.kill()
