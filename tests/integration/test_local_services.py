"""What `deploy.local` promises of each service: how it is had, and that nothing is left of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis as redis_client

from deploy import local
from deploy.local.guarding import guarded
from tests.fetching import wait_until
from tests.services import had, must_have_docker

ROOT = Path(__file__).resolve().parents[2]
NO_DOCKER = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}

# A program that uses services and says which processes they are and where their data lie.
USER = """
import json, os, sys, time
from deploy import local

with (
    local.kafka(native=True) as kafka,
    local.redis(native=True) as redis,
    local.postgres(native=True) as postgres,
):
    if "paused" in sys.argv:
        kafka.pause(1), redis.pause(), postgres.pause()
    forked = os.fork() if "forked" in sys.argv else None
    if forked == 0:
        time.sleep(60)
        os._exit(0)
    print(
        json.dumps(
            {
                "services": [kafka.pid(1), redis.pid, postgres.pid],
                "forked": forked,
                "folders": [str(log.parent) for log in (kafka.log(1), redis.log, postgres.log)],
            }
        ),
        flush=True,
    )
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


@contextlib.contextmanager
def program(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if line := process.stdout.readline():
        return line
    assert process.stderr is not None
    pytest.fail(process.stderr.read())


@pytest.fixture(scope="module", autouse=True)
def _services_can_be_had() -> None:
    for service in (local.kafka, local.redis, local.postgres):
        with had(service(native=True)):
            pass


@pytest.fixture(scope="module")
def redis() -> Iterator[local.NativeRedis]:
    with local.redis(native=True) as service:
        yield service


@pytest.fixture(scope="module")
def postgres() -> Iterator[local.NativePostgres]:
    with local.postgres(native=True) as service:
        yield service


@pytest.mark.parametrize("what", ["running", "paused", "forked"])
def test_nothing_is_left_of_services_whose_user_was_killed(what: str) -> None:
    with program("-c", USER, what) as user:
        said = json.loads(first_line(user))
        assert all(map(alive, said["services"]))
        # Of Postgres' some come and go.
        found = [pid for service in said["services"] for pid in family(service)]
        processes = [pid for pid in found if alive(pid)]
        assert len(processes) > len(said["services"]), "Postgres is several"
        folders = [Path(folder) for folder in said["folders"]]
        assert all(folder.is_dir() for folder in folders)
        user.kill()
        try:
            wait_until(lambda: not any(map(alive, processes)), within=10.0)
            wait_until(lambda: not any(folder.exists() for folder in folders), within=10.0)
        finally:
            if said["forked"]:
                os.kill(said["forked"], signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_service_ends_with_its_killed_guard(tmp_path: Path) -> None:
    with guarded("sleeper") as guard:
        pid = guard.start(["sleep", "60"], log=tmp_path / "log")
        parent = psutil.Process(pid).parent()
        assert parent is not None
        parent.kill()
        wait_until(lambda: not alive(pid))
        with pytest.raises(BrokenPipeError):
            guard.code(pid)
        guard.folder.rmdir()


def test_guard_that_is_told_to_end_cleans_up_first(tmp_path: Path) -> None:
    with guarded("sleeper") as guard:
        pid = guard.start(["sleep", "60"], log=tmp_path / "log")
        parent = psutil.Process(pid).parent()
        assert parent is not None
        parent.terminate()
        wait_until(lambda: not guard.folder.exists())
        assert not alive(pid)


def test_process_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with guarded("stubborn") as guard:
        script = "trap 'echo no' TERM; echo up; while :; do sleep 1; done"
        pid = guard.start(["sh", "-c", script], log=log)
        wait_until(lambda: log.read_text() == "up\n")
    assert not alive(pid)
    assert log.read_text() == "up\nno\n"


def test_leaving_ends_the_service_whatever_is_raised() -> None:
    used = []

    def use() -> None:
        with local.redis(native=True) as service:
            used.append(service)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert not alive(used[0].pid)
    assert not used[0].log.parent.exists()


def ping(service: local.Redis) -> bool:
    client = redis_client.Redis.from_url(service.url, socket_timeout=0.5, retry=None)
    with contextlib.closing(client):
        return bool(client.ping())


def test_redis_answers_hangs_and_goes_on(redis: local.NativeRedis) -> None:
    assert redis.how == "native"
    assert ping(redis)
    redis.pause()
    try:
        with pytest.raises(redis_client.TimeoutError):
            ping(redis)
    finally:
        redis.resume()
    assert ping(redis)


def test_killed_redis_comes_back_at_its_address_and_empty(redis: local.NativeRedis) -> None:
    with contextlib.closing(redis_client.Redis.from_url(redis.url, retry=None)) as client:
        client.set("key", "value")
        redis.kill()
        assert not redis.running
        with pytest.raises(redis_client.ConnectionError):
            client.ping()
        redis.start()
        assert client.get("key") is None


def test_postgres_answers_hangs_and_goes_on(postgres: local.NativePostgres) -> None:
    assert postgres.how == "native"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        postgres.pause()
        try:
            # New connections and those that there are: each has a process of its own.
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                psycopg.connect(postgres.url, connect_timeout=2)
            connection.pgconn.send_query(b"SELECT 2")
            with pytest.raises(AssertionError, match="it did not happen"):
                wait_until(lambda: consumed(connection), within=0.5)
        finally:
            postgres.resume()
        wait_until(lambda: consumed(connection))
        assert answer(connection) == b"2"
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 3").fetchone() == (3,)


def consumed(connection: psycopg.Connection) -> bool:
    connection.pgconn.consume_input()
    return not connection.pgconn.is_busy()


def answer(connection: psycopg.Connection) -> bytes | None:
    result = connection.pgconn.get_result()
    assert result is not None
    assert connection.pgconn.get_result() is None
    return result.get_value(0, 0)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restarted_postgres_has_its_address_and_data(
    postgres: local.NativePostgres, how: str
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE kept_{how} AS SELECT 1 AS it")
        getattr(postgres, how)()
        assert not postgres.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url)
    postgres.start()
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute(f"SELECT it FROM kept_{how}").fetchone() == (1,)


def test_address_of_redis_in_the_environment_wins(redis: local.NativeRedis) -> None:
    with local.redis(environment={"PAIRSCORE_REDIS__URL": redis.url}) as given:
        assert (given.url, given.how) == (redis.url, "environment")
        assert not isinstance(given, local.NativeRedis)
    assert ping(redis)


def test_address_of_postgres_in_the_environment_wins(postgres: local.NativePostgres) -> None:
    with local.postgres(environment={"PAIRSCORE_POSTGRES_URL": postgres.url}) as given:
        assert (given.url, given.how) == (postgres.url, "environment")
        assert not isinstance(given, local.NativePostgres)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("service", "variable", "address"),
    [
        (local.kafka, "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1,127.0.0.1:2"),
        (local.redis, "PAIRSCORE_REDIS__URL", "redis://user:hunter2@127.0.0.1:1/0"),
        (local.postgres, "PAIRSCORE_POSTGRES_URL", "postgresql://user:hunter2@127.0.0.1:1/x"),
    ],
)
def test_address_that_is_dead_is_said_rather_than_another_service_taken(
    service: Callable[..., AbstractContextManager[object]], variable: str, address: str
) -> None:
    environment = {**os.environ, variable: address}
    with pytest.raises(local.Unavailable) as raised, service(environment=environment):
        pass
    assert variable in str(raised.value)
    assert "refused" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_redis_is_one_line_that_says_what_to_do() -> None:
    with (
        pytest.raises(local.Unavailable, match="redis-server is not installed") as raised,
        local.redis(native=True, environment={"PATH": ""}),
    ):
        pass
    assert "apt install redis-server" in str(raised.value)
    assert "PAIRSCORE_REDIS__URL" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_command_says_where_services_are_and_ends_them_on_sigterm() -> None:
    with program("-m", "deploy.local", "up", **NO_DOCKER) as command:
        exported = [first_line(command).removeprefix("export ") for _ in range(3)]
        addresses = dict(line.strip().split("=", 1) for line in exported)
        assert list(addresses) == [
            "PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS",
            "PAIRSCORE_REDIS__URL",
            "PAIRSCORE_POSTGRES_URL",
        ]
        assert ping(local.Redis(addresses["PAIRSCORE_REDIS__URL"], "environment"))
        with psycopg.connect(addresses["PAIRSCORE_POSTGRES_URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        processes = family(command.pid)
        command.terminate()
        _, errors = command.communicate(timeout=20)
        assert command.returncode == 0
        assert "running Kafka (native), Redis (native), PostgreSQL (native)" in errors
        assert not any(map(alive, processes))


def test_command_ends_when_a_service_does() -> None:
    with program("-m", "deploy.local", "up", "--no-postgres", **NO_DOCKER) as command:
        first_line(command)
        first_line(command)
        [server] = [
            child
            for child in psutil.Process(command.pid).children(recursive=True)
            if child.name() == "redis-server"
        ]
        server.kill()
        _, errors = command.communicate(timeout=20)
        assert command.returncode == 3
        assert "deploy.local: Redis ended by itself; its log says" in errors


def test_command_without_java_says_so_in_one_line() -> None:
    with program("-m", "deploy.local", "up", PATH="", JAVA_HOME="", **NO_DOCKER) as command:
        said, errors = command.communicate(timeout=20)
    assert command.returncode == 3
    assert said == ""
    assert errors.count("\n") == 1
    for words in ("is not set; no Docker engine answers; java is not installed", "apt install"):
        assert words in errors


@pytest.mark.parametrize("service", ["redis", "postgres"])
def test_container_answers_and_is_removed_when_its_user_is_killed(service: str) -> None:
    must_have_docker()
    with had(getattr(local, service)()) as contained:
        assert contained.how == "docker"
        assert answers(contained)
    using = f"""
import time
from deploy import local
with local.{service}() as service:
    print(service.url, flush=True)
    time.sleep(60)
"""
    with program("-c", using) as user:
        contained = type(contained)(first_line(user).strip(), "docker")
        assert answers(contained)
        assert names_of_containers(service)
        user.kill()
        wait_until(lambda: not names_of_containers(service), within=15.0)
        assert not answers(contained)


def answers(service: local.Redis | local.Postgres) -> bool:
    try:
        if isinstance(service, local.Redis):
            return ping(service)
        with psycopg.connect(service.url, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except (psycopg.OperationalError, redis_client.ConnectionError):
        return False


def names_of_containers(service: str) -> list[str]:
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"name=pairscore-{service}-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return listed.stdout.split()


def pytest_run(folder: Path, test: str, **environment: str) -> tuple[int, str]:
    file = folder / "test_it.py"
    file.write_text(test)
    plugins = ("-p", "tests.services", "-p", "tests.conftest", "-p", "no:cacheprovider")
    arguments = ("-m", "pytest", "-ra", "--rootdir", str(folder), *plugins, str(file))
    with program(*arguments, PYTHONPATH=str(ROOT), **NO_DOCKER, **environment) as run:
        said, _ = run.communicate(timeout=60)
    return run.returncode, said


@pytest.mark.parametrize(("ci", "code", "outcome"), [("true", 1, "1 error"), ("", 0, "1 skipped")])
def test_missing_service_fails_in_ci_and_is_skipped_elsewhere(
    tmp_path: Path, ci: str, code: int, outcome: str
) -> None:
    test = "def test_it(redis_service): pass"
    ended, said = pytest_run(tmp_path, test, PATH="", CI=ci)
    assert ended == code, said
    assert outcome in said
    assert "redis-server is not installed" in said


def test_tests_take_a_given_address_and_no_other_setting(
    tmp_path: Path, redis: local.NativeRedis
) -> None:
    test = """
import os
def test_it(redis_service, topic_prefix):
    assert redis_service.how == "environment"
    assert not [name for name in os.environ if name.startswith("PAIRSCORE_")]
    assert topic_prefix.endswith(".")
"""
    ended, said = pytest_run(tmp_path, test, PAIRSCORE_REDIS__URL=redis.url)
    assert ended == 0, said
    assert "1 passed" in said
