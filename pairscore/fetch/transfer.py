"""One GET: a libcurl easy handle, configured once and reused, and what became of it."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import pycurl

from pairscore.fetch.address import AddressGuard
from pairscore.fetch.descriptors import EXHAUSTED
from pairscore.fetch.verdict import Evidence
from pairscore.settings import FetchSettings

_PROTOCOLS: Final = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
# An error page is not wanted; reading a small one keeps the connection for the next request.
_UNWANTED_BYTES: Final = 65_536
_RECEIVE_BUFFER: Final = 262_144
_ACCEPT: Final = "Accept: image/*, */*;q=0.5"
# Cache-Control, ETag, Expires, Last-Modified, Date, Age and X-Robots-Tag: their first four bytes,
# which leave most other lines out at the least cost.
_SAID: Final = frozenset({b"cach", b"etag", b"expi", b"last", b"date", b"age:", b"x-ro"})
_SAID_BYTES: Final = 8192


class _Address(Protocol):
    """The part of pycurl's CurlSockAddr that is used."""

    family: int
    socktype: int
    protocol: int
    addr: tuple[str, int]


class _HandedOver(socket.socket):
    """pycurl duplicates the descriptor and drops the object, which then closes its own."""

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class _Attempt:
    """What the callbacks note down during one GET."""

    chunks: list[bytes] = field(default_factory=list)
    received: int = 0
    status: int = 0
    over_cap: bool = False
    refused: list[str] = field(default_factory=list)
    opened: int = 0
    exhausted: bool = False
    headers_ended: bool = False
    said: list[bytes] = field(default_factory=list)
    said_bytes: int = 0
    asked: bool = False
    heard: float | None = None


