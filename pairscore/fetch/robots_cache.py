"""What the origins that were asked lately want of us.

Pure bookkeeping without threads or a clock; the fetch thread owns it.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from pairscore.fetch.request import FetchResult
from pairscore.fetch.robots import Rules, origin_of, read_rules
from pairscore.fetch.url import Url
from pairscore.pair import Failure, Reason

# Key, entry and node of the ordered dictionary, in bytes.
_OVERHEAD: Final = 500


@dataclass(frozen=True, slots=True)
class Allowed:
    """The URL may be asked for, and its host every `delay` seconds, if that is not None."""

    delay: float | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    rules: Rules
    until: float


class RobotsCache:
    """The rules of origins for `agent`, each until it expires; the least recently used go first.

    There are at most `max_origins` of them, of about `max_bytes` bytes in all, or one alone. Times
    are seconds of one clock that never goes back.
    """

    def __init__(self, agent: str, max_origins: int = 10_000, max_bytes: int = 64_000_000) -> None:
        self._agent = agent
        self._max_origins = max_origins
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        """How many origins there are, those that are too old included."""
        return len(self._entries)

    def decision(self, url: Url, now: float) -> Allowed | Failure | None:
        """Whether `url` may be asked for; None if its origin's robots.txt is to be asked first.

        The failure is `disallowed`, or what kept the robots.txt from being asked. If it may be
        tried again, its `retry_after` is when the robots.txt will be.
        """
        origin = origin_of(url)
        entry = self._entries.get(origin)
        if entry is None:
            return None
        if entry.until <= now:
            self._discard(origin)
            return None
        self._entries.move_to_end(origin)
        refusal = entry.rules.refusal(url)
        if refusal is None:
            return Allowed(entry.rules.delay)
        if refusal.retryable and refusal.reason is Reason.DISALLOWED:
            return replace(refusal, retry_after=entry.until - now)
        return refusal

    def learn(self, url: Url, result: FetchResult, now: float) -> None:
        """Note what asking for the robots.txt of the origin of `url` has come to.

        At the same `now`, there is a decision on every URL of that origin afterwards.
        """
        rules, seconds = read_rules(result, self._agent)
        origin = origin_of(url)
        self._discard(origin)
        self._entries[origin] = _Entry(rules, now + seconds)
        self._bytes += rules.size + _OVERHEAD
        while len(self._entries) > 1 and (
            len(self._entries) > self._max_origins or self._bytes > self._max_bytes
        ):
            self._discard(next(iter(self._entries)))

    def _discard(self, origin: str) -> None:
        entry = self._entries.pop(origin, None)
        if entry is not None:
            self._bytes -= entry.rules.size + _OVERHEAD
