"""Lets requests on that their origins' robots.txt allow; the others wait for it, or end.

Belongs to the fetch thread.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pairscore.fetch.request import FetchResult, Origin, Request
from pairscore.fetch.robots import origin_of, product_token, robots_url
from pairscore.fetch.robots_cache import RobotsCache
from pairscore.fetch.robots_tag import opted_out
from pairscore.fetch.url import Url
from pairscore.pair import Failure, Reason


class Gate:
    """What robots.txt and `X-Robots-Tag` want, heeded."""

    def __init__(
        self,
        user_agent: str | None,
        *,
        ask: Callable[[Url, Callable[[FetchResult], None], bool], None],
        go: Callable[[Request, float], None],
        clock: Callable[[], float],
    ) -> None:
        """`ask` fetches a robots.txt, urgently or not; `go` lets a request on, one of so many s."""
        self._agent: Final = product_token(user_agent)
        self._cache = RobotsCache(self._agent)
        self._ask = ask
        self._go = go
        self._clock = clock
        self._parked: dict[str, list[Request]] = {}

    def admit(self, request: Request) -> None:
        """Let a request on to its target, end it, or keep it until that is known."""
        self._admit(request, self._clock())

    def refusal(self, origin: Origin, attempts: int) -> Failure | None:
        """Why what was fetched is not to be used; None if it is."""
        directive = opted_out(origin.robots, self._agent)
        if directive is None:
            return None
        return Failure(Reason.DISALLOWED, f"X-Robots-Tag: {directive}", attempts)

    def _admit(self, request: Request, now: float) -> None:
        decision = self._cache.decision(request.target, now)
        if decision is None:
            self._park(request)
        elif isinstance(decision, Failure):
            request.done(replace(decision, attempts=request.attempts - 1))
        else:
            self._go(request, decision.delay or 0.0)

    def _park(self, request: Request) -> None:
        target = request.target
        waiting = self._parked.setdefault(origin_of(target), [])
        waiting.append(request)
        if len(waiting) == 1:
            self._ask(
                robots_url(target), lambda result: self._learned(target, result), request.urgent
            )

    def _learned(self, url: Url, result: FetchResult) -> None:
        now = self._clock()
        self._cache.learn(url, result, now)
        for request in self._parked.pop(origin_of(url)):
            self._admit(request, now)
