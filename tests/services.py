"""Real services for tests, each started once a session, and only if a test asks for it.

A pytest plugin. One that cannot be had fails the tests that ask for it where CI is set, and skips
them with the reason elsewhere. An address in the environment is taken, although the tests
themselves see no settings of the developer's.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from deploy import local
from deploy.local.container import engine_must_answer

Service = TypeVar("Service")

_environment = pytest.StashKey[Mapping[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    # Before fixtures remove the settings from it.
    config.stash[_environment] = dict(os.environ)


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[local.Kafka]:
    """A cluster of one broker, of all tests: see `topic_prefix`."""
    with had(local.kafka(environment=pytestconfig.stash[_environment])) as service:
        yield service


@pytest.fixture(scope="session")
def redis_service(pytestconfig: pytest.Config) -> Iterator[local.Redis]:
    """A Redis of all tests."""
    with had(local.redis(environment=pytestconfig.stash[_environment])) as service:
        yield service


@pytest.fixture(scope="module")
def own_redis() -> Iterator[local.NativeRedis]:
    """A Redis of a module's own: it may be killed, made to hang, filled and emptied."""
    with had(local.redis(native=True)) as redis:
        yield redis


@pytest.fixture
def restored(own_redis: local.NativeRedis) -> Iterator[local.NativeRedis]:
    """The same, which is as new again after the test, whatever that did to it."""
    own_redis.start()
    yield own_redis
    own_redis.resume()
    own_redis.kill()
    own_redis.start()


@pytest.fixture(scope="session")
def postgres_service(pytestconfig: pytest.Config) -> Iterator[local.Postgres]:
    """A PostgreSQL of all tests."""
    with had(local.postgres(environment=pytestconfig.stash[_environment])) as service:
        yield service


@pytest.fixture
def topic_prefix() -> str:
    """What the names of a test's own topics, groups and transactional ids begin with."""
    return f"t{uuid.uuid4().hex[:8]}."


def must_have_docker() -> None:
    """Skip the test where no Docker engine answers: in CI too, for processes do as well."""
    try:
        engine_must_answer()
    except local.WayClosed as closed:
        pytest.skip(str(closed))


@contextlib.contextmanager
def had(context: AbstractContextManager[Service]) -> Iterator[Service]:
    """Enter a context of `deploy.local`, or end the test: failed in CI, else skipped."""
    with contextlib.ExitStack() as stack:
        try:
            service = stack.enter_context(context)
        except local.Unavailable as error:
            if os.environ.get("CI"):
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))
        yield service
