"""What every test can rely on."""

import logging
import os
import signal
from collections.abc import Iterator

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


# Commands that a test runs in its own process send the logs of all of it to stderr, as JSON.
@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = [
        *(each for each in root.handlers if type(each).__module__.startswith("_pytest")),
        *(each for each in handlers if not type(each).__module__.startswith("_pytest")),
    ]
    root.setLevel(level)
    logging.captureWarnings(capture=False)
