"""Tells a name that does not exist from a resolver that could not say, which libcurl does not."""

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeAlias

from pairscore.pair import Failure

_Question: TypeAlias = tuple[str, Failure, Callable[[Failure], None]]

# RFC 6761 section 6.4: nothing under it ever resolves.
_NEVER = ".invalid"
_ABSENT = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class NameCheck:
    """Asks the system's resolver again about names that failed, off the fetch thread.

    Its threads, `threads` of them when they are needed, do not keep the process from ending.
    """

    def __init__(self, threads: int = 4) -> None:
        self._limit = threads
        self._threads: list[threading.Thread] = []
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._closed = False

    def settle(self, host: str, failure: Failure, done: Callable[[Failure], None]) -> None:
        """Call `done` from another thread with `failure`, permanent if there is no such name.

        Only one thread may call this.
        """
        self._questions.put((host, failure, done))
        if len(self._threads) < self._limit:
            thread = threading.Thread(target=self._run, name="pairscore-dns", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Give up what has not begun; a lookup that hangs is not waited for."""
        self._closed = True
        for _ in self._threads:
            self._questions.put(None)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None and not self._closed:
            host, failure, done = question
            done(replace(failure, retryable=not does_not_exist(host)))


def does_not_exist(host: str) -> bool:
    """Whether the system's resolver says that `host` has no address (NXDOMAIN or no data)."""
    if host.rstrip(".").endswith(_NEVER):
        return True
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return error.errno in _ABSENT
    except ValueError:
        # No encoding of it is a name: a label too long, characters that IDNA has no form for, NUL.
        return True
    return False
