"""A request for a URL: what is asked for now, how it got there, and what becomes of it.

Pure. Redirects are followed here rather than by libcurl, so that where they lead has its turns, its
limit and its checks like any other host.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from pairscore.fetch.url import Url, parse_url
from pairscore.pair import Failure, Reason


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body of 2xx, decoded from its content encoding, after `attempts` attempts."""

    body: bytes
    attempts: int


FetchResult: TypeAlias = Fetched | Failure


class Request:
    """Asks for `url` until `done` is called with the result.

    `target` is what to ask for now: `url`, or where it has led. `attempts` counts this one;
    `seconds` is how long it has taken so far, without the waiting for turns. `queued_at` is when it
    began to wait for its host, by the clock of such waits.
    """

    __slots__ = ("_redirects", "attempts", "done", "queued_at", "seconds", "target", "url")

    def __init__(self, url: Url, done: Callable[[FetchResult], None]) -> None:
        self.url = url
        self.done = done
        self.target = url
        self.attempts = 1
        self.seconds = 0.0
        self.queued_at = 0.0
        self._redirects = 0

    def follow(self, location: str, seconds: float, limit: int) -> Failure | None:
        """Make `location` the target, after `seconds` seconds; a failure if that may not be."""
        if self._redirects >= limit:
            return Failure(Reason.TOO_MANY_REDIRECTS, f"more than {limit}")
        target = parse_url(location)
        if isinstance(target, Failure):
            return replace(target, detail=f"redirected to {target.detail}")
        self.target = target
        self.seconds += seconds
        self._redirects += 1
        return None

    def begin_again(self) -> None:
        """Make the next attempt, from `url` on."""
        self.attempts += 1
        self.target = self.url
        self.seconds = 0.0
        self._redirects = 0
