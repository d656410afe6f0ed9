"""libcurl's multi interface on a selector: sockets and the timer in, finished handles out."""

import os
import selectors
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import pycurl

_EVENTS: Final = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class CurlLoop:
    """Drives easy handles from one thread; `wake` alone may be called from another."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timer: float | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        # A late wake must not write into whatever got the descriptor next.
        self._open = True
        self._opening = threading.Lock()
        self._multi: Any = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def add(self, handle: object) -> None:
        """Begin a transfer."""
        self._multi.add_handle(handle)

    def remove(self, handle: object) -> None:
        """Take a handle out, whether its transfer has ended or not."""
        self._multi.remove_handle(handle)

    def wake(self) -> None:
        """Make `turn` return soon; nothing happens once it is closed."""
        # A full pipe holds wakes enough.
        with self._opening, suppress(BlockingIOError):
            if self._open:
                os.write(self._wake_write, b"\0")

    def turn(self, timeout: float | None) -> Iterator[tuple[object, int, str]]:
        """Wait for news, at most `timeout` seconds, and give what has ended.

        Each is (handle, libcurl's code, message); the caller removes the handle.
        """
        for key, mask in self._selector.select(self._patience(timeout)):
            if key.fd == self._wake_read:
                self._drain_wakes()
            else:
                self._multi.socket_action(key.fd, _curl_mask(mask))
        if self._timer is not None and self._clock() >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        left = 1
        while left:
            left, succeeded, failed = self._multi.info_read()
            yield from ((handle, 0, "") for handle in succeeded)
            yield from failed

    def close(self) -> None:
        """Close the multi handle and what it was woken by; no transfer may be left in it."""
        with self._opening:
            self._open = False
        self._multi.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _patience(self, timeout: float | None) -> float | None:
        if self._timer is None:
            return timeout
        due = max(0.0, self._timer - self._clock())
        return due if timeout is None else min(due, timeout)

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else self._clock() + milliseconds / 1000

    def _watch(self, event: int, descriptor: int, _multi: object, _data: object) -> None:
        # A descriptor that was closed and given out again may or may not still be registered, so
        # each change goes by what the selector knows rather than by what it should.
        known = descriptor in self._selector.get_map()
        if event == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(descriptor)
        elif known:
            self._selector.modify(descriptor, _EVENTS[event])
        else:
            self._selector.register(descriptor, _EVENTS[event])


def _curl_mask(mask: int) -> int:
    read = pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0
    write = pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
    return int(read | write)
