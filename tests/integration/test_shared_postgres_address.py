"""How long a database is waited for that does not answer, whatever its address says."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from pairscore.errors import EnvironmentFault, SettingsError
from shared.results.postgres import Address

STEP_SECONDS = 15.0
"""What is left of the 30 s of a start for its last try."""


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def seconds_until_given_up(url: str) -> float:
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match="setting PAIRSCORE_POSTGRES_URL: PostgreSQL at "):
        Address(SecretStr(url)).connect_at_start("test", seconds=0)
    return time.monotonic() - began


def test_an_address_cannot_have_a_start_wait_for_longer_than_it_may(silent):
    urls = [
        f"postgresql://{hosts}/d?connect_timeout={seconds}"
        for hosts in (silent, f"{silent},{silent}", ",".join([silent] * 6))
        for seconds in (0, 600)
    ]
    with ThreadPoolExecutor(len(urls)) as pool:
        assert max(pool.map(seconds_until_given_up, urls)) < STEP_SECONDS


def test_an_address_can_have_a_start_wait_for_less(silent):
    assert seconds_until_given_up(f"postgresql://{silent}/d?connect_timeout=2") < 4


def test_a_time_that_is_no_number_is_one_line():
    with pytest.raises(SettingsError) as error:
        Address(SecretStr("postgresql://u:hunter2@h/d?connect_timeout=soon"))
    assert str(error.value) == (
        "setting PAIRSCORE_POSTGRES_URL: connect_timeout is 'soon', and must be whole seconds"
    )