class Transfer:
    """A reusable GET. Only the thread that owns the multi handle may touch it.

    `condition` is the header lines that made the last one conditional.
    """

    def __init__(
        self,
        settings: FetchSettings,
        guard: AddressGuard,
        *,
        ca_file: str,
        agent: str,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._clock = clock
        self._attempt = _Attempt()
        self.condition: tuple[str, ...] = ()
        self.handle: Any = pycurl.Curl()
        self._configure(ca_file, agent)

    def start(self, url: str, seconds: float, condition: tuple[str, ...] = ()) -> None:
        """Point the handle at `url`; adding it to a loop begins a GET of at most `seconds`.

        `condition` is the header lines that this GET, and none after it, has besides the usual.
        """
        self._attempt = _Attempt()
        self.handle.setopt(pycurl.URL, url)
        self.handle.setopt(pycurl.TIMEOUT_MS, _milliseconds(seconds))
        connecting = min(self._settings.connect_timeout, seconds)
        self.handle.setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(connecting))
        if condition != self.condition:
            self.handle.setopt(pycurl.HTTPHEADER, [_ACCEPT, *condition])
            self.condition = condition

    @property
    def heard(self) -> float | None:
        """When the server was last heard of; None before its response has begun."""
        return self._attempt.heard

    def body(self) -> bytes:
        """The body received, decoded; may be taken once."""
        chunks, self._attempt.chunks = self._attempt.chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def said(self) -> list[bytes]:
        """The header lines of the response that say what it is and for how long, as they came.

        They are those of the last response alone. Lines beyond 8,192 bytes in all are left out.
        """
        return self._attempt.said

    def evidence(self) -> Evidence:
        """What is known about an attempt that has ended."""
        info, attempt = self.handle.getinfo, self._attempt
        return Evidence(
            status=info(pycurl.RESPONSE_CODE),
            received=attempt.received,
            over_cap=attempt.over_cap,
            headers_ended=attempt.headers_ended,
            refused=tuple(attempt.refused),
            opened=attempt.opened,
            exhausted=attempt.exhausted,
            request_sent=info(pycurl.REQUEST_SIZE) > 0,
            resolved=info(pycurl.NAMELOOKUP_TIME) > 0,
            retry_after=info(pycurl.RETRY_AFTER) or None,
            seconds=info(pycurl.TOTAL_TIME),
            # A redirect may lead to any bytes, which getinfo() would decode strictly.
            location=(self.handle.getinfo_raw(pycurl.REDIRECT_URL) or b"").decode(errors="replace"),
        )

    def close(self) -> None:
        """Free the handle."""
        self.handle.close()

    def _configure(self, ca_file: str, agent: str) -> None:
        settings = self._settings
        proxy = settings.proxy.get_secret_value() if settings.proxy else ""
        options: Sequence[tuple[int, object]] = (
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, _PROTOCOLS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS),
            (pycurl.MAXFILESIZE_LARGE, settings.max_bytes),
            (pycurl.BUFFERSIZE, _RECEIVE_BUFFER),
            # Images are compressed already. A server that encodes all the same is decoded by
            # libcurl, so that the cap counts what comes out.
            (pycurl.ACCEPT_ENCODING, "identity"),
            (pycurl.HTTPHEADER, [_ACCEPT]),
            (pycurl.USERAGENT, agent),
            (pycurl.CAINFO, ca_file),
            # Empty strings, unlike unset options, also ignore the environment: its proxies, and the
            # hosts that it would have asked directly, without the guard.
            (pycurl.PROXY, proxy),
            (pycurl.NOPROXY, ""),
            (pycurl.WRITEFUNCTION, self._write),
            (pycurl.HEADERFUNCTION, self._note_header),
            (pycurl.PREREQFUNCTION, self._note_request),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
        )
        for option, value in options:
            self.handle.setopt(option, value)

    def _write(self, data: bytes) -> int | None:
        attempt = self._attempt
        attempt.heard = self._clock()
        attempt.received += len(data)
        if not 200 <= attempt.status < 300:
            return None if attempt.received <= _UNWANTED_BYTES else 0
        if attempt.received > self._settings.max_bytes:
            attempt.over_cap = True
            attempt.chunks.clear()
            return 0
        attempt.chunks.append(data)
        return None

    def _note_header(self, line: bytes) -> None:
        # getinfo() may not be called from a callback, and what to do with a body depends on its
        # status.
        attempt = self._attempt
        if line.startswith(b"HTTP/"):
            status = line.split(maxsplit=2)[1:2]
            attempt.status = int(status[0][:3]) if status and status[0].isdigit() else 0
            attempt.headers_ended = False
            attempt.said.clear()
            attempt.said_bytes = 0
        elif line[:4].lower() in _SAID:
            attempt.said_bytes += len(line)
            # What comes after the headers is a trailer, which says nothing of how long.
            if attempt.said_bytes <= _SAID_BYTES and not attempt.headers_ended:
                attempt.said.append(line)
        elif not line.strip():
            attempt.headers_ended = True
        # What a proxy says of its connection is no response; and an interim one (RFC 9110, 15.2)
        # says that the real one is still being made.
        if attempt.asked and not 100 <= attempt.status < 200:
            attempt.heard = self._clock()

    def _note_request(self, *_connection: object) -> int:
        self._attempt.asked = True
        return int(pycurl.PREREQFUNC_OK)

    def _open_socket(self, _purpose: int, address: _Address) -> socket.socket | int:
        # libcurl calls this with each address that it is about to connect to, after resolving: a
        # check here cannot be raced by DNS.
        attempt = self._attempt
        ip = address.addr[0] if address.family in (socket.AF_INET, socket.AF_INET6) else ""
        if self._settings.proxy is None and not (ip and self._guard.permits(ip)):
            attempt.refused.append(ip)
            return int(pycurl.SOCKET_BAD)
        attempt.opened += 1
        try:
            opened = _HandedOver(address.family, address.socktype, address.protocol)
            # pycurl is about to do the same, and would not say why it could not.
            os.close(os.dup(opened.fileno()))
        except OSError as error:
            # Else there is no such family here: an address that cannot be connected to.
            attempt.exhausted = error.errno in EXHAUSTED
            return int(pycurl.SOCKET_BAD)
        return opened


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
