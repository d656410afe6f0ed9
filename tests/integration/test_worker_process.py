"""The worker as a process: what ends it, how soon, with which exit code and which words."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from deploy import local
from deploy.local.ports import free_ports
from tests import commands
from tests.faults.processes import clean_environment
from tests.fetching import wait_until
from tests.refusing import Ended, run
from tests.services import had
from tests.working import WITHIN, Fleet, Told, said_by_worker, working


def environment(fleet: Fleet, **more: str) -> Mapping[str, str]:
    return {
        **clean_environment(),
        "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": fleet.settings.bootstrap_servers,
        "PAIRSCORE_KAFKA__TOPIC_PREFIX": fleet.settings.topic_prefix,
        "PAIRSCORE_KAFKA__PARTITIONS": "3",
        "PAIRSCORE_MODEL": "demo",
        "PAIRSCORE_TELEMETRY__PORT": "0",
        "PAIRSCORE_WORKER__ID": "w",
        **more,
    }


def refused(fleet: Fleet, **more: str) -> Ended:
    return run("worker", ["worker"], environment(fleet, **more))


@contextmanager
def told(fleet: Fleet, what: str, log: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process with a scorer that is told; killed on leaving."""
    with process_of(["tests.told_worker", *what.split()], fleet, log, **more) as process:
        yield process


@contextmanager
def process_of(
    module: list[str], fleet: Fleet, log: Path, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """A process on the fleet's topics, and what it says in a file; killed on leaving."""
    command = [sys.executable, "-m", *module]
    with log.open("wb") as file:
        said = file.fileno()
        with commands.started(
            command, environment(fleet, **more), stdout=said, stderr=said
        ) as process:
            yield process


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix)


def test_address_where_nobody_listens_is_one_line(fleet):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    ended = refused(fleet, PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS=address)
    assert ended.code == 3
    assert ended.line.startswith(
        f"setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: no Kafka broker answers at {address}"
    )


def test_missing_topics_are_one_line_that_says_how_to_create_them(fleet):
    ended = refused(fleet, PAIRSCORE_KAFKA__TOPIC_PREFIX="nowhere.")
    assert ended.code == 3
    assert "nowhere.pairs" in ended.line
    assert "python -m shared.topics create" in ended.line


def test_too_few_partitions_are_one_line_that_names_the_setting(fleet):
    ended = refused(fleet, PAIRSCORE_KAFKA__PARTITIONS="12")
    assert ended.code == 3
    assert "PAIRSCORE_KAFKA__PARTITIONS" in ended.line


def test_unknown_setting_is_one_line_that_names_it(fleet):
    ended = refused(fleet, PAIRSCORE_WORKER__WINDOWS="12")
    assert ended.code == 2
    assert "PAIRSCORE_WORKER__WINDOWS" in ended.line


def test_row_that_never_comes_out_of_the_scorer_ends_the_worker_and_is_named(fleet, tmp_path):
    fleet.publish(range(1))
    patience = {
        "PAIRSCORE_FETCH__TIMEOUT": "0.5",
        "PAIRSCORE_FETCH__QUEUE_TIMEOUT": "0.5",
        "PAIRSCORE_WORKER__STALL_SECONDS": "5",
    }
    with told(fleet, "never", tmp_path / "log", **patience) as process:
        assert process.wait(WITHIN) == 70
    said = (tmp_path / "log").read_text()
    assert "does not come out of the scorer" in said
    assert "offset 0, job j, row 0" in said
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == [0], within=WITHIN)


def hangs(log: Path) -> bool:
    return "hangs now" in log.read_text()


def seconds_to_end(process: subprocess.Popen[str], code: int) -> float:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN) == code
    return time.monotonic() - started


def test_asked_to_end_while_its_model_loads_it_ends_at_once(fleet, tmp_path):
    with told(fleet, "0 loading", tmp_path / "log") as process:
        wait_until(lambda: hangs(tmp_path / "log"), within=WITHIN)
        assert seconds_to_end(process, 0) < 2
    assert "asked to end before it had begun" in (tmp_path / "log").read_text()


def test_scorer_that_hangs_when_it_is_closed_does_not_keep_a_drained_worker(fleet, tmp_path):
    fleet.publish(range(9))
    with told(fleet, "0 closing", tmp_path / "log") as process:
        wait_until(lambda: fleet.rows() == list(range(9)), within=WITHIN)
        assert seconds_to_end(process, 0) < 10
    assert hangs(tmp_path / "log")


def test_scorer_that_hangs_when_it_is_closed_does_not_keep_what_was_fatal_to_itself(
    fleet, tmp_path
):
    fleet.publish(range(1))
    with told(fleet, "0 fatal", tmp_path / "log") as process:
        wait_until(lambda: hangs(tmp_path / "log"), within=WITHIN)
        assert process.wait(10) == 3
    assert "worker: as it was told to" in (tmp_path / "log").read_text()


def test_asked_to_end_with_rows_that_do_not_come_out_it_leaves_them_to_others_in_time(
    fleet, tmp_path
):
    [port] = free_ports(1)
    settings = {
        "PAIRSCORE_FETCH__TIMEOUT": "120",
        "PAIRSCORE_FETCH__ALLOW_NETWORKS": "127.0.0.0/8",
        "PAIRSCORE_TELEMETRY__PORT": str(port),
    }

    def in_flight() -> float:
        with suppress(requests.ConnectionError):
            return said_by_worker(port)["in_flight"]
        return 0

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.jpg"
        fleet.publish(range(30), url=url)
        fleet.publish(range(30, 50), url="nonsense")
        with process_of(["worker"], fleet, tmp_path / "log", **settings) as process:
            wait_until(lambda: in_flight() == 30, within=WITHIN)
            took = seconds_to_end(process, 0)
    assert 20 <= took < 25
    assert not set(fleet.rows()) & set(range(30))
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(50)), within=WITHIN)


@pytest.fixture(scope="module")
def broker() -> Iterator[local.NativeKafka]:
    """One that may be killed and made to hang."""
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_asked_to_end_while_kafka_is_away_it_ends_soon_and_nothing_is_lost(
    broker, topic_prefix, tmp_path, fault
):
    fleet = Fleet(broker.bootstrap_servers, topic_prefix)
    fleet.publish(range(200))
    [port] = free_ports(1)
    settings = {
        "PAIRSCORE_WORKER__SHUTDOWN_SECONDS": "6",
        "PAIRSCORE_TELEMETRY__PORT": str(port),
    }
    with told(fleet, "3", tmp_path / "log", **settings) as process:
        wait_until(lambda: fleet.rows() == list(range(200)), within=WITHIN)
        fleet.publish(range(200, 300))
        wait_until(lambda: said_by_worker(port)["in_flight"] == 100, within=WITHIN)
        (broker.kill if fault == "killed" else broker.pause)(1)
        try:
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            seconds = time.monotonic() - started
        finally:
            (broker.start if fault == "killed" else broker.resume)(1)
    assert code in {0, 3}, (tmp_path / "log").read_text()
    assert seconds < 12
    with working(fleet, Told()):
        wait_until(lambda: fleet.rows() == list(range(300)), within=60)
