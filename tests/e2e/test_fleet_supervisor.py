"""What a fleet's supervisor does for its programs, with small programs as real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.local.fleet_supervisor import Program, Supervisor
from deploy.local.guarding import guarded
from pairscore.errors import EnvironmentFault, InputError
from shared.shutdown import StopSignal
from tests.fetching import wait_until

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0

# Says that it runs by a file of its name, which it removes when it is asked to end.
SERVICE = """
import pathlib, signal, sys, time
mark = pathlib.Path(sys.argv[1])
def end(number, frame):
    mark.unlink()
    with open(mark.parent / "order", "a") as order:
        order.write(mark.name + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
mark.write_text(str(__import__("os").getpid()))
while True:
    time.sleep(60)
"""
DEAF = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
while True:
    time.sleep(60)
"""


class Setting:
    """A supervisor, what it said, and programs for it."""

    def __init__(
        self, folder: Path, supervisor: Supervisor, stop: StopSignal, said: list[str]
    ) -> None:
        self.folder = folder
        self.supervisor = supervisor
        self.stop = stop
        self.said = said

    def program(
        self,
        text: str,
        name: str = "service",
        kind: str = "service",
        ready: Callable[[], bool] | None = None,
        seconds: float = 5.0,
        **environment: str,
    ) -> Program:
        mark = self.mark(name)
        return Program(
            name=name,
            kind=kind,
            arguments=["-c", textwrap.dedent(text), str(mark)],
            environment=environment,
            log=self.folder / f"{name}.log",
            ready=ready or mark.exists,
            stop_seconds=seconds,
        )

    def mark(self, name: str = "service") -> Path:
        return self.folder / name

    def until(self, condition: Callable[[], bool]) -> None:
        self.supervisor.until(condition, DEADLINE, "it did not happen")

    def pid(self, name: str = "service") -> int:
        self.until(lambda: self.mark(name).exists() and self.mark(name).read_text() != "")
        self.until(lambda: name not in [each.name for each in self.supervisor.unready()])
        return int(self.mark(name).read_text())


@contextmanager
def supervised(folder: Path) -> Iterator[Setting]:
    stop = StopSignal()
    said: list[str] = []
    with guarded("test") as guard, Supervisor(guard, stop, said.append) as supervisor:
        yield Setting(folder, supervisor, stop, said)


def test_program_that_is_killed_is_started_again_and_said_so(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(SERVICE))
        first = setting.pid()
        setting.mark().unlink()
        os.kill(first, signal.SIGKILL)
        second = setting.pid()
    assert second != first
    assert setting.said == [
        f"service was ended by SIGKILL; started again in 0.5 s ({tmp_path / 'service.log'})"
    ]


def test_pauses_grow_while_a_program_keeps_ending_and_shrink_once_it_was_ready(
    tmp_path: Path,
) -> None:
    ready = tmp_path / "ready"
    with supervised(tmp_path) as setting:
        setting.supervisor.start(
            setting.program("import time; time.sleep(0.5); raise SystemExit(1)", ready=ready.exists)
        )
        ready.touch()
        setting.until(lambda: len(setting.said) == 1)
        ready.unlink()
        setting.until(lambda: len(setting.said) == 3)
        ready.touch()
        setting.until(lambda: len(setting.said) == 4)
    pauses = [line.partition("again in ")[2].split()[0] for line in setting.said]
    assert pauses == ["0.5", "1", "2", "0.5"]


def test_program_that_is_told_something_wrong_is_not_tried_twice(tmp_path: Path) -> None:
    text = "print('loading'); print('setting X: bad'); raise SystemExit(2)"
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(text))
        with pytest.raises(
            InputError, match=r"service ended with exit code 2: setting X: bad \(log: "
        ):
            setting.until(lambda: False)
    assert (tmp_path / "service.log").read_text().count("loading") == 1


def test_program_that_never_was_ready_is_given_up_after_three_starts(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program("print('no Kafka'); raise SystemExit(3)"))
        with pytest.raises(EnvironmentFault, match="service ended with exit code 3: no Kafka"):
            setting.until(lambda: False)
    assert (tmp_path / "service.log").read_text().count("no Kafka") == 3


