"""Ports of our own on loopback."""

import contextlib
import secrets
import socket
from typing import Final

from deploy.local.ways import HOST

# Below the range that systems take the ports of outgoing connections from (32768 and up on Linux,
# 49152 and up on macOS). There, the port of a service that is down for a while goes to any client,
# even to one that tries to reach it, which then is connected to itself and keeps the service out.
_LOWEST: Final = 15_000
_HIGHEST: Final = 32_000


def free_ports(count: int) -> list[int]:
    """Different ports of loopback that nothing listens on, chosen at random."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
            trial = held.enter_context(socket.socket())
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind((HOST, port))
                trial.listen(1)  # or the same port could be had once more with SO_REUSEADDR
                ports.append(port)
        return ports


def listens(port: int) -> bool:
    """Whether something on loopback takes connections to `port`."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True
