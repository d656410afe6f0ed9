"""A `Fetcher` whose results a test can wait for."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Any, Self

from pairscore.fetch import Fetched, Fetcher, FetchResult, Url, Validators, parse_url
from pairscore.pair import Failure
from pairscore.politeness.budgets import Budgets
from pairscore.settings import FetchSettings

DEADLINE = 20.0


class Fetching:
    """Fetches from loopback, with retries that do not wait unless the server asks for it."""

    def __init__(
        self, *, jitter: float = 0.0, budgets: Budgets | None = None, **settings: Any
    ) -> None:
        settings = {"allow_networks": "127.0.0.0/8", **settings}
        self.crashes: list[BaseException] = []
        self.crashed = threading.Event()
        self.fetcher = Fetcher(
            FetchSettings(**settings),
            on_crash=self._crash,
            budgets=budgets,
            jitter=lambda: jitter,
        )

    def start(
        self, url: str, known: Validators | None = None, *, urgent: bool = False
    ) -> Future[FetchResult]:
        """Begin to fetch; the body keeps its slot until the test says that it is consumed."""
        parsed = parse_url(url)
        future: Future[FetchResult] = Future()
        if isinstance(parsed, Url):
            self.fetcher.fetch(parsed, future.set_result, known, urgent=urgent)
        else:
            future.set_result(parsed)
        return future

    def consume(self, *futures: Future[FetchResult]) -> None:
        """Consume each body as soon as it is there."""
        for future in futures:
            future.add_done_callback(self._consume)

    def get(self, url: str, known: Validators | None = None) -> FetchResult:
        """Fetch and consume."""
        future = self.start(url, known)
        self.consume(future)
        return results([future])[0]

    def get_all(self, urls: Iterable[str]) -> list[FetchResult]:
        """Fetch many at once and consume each as it comes; results are in the order of `urls`."""
        futures = [self.start(url) for url in urls]
        self.consume(*futures)
        return results(futures)

    def body(self, url: str) -> bytes:
        """Fetch what is expected to succeed."""
        result = self.get(url)
        assert isinstance(result, Fetched), result
        return result.body

    def failure(self, url: str) -> Failure:
        """Fetch what is expected to fail."""
        result = self.get(url)
        assert isinstance(result, Failure), result
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.fetcher.close()
        if error is None:
            assert self.crashes == []

    def _consume(self, future: Future[FetchResult]) -> None:
        result = future.result()
        if isinstance(result, Fetched):
            self.fetcher.consumed(result)

    def _crash(self, error: BaseException) -> None:
        self.crashes.append(error)
        self.crashed.set()


def results(futures: Iterable[Future[FetchResult]], within: float = DEADLINE) -> list[FetchResult]:
    """The results of transfers that are expected to end."""
    futures = list(futures)
    _, left = wait_for(futures, timeout=within)
    assert not left, f"{len(left)} of {len(futures)} transfers did not end"
    return [future.result() for future in futures]


def fetched(futures: Iterable[Future[FetchResult]]) -> list[Fetched]:
    """The results of transfers that are expected to succeed."""
    ended = results(futures)
    successes = [result for result in ended if isinstance(result, Fetched)]
    assert len(successes) == len(ended), ended
    return successes


def parsed_url(text: str) -> Url:
    """A URL that is expected to be one."""
    url = parse_url(text)
    assert isinstance(url, Url), url
    return url


def wait_until(condition: Callable[[], bool], within: float = DEADLINE) -> None:
    """Wait for what another thread or process is about to do, at most `within` seconds."""
    pause, step = threading.Event(), 0.005
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        pause.wait(step)
        step = min(0.1, 2 * step)  # a condition may cost the other one time
