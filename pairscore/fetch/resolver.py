"""Tells a name that does not exist from a resolver that could not say, which libcurl does not."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

from pairscore.pair import Failure

# RFC 6761 section 6.4: nothing under it ever resolves.
_NEVER = ".invalid"
_ABSENT = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class NameCheck:
    """Asks the system's resolver again about names that failed, off the fetch thread."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pairscore-dns")

    def settle(self, url: str, failure: Failure, done: Callable[[Failure], None]) -> None:
        """Call `done` from another thread with `failure`, permanent if there is no such name.

        `url` may be anything that a redirect led to.
        """
        self._pool.submit(self._settle, url, failure, done)

    def close(self) -> None:
        """Give up what has not begun; a lookup that hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _settle(url: str, failure: Failure, done: Callable[[Failure], None]) -> None:
        host = _host_of(url)
        done(replace(failure, retryable=host is not None and not does_not_exist(host)))


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


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
