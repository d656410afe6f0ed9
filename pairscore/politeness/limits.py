"""How often each host may be asked: the default, and hosts that want or stand something else.

Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

_LIMIT: Final = re.compile(
    r"(?P<host>(?:\*\.)?[a-z0-9_.:\[\]-]+)=(?P<rate>[0-9]+(?:\.[0-9]+)?)(?:/(?P<per_host>[0-9]+))?",
    re.IGNORECASE | re.ASCII,
)
MOST_RATE: Final = 100_000.0
_LEAST_RATE: Final = 0.001
_MOST_CONNECTIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class HostLimit:
    """Requests a second (0: any number) and connections at once.

    `host` is a name or an address in lower case, or `*.example.org`, which is everything under it;
    `connections` is None where it is that of all hosts.
    """

    host: str
    rate: float
    connections: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What one host is given: requests a second (0: any number), and connections at once."""

    rate: float
    connections: int

    @property
    def interval(self) -> int:
        """Microseconds between two requests, 0 for none."""
        return round(1e6 / self.rate) if self.rate else 0

    def share(self, workers: int) -> "Budget":
        """What each of so many may ask, if they cannot ask one another."""
        return Budget(self.rate / workers, max(1, self.connections // workers))


def parse_limits(text: str) -> tuple[HostLimit, ...]:
    """Limits such as `*.example.org=50/16, cdn.example.com=200`: host=rate/connections.

    Raises:
        ValueError: with what is wrong, and how it is written.
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> HostLimit:
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no limit; one looks like *.example.org=50/16 (requests a second, "
            "0 for any number, and connections) or cdn.example.com=200"
        )
    rate = float(found["rate"])
    connections = None if found["per_host"] is None else int(found["per_host"])
    if rate > MOST_RATE or 0 < rate < _LEAST_RATE:
        raise ValueError(f"{text!r}: a rate is 0 or from {_LEAST_RATE} to {MOST_RATE:,.0f}")
    if connections is not None and not 0 < connections <= _MOST_CONNECTIONS:
        raise ValueError(f"{text!r}: connections are from 1 to {_MOST_CONNECTIONS:,}")
    return HostLimit(_host(found["host"].lower()), rate, connections)


def _host(text: str) -> str:
    host = text.strip("[]")
    if ":" in host:
        try:
            return str(ip_address(host))
        except ValueError:
            raise ValueError(f"{text!r} is no host; a limit has no port") from None
    return host


class HostLimits:
    """The budget of each host: that of its name, else of the longest `*.` it is under, else `rest`.

    This machine itself (loopback addresses and `localhost`) is nobody else's server, and is asked
    at any rate, if no limit names it.
    """

    def __init__(self, rest: Budget, limits: Sequence[HostLimit] = ()) -> None:
        self._rest = rest
        self._own = Budget(0.0, rest.connections)
        self._named = {
            each.host: Budget(each.rate, each.connections or rest.connections) for each in limits
        }

    def of(self, host: str) -> Budget:
        """The budget of a host, by its name or address in lower case."""
        name = host.removesuffix(".")
        named = self._named.get(name)
        if named is not None:
            return named
        rest = name
        while self._named and "." in rest:
            rest = rest.partition(".")[2]
            under = self._named.get(f"*.{rest}")
            if under is not None:
                return under
        return self._own if _is_own(name) else self._rest


def _is_own(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    if not (host.startswith("127.") or ":" in host):
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