def test_program_that_was_ready_is_started_again_however_often_it_ends(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        program = setting.program(
            "import time; print('no Kafka'); time.sleep(0.5); raise SystemExit(3)",
            ready=lambda: not setting.said,
        )
        setting.supervisor.start(program)
        setting.until(lambda: len(setting.said) >= 4)
    assert all("ended with exit code 3; started again" in line for line in setting.said)


def test_program_that_was_asked_to_end_is_left_alone(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(SERVICE))
        os.kill(setting.pid(), signal.SIGTERM)
        setting.until(lambda: bool(setting.said))
        setting.supervisor.wait(1.0)
        assert not setting.mark().exists()
    assert setting.said == ["service was asked to end, and has; it is not started again"]


def test_programs_end_in_the_opposite_order_of_their_start_kind_by_kind(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        for name, kind in (("data", "data"), ("sink", "sink"), ("w1", "worker"), ("w2", "worker")):
            setting.supervisor.start(setting.program(SERVICE, name, kind))
            setting.pid(name)
    *workers, sink, data = (tmp_path / "order").read_text().split()
    assert (sorted(workers), sink, data) == (["w1", "w2"], "sink", "data")
    assert setting.said == []


def test_program_that_does_not_end_is_killed_after_its_time(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(DEAF, seconds=1.0))
        pid = setting.pid()
    assert not psutil.pid_exists(pid)
    assert setting.said == ["service did not end within 1 s: killed"]


def test_program_that_hangs_ends_in_order(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(SERVICE))
        pid = setting.pid()
        os.kill(pid, signal.SIGSTOP)
    assert not psutil.pid_exists(pid)
    assert not setting.mark().exists()
    assert setting.said == []


def test_end_is_asked_for_between_looks(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(SERVICE))
        setting.pid()
        setting.stop.ask()
        with pytest.raises(KeyboardInterrupt):
            setting.supervisor.wait(DEADLINE)
    assert not setting.mark().exists()


def test_wait_has_a_deadline_and_says_what_for(tmp_path: Path) -> None:
    with (
        supervised(tmp_path) as setting,
        pytest.raises(EnvironmentFault, match="no pictures within 1 s"),
    ):
        setting.supervisor.until(lambda: False, 1.0, "no pictures")


def test_errand_passes_on_what_it_says_and_knows_folder_and_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "import os; print('é' * 3, os.environ['GIVEN'], os.getcwd(), flush=True)"
    (tmp_path / "errand.log").write_text("of an earlier one\n")
    with supervised(tmp_path) as setting:
        setting.supervisor.run(setting.program(text, "errand", GIVEN="a 'b' $c"), DEADLINE)
    assert capsys.readouterr().out == f"ééé a 'b' $c {Path.cwd()}\n"


def test_errand_that_fails_says_its_last_line(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        errand = setting.program("print('there is no such file'); raise SystemExit(1)", "errand")
        with pytest.raises(
            EnvironmentFault, match="errand ended with exit code 1: there is no such file"
        ):
            setting.supervisor.run(errand, DEADLINE)


def test_services_are_looked_after_while_an_errand_runs(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        setting.supervisor.start(setting.program(SERVICE))
        first = setting.pid()
        setting.mark().unlink()
        os.kill(first, signal.SIGKILL)
        # Ends only when the service is there again.
        text = f"""
        import pathlib, time
        while not pathlib.Path({str(setting.mark())!r}).exists():
            time.sleep(0.05)
        """
        setting.supervisor.run(setting.program(text, "errand"), DEADLINE)
        assert setting.pid() != first


def test_errand_without_an_end_is_ended(tmp_path: Path) -> None:
    with supervised(tmp_path) as setting:
        program = setting.program(SERVICE, "errand")
        with pytest.raises(EnvironmentFault, match="errand does not end within 2 s"):
            setting.supervisor.run(program, 2.0)
        assert not setting.mark("errand").exists()


USER = """
import sys
from pathlib import Path
from deploy.local.fleet_supervisor import Program, Supervisor
from deploy.local.guarding import guarded
from shared.shutdown import StopSignal

folder = Path(sys.argv[1])
with guarded("test") as guard, Supervisor(guard, StopSignal(), print) as supervisor:
    for name in ("one", "two"):
        arguments = ["-c", sys.argv[2], str(folder / name)]
        log = folder / f"{name}.log"
        supervisor.start(Program(name, name, arguments, {}, log, lambda: True, 5.0))
    supervisor.wait(60.0)
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_no_program_outlives_a_killed_supervisor(tmp_path: Path, deaf: bool) -> None:
    marks = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, "-c", USER, str(tmp_path), DEAF if deaf else SERVICE]
    with subprocess.Popen(command, cwd=ROOT) as user:
        try:
            wait_until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
            pids = [int(mark.read_text()) for mark in marks]
            assert all(map(psutil.pid_exists, pids))
        finally:
            user.kill()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)))
