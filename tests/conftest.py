"""What every test can rely on."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest_plugins = ["tests.services", "tests.faults.telling"]


def pytest_configure() -> None:
    # A shell's background job ignores it, and so would every process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Once and first: fixtures of whole modules read settings too.
@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("PAIRSCORE_")]:
            patch.delenv(name)
        yield


# Commands that run in the process of tests send the logs of all of it to stderr, as JSON.
@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    with _restored_logs():
        yield


# What fixtures of a whole module run is there before the first test.
@pytest.fixture(autouse=True, scope="module")
def _logs_as_they_were_before_the_module() -> Iterator[None]:
    with _restored_logs():
        yield


@contextmanager
def _restored_logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = [
        *(each for each in root.handlers if type(each).__module__.startswith("_pytest")),
        *(each for each in handlers if not type(each).__module__.startswith("_pytest")),
    ]
    root.setLevel(level)
    logging.captureWarnings(capture=False)
