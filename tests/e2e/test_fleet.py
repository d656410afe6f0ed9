"""`python -m deploy.local fleet` and `demo` as processes: they are `make fleet` and `make demo`."""

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from deploy import local
from deploy.local.fleet_demo import differences
from deploy.local.ports import free_ports, listens
from tests.fetching import wait_until
from tests.image_server import ImageServer, image_server, picture
from tests.services import had

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
START_SECONDS = 120.0
JOB_SECONDS = 180.0
END_SECONDS = 30.0
PROGRAMS = {"sink", "worker", "pairscore", "kafka.Kafka"}
ADDRESS = "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS"


def surroundings(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PAIRSCORE_")}
    return {**clean, **NO_DOCKER, "PAIRSCORE_KAFKA__PARTITIONS": "2", **more}


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", *arguments],
        cwd=ROOT,
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


class Fleet:
    """A fleet that runs."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.folder = folder
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    def until(self, condition: Callable[[], Any], within: float) -> None:
        try:
            wait_until(lambda: bool(condition()) or self.process.poll() is not None, within)
        except AssertionError:
            pytest.fail(f"it did not happen; the fleet said:\n{self.said}")
        assert self.process.poll() is None, self.said

    def exports(self) -> Mapping[str, str]:
        """What its file has for other terminals, as a shell understands it."""
        shown = subprocess.run(
            ["/bin/sh", "-c", '. "$0" && env -0', str(self.folder / "env")],
            env={},
            capture_output=True,
            check=True,
        )
        pairs = (item.partition("=") for item in shown.stdout.decode().split("\0") if item)
        return {name: value for name, _, value in pairs if name.startswith("PAIRSCORE_")}

    def programs(self) -> dict[str, list[psutil.Process]]:
        """What runs under it, by module or class."""
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                for word in PROGRAMS & set(process.cmdline()):
                    found.setdefault(word, []).append(process)
        return found

    def publish(self, source: Path, job: str) -> None:
        ended = command("producer", "csv", str(source), "--job", job, **self.exports())
        assert ended.returncode == 0, ended.stderr

    def status(self, job: str) -> dict[str, Any]:
        said = command("sink", "status", "--json", **self.exports())
        assert said.returncode == 0, said.stderr
        jobs = {each["job"]: each for each in json.loads(said.stdout)["jobs"]}
        found: dict[str, Any] = jobs.get(job, {"state": "unknown"})
        return found

    def until_complete(self, job: str) -> list[dict[str, str]]:
        """The rows of its result, as soon as the fleet says that it is complete."""
        self.until(lambda: f"job {job}: complete, " in self.said, JOB_SECONDS)
        with Path(self.status(job)["result"]).open(newline="") as file:
            return list(csv.DictReader(file))


@contextlib.contextmanager
def fleet(folder: Path, workers: int, **environment: str) -> Iterator[Fleet]:
    """A fleet, from when it is ready; killed at the end if it still runs."""
    output = folder.with_suffix(".out")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [PYTHON, "-m", "deploy.local", "fleet", str(folder), "--workers", str(workers)],
            cwd=ROOT,
            env=surroundings(**environment),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    with process:
        run = Fleet(folder, process, output)
        try:
            run.until(lambda: "ready. In another terminal" in run.said, START_SECONDS)
            yield run
        finally:
            process.kill()


def write_set(path: Path, server: ImageServer, rows: int) -> Path:
    urls = [server.add(f"/{number}.jpg", picture(number)) for number in range(20)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption"])
        writer.writerows((urls[row % len(urls)], f"picture {row}") for row in range(rows))
    return path


def ports_of(processes: list[psutil.Process]) -> set[int]:
    return {
        connection.laddr.port
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture(scope="module", autouse=True)
def _kafka_can_be_had() -> None:
    with had(local.kafka(native=True)):
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet") / "data", workers=2) as run:
        yield run


def test_fleet_says_what_runs_and_what_to_try(running: Fleet) -> None:
    counts = {name: len(found) for name, found in running.programs().items()}
    assert counts == {"sink": 1, "worker": 2, "pairscore": 1, "kafka.Kafka": 1}
    exports = running.exports()
    for words in (
        f"Kafka: a process of this machine, at {exports[ADDRESS]}",
        "sink csv, 2 workers with the model demo",
        "it only knows coloured shapes",
        f". {running.folder}/env",
        f"python -m producer csv {running.folder}/demo/challenge_set.csv --wait",
        "python -m sink status",
        "python -m worker",
    ):
        assert words in running.said
    urls = re.findall(r"http://127\.0\.0\.1:(\d+)/metrics", running.said)
    assert len(urls) == 3
    assert all(listens(int(port)) for port in urls)


def test_killed_workers_are_started_again_and_the_job_completes(
    running: Fleet, server: ImageServer, tmp_path: Path
) -> None:
    source = write_set(tmp_path / "set.csv", server, rows=2_000)
    workers = running.programs()["worker"]
    running.publish(source, "killed")
    for worker in workers:
        worker.kill()
    rows = running.until_complete("killed")
    assert [row["caption"] for row in rows] == [f"picture {row}" for row in range(2_000)]
    assert not any(row["error"] for row in rows)
    for number in (1, 2):
        assert f"worker {number} was ended by SIGKILL; started again in 0.5 s" in running.said
    assert {each.pid for each in running.programs()["worker"]}.isdisjoint(
        worker.pid for worker in workers
    )


def test_kafka_that_ends_is_started_again(
    running: Fleet, server: ImageServer, tmp_path: Path
) -> None:
    [broker] = running.programs()["kafka.Kafka"]
    broker.kill()
    running.until(lambda: "Kafka had ended; it runs again" in running.said, START_SECONDS)
    running.publish(write_set(tmp_path / "set.csv", server, rows=50), "after-kafka")
    assert len(running.until_complete("after-kafka")) == 50


def test_second_fleet_of_a_folder_is_refused(running: Fleet) -> None:
    ended = command("deploy.local", "fleet", str(running.folder))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"deploy.local: {running.folder}: another fleet runs there; end it, or name another "
        "folder\n"
    )


def test_nothing_survives_a_killed_fleet_and_the_next_one_goes_on(
    server: ImageServer, tmp_path: Path
) -> None:
    folder = tmp_path / "fleet data"
    source = write_set(tmp_path / "set.csv", server, rows=3_000)
    with fleet(folder, workers=1) as first:
        programs = [each for found in first.programs().values() for each in found]
        ports = ports_of(programs)
        assert len(programs) == 4
        assert len(ports) >= 4
        first.publish(source, "killed")
        demo_port = (folder / "demo-port").read_text()
        exports = first.exports()
        first.process.kill()
        wait_until(lambda: not any(map(psutil.Process.is_running, programs)))
        assert not any(map(listens, ports))
    # A terminal that has the address of the Kafka that is gone must not keep it from starting.
    with fleet(folder, workers=1, **{ADDRESS: exports[ADDRESS]}) as second:
        assert (folder / "demo-port").read_text() == demo_port
        rows = second.until_complete("killed")
        assert [row["caption"] for row in rows] == [f"picture {row}" for row in range(3_000)]
        assert not any(row["error"] for row in rows)
        programs = [each for found in second.programs().values() for each in found]
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(END_SECONDS) == 0
        assert "ending: what workers have is finished first" in second.said
        assert second.said.endswith("deploy.local: ended\n")
        assert "killed\n" not in second.said, "all ended by themselves"
        assert not any(map(psutil.Process.is_running, programs))


def test_fleet_stores_in_the_database_that_is_named(
    postgres_service: local.Postgres, server: ImageServer, tmp_path: Path
) -> None:
    store = {"PAIRSCORE_POSTGRES_URL": postgres_service.url}
    with fleet(tmp_path / "data", workers=1, **store) as run:
        assert "starting: sink postgres, 1 worker with the model demo" in run.said
        assert "and what PAIRSCORE_POSTGRES_URL is here" in run.said
        job = f"stored-{os.getpid()}"
        run.publish(write_set(tmp_path / "set.csv", server, rows=30), job)
        run.until(lambda: f"job {job}: complete, 30 scored, 0 failed" in run.said, JOB_SECONDS)
        said = command("sink", "status", job, **run.exports(), **store)
    assert "postgres" in said.stdout, said.stderr


def test_fleet_is_asked_to_end_while_it_starts(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PYTHON, "-m", "deploy.local", "fleet", str(tmp_path / "data")],
        cwd=ROOT,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Kafka: ")
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            _, errors = process.communicate(timeout=END_SECONDS)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "deploy.local: ended\n")
    assert not any(map(psutil.Process.is_running, children))


@pytest.mark.parametrize("name", ["fleet", "demo"])
def test_bad_setting_is_said_before_anything_starts(name: str, tmp_path: Path) -> None:
    ended = command("deploy.local", name, str(tmp_path / "data"), PAIRSCORE_BATCH_SIZE="many")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "setting PAIRSCORE_BATCH_SIZE" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = command("deploy.local", "fleet", str(tmp_path / "file" / "data"))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"deploy.local: {tmp_path / 'file' / 'data'}: cannot be written: Not a directory\n"
    )


def test_workers_are_at_least_one(tmp_path: Path) -> None:
    ended = command("deploy.local", "fleet", str(tmp_path), "--workers", "0")
    assert ended.returncode == 2
    assert "a number from 1 to 64, not '0'" in ended.stderr


def test_demo_takes_nothing_from_an_earlier_one_and_leaves_nothing_in_a_cluster(
    kafka: local.Kafka, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    made = command("pairscore", "demo", str(folder))
    assert made.returncode == 0, made.stderr
    earlier = folder / "results" / "earlier"
    earlier.mkdir(parents=True)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    ended = command("deploy.local", "demo", str(folder), **{ADDRESS: kafka.bootstrap_servers})
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert f"Kafka: that of {ADDRESS}, at {kafka.bootstrap_servers}" in ended.stdout
    assert f"each of the 300 rows is as {folder}/expected.csv says" in ended.stdout
    [result] = (folder / "results").glob("*/challenge_scored.csv")
    assert not earlier.exists()
    assert differences(result, folder / "expected.csv") == []
    groups = [each.group_id for each in admin.list_consumer_groups().result(10).valid]
    names = [*admin.list_topics(timeout=10).topics, *groups]
    assert not [name for name in names if name.startswith("demo-")]


def test_demo_that_is_interrupted_ends_all_it_started(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PYTHON, "-m", "deploy.local", "demo", str(tmp_path / "data")],
        cwd=ROOT,
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("publishing"):
                    break
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 5
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=END_SECONDS)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "deploy.local: interrupted\n")
    assert not any(map(psutil.Process.is_running, children))


def test_demo_without_kafka_says_so_and_scores_in_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    ended = command("deploy.local", "demo", str(folder), PATH="", JAVA_HOME="")
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()[:2]
    assert first.startswith("no fleet here: no Kafka: ")
    assert "java is not installed" in first
    assert second == "the same in one process instead, as make demo-local does:"
    assert differences(folder / "challenge_scored.csv", folder / "expected.csv") == []


def test_demo_does_not_pass_over_a_kafka_that_is_named_and_dead(tmp_path: Path) -> None:
    [port] = free_ports(1)
    ended = command("deploy.local", "demo", str(tmp_path), **{ADDRESS: f"127.0.0.1:{port}"})
    assert ended.returncode == 3
    assert f"deploy.local: {ADDRESS}: nothing listens there" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_leaves_the_files_of_others_alone(kafka: local.Kafka, tmp_path: Path) -> None:
    mine = tmp_path / "results" / "mine.csv"
    mine.parent.mkdir()
    mine.write_text("mine")
    ended = command("deploy.local", "demo", str(tmp_path), **{ADDRESS: kafka.bootstrap_servers})
    assert ended.returncode == 2
    assert "holds files that are not the demo's" in ended.stderr
    assert mine.read_text() == "mine"


def test_differences_from_what_is_expected_are_named(tmp_path: Path) -> None:
    scored, expected = tmp_path / "scored.csv", tmp_path / "expected.csv"
    expected.write_text(
        "row,expected,note\n0,,right\n1,timeout,silent\n2,,right\n3,http_error,gone\n4,,right\n"
    )
    scored.write_text(
        "url,similarity,error\na,21.5,\nb,,timeout: 2 s\nc,,http_error: 404\nd,20.0,\n"
    )
    assert differences(scored, expected) == [
        "row 2: http_error: 404 instead of a score (right)",
        "row 3: 20.0 instead of http_error (gone)",
        "row 4: is missing",
    ]
