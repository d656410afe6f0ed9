"""uvicorn with limits of its own on connections, heads and bodies, so that the slow stop no others.

A head has to come in time and in size, a body at a rate; who does neither is hung up on. Uvicorn
itself has limits on what is between requests only.
"""

import asyncio
import fcntl
import logging
import resource
import sys
import termios
from asyncio import TimerHandle, Transport
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from producer.api.problems import Kind, ProblemError
from shared.settings import ApiOptions

HEAD_BYTES: Final = 65_536
"""The longest head of a request, with all its headers."""

STREAMED: Final = frozenset(
    {"text/csv", "application/x-ndjson", "application/jsonl", "application/ndjson"}
)
"""Media types of bodies that go to a file."""

RATE_AFTER_SECONDS: Final = 10.0
"""A body has so long before its rate counts."""

_OWN_DESCRIPTORS: Final = 512
_QUEUED: Final = termios.TIOCOUTQ  # SIOCOUTQ, of a socket
_CLOSE: Final = {"Connection": "close"}

_log = logging.getLogger(__name__)


def connection_limit(wanted: int) -> int:
    """How many connections this process can have, at most `wanted`; raises its soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OWN_DESCRIPTORS
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = max(1, soft - _OWN_DESCRIPTORS)
    if possible < wanted:
        _log.warning(
            "this process may open %d files: %d connections at most, not the %d of "
            "PAIRSCORE_API__CONNECTIONS; raise `ulimit -n`",
            *(soft, possible, wanted),
        )
    return min(wanted, possible)


class Connection(HttpToolsProtocol):
    """Hangs up where a head does not come in time or is too long, or there are too many.

    And where an answer is not read.
    """

    head_seconds: ClassVar[float]
    unread_seconds: ClassVar[float]
    most: ClassVar[int]
    _in_head = True
    _head_bytes = 0
    _head_timer: TimerHandle | None = None
    _unread_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head, or hang up."""
        super().connection_made(transport)
        self._unanswered: deque[RequestResponseCycle] = deque()  # in the order of their answers
        # Writing pauses while anything is unsent, so that all of it has its time.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more, and end what answers; uvicorn tells the last request only."""
        self._stop_waiting()
        self._read_on()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """What was written is not read yet: wait for that, for as long as some of it is."""
        super().pause_writing()
        self._await_reading()

    def _await_reading(self) -> None:
        self._read_on()
        self._unread_timer = self.loop.call_later(
            self.unread_seconds, self._unread, _unsent(self.transport)
        )

    def _unread(self, before: int) -> None:
        self._unread_timer = None
        if _unsent(self.transport) < before:
            self._await_reading()
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """It is read."""
        self._read_on()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + len(data):
                self._refuse(431, "Request Header Fields Too Large")
                return
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        """What comes next is a head."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Hang up where a body was not waited for: what comes of it would look like a request."""
        self._unanswered.popleft()
        super().on_response_complete()
        if not self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read_on(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(408, "Request Timeout")

    def _refuse(self, status: int, reason: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                f"HTTP/1.1 {status} {reason}\r\nconnection: close\r\n"
                "content-length: 0\r\n\r\n".encode()
            )
            self.transport.close()


def _unsent(transport: Transport) -> int:
    """The bytes that the other side has not taken yet: here, and in the kernel where it tells."""
    size = transport.get_write_buffer_size()
    with suppress(OSError):
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), _QUEUED, bytes(4))
        size += int.from_bytes(queued, sys.byteorder)
    return size


def media_type(content_type: str) -> str:
    """The media type of a `Content-Type`, without its parameters, in lower case."""
    return content_type.partition(";")[0].strip(" \t").lower()


def make_protocol(options: ApiOptions, connections: int) -> type[Connection]:
    """The protocol of a connection, with these limits."""
    limits = {
        "head_seconds": options.head_seconds,
        "unread_seconds": options.idle_seconds,
        "most": connections,
    }
    return type("LimitedConnection", (Connection,), limits)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """ASGI middleware: how long a body may be, and how slowly it may come."""

    app: ASGIApp
    options: ApiOptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        size = 0
        more = True

        async def watched() -> Message:
            nonlocal size, more
            if not more:
                return await receive()  # waits for the client to go away
            try:
                async with asyncio.timeout(self.options.idle_seconds):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            if message["type"] != "http.request":
                return message
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > limit:
                raise ProblemError(
                    Kind.TOO_LARGE, f"the body is longer than {limit:,} bytes", headers=_CLOSE
                )
            seconds = loop.time() - begun
            if more and seconds > RATE_AFTER_SECONDS and size < seconds * self.options.body_rate:
                raise self._too_slow()
            return message

        await self.app(scope, watched, send)

    def _limit(self, scope: Scope) -> int:
        if scope["method"] == "POST" and scope["path"] == "/v1/jobs":
            # The first one, as the route has it.
            kinds = [value for name, value in scope["headers"] if name == b"content-type"]
            if kinds and media_type(kinds[0].decode("latin-1")) in STREAMED:
                return self.options.upload_bytes
        return self.options.json_bytes

    def _too_slow(self) -> ProblemError:
        return ProblemError(
            Kind.TOO_SLOW,
            f"a body has to come at {self.options.body_rate:,} bytes a second, and without a break "
            f"of {self.options.idle_seconds:.0f} s",
            headers=_CLOSE,
        )
