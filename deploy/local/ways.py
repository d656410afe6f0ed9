"""The three ways to have a service, in the order in which they are tried.

1. An address in the environment is somebody's service: it is used as it is, never started or ended.
2. A Docker engine that answers runs it in a container.
3. The programs of this machine run it as a process.
"""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pairscore.errors import EnvironmentFault

How: TypeAlias = Literal["environment", "docker", "native"]
Service = TypeVar("Service")

HOST: Final = "127.0.0.1"
_CONNECT_SECONDS = 5.0


class Unavailable(EnvironmentFault):
    """A service cannot be had; the text says why, for each way, and what to do."""


class WayClosed(EnvironmentFault):
    """A service cannot be had in one way, or does not come back in it; the text says why."""


@contextlib.contextmanager
def first_open(
    service: str, ways: Sequence[AbstractContextManager[Service]], remedy: str
) -> Iterator[Service]:
    """The service by the first way that is open.

    Raises:
        Unavailable: none is.
    """
    reasons = []
    with contextlib.ExitStack() as stack:
        for way in ways:
            try:
                had = stack.enter_context(way)
            except WayClosed as closed:
                reasons.append(str(closed))
            else:
                yield had
                return
    raise Unavailable(f"no {service}: {'; '.join(reasons)}; {remedy}")


def must_listen(variable: str, addresses: str, default_port: int) -> None:
    """See that something listens where the environment says; who names an address means no other.

    Args:
        variable: the name of the variable.
        addresses: its value: URLs, or hosts with ports, between commas; one has to listen.
        default_port: of an address without one.

    Raises:
        Unavailable: none does.
    """
    errors = []
    for address in addresses.split(","):
        try:
            parts = urlsplit(address.strip() if "://" in address else f"//{address.strip()}")
            place = (parts.hostname or HOST, parts.port or default_port)
            socket.create_connection(place, _CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            errors.append(str(error))
        else:
            return
    # The value itself may hold a password.
    raise Unavailable(
        f"{variable}: nothing listens there ({'; '.join(errors)}); start it, or unset the variable"
    )
