"""What is in flight: rows wait for URLs, URLs wait for contents, and each is worked on once.

The one table that the stages share. All of it is under one lock, held only for look-ups.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pairscore.cache import BoundedCache
from pairscore.fetch import Url
from pairscore.pair import Failure, Outcome

Embedding: TypeAlias = NDArray[np.float32]
Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Row:
    """A pair that was submitted, and the future of its outcome."""

    caption: str
    future: Future[Outcome]


@dataclass(slots=True, eq=False)
class UrlWork:
    """A URL in flight and the rows that want its image; `attempts` is known once it was fetched."""

    url: Url
    rows: list[Row] = field(default_factory=list)
    attempts: int = 0


@dataclass(slots=True, eq=False)
class ContentWork:
    """An image in flight, by the hash of its bytes, and the URLs that led to it.

    `pixels` (uint8 [3, height, width]) are there when it has been decoded, `embedding` (float32
    [d], of length 1) when it has been encoded.
    """

    sha256: str
    urls: list[UrlWork] = field(default_factory=list)
    pixels: Pixels | None = None
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image whose embedding (float32 [d]) is known, and the rows that can now be scored."""

    sha256: str
    embedding: Embedding
    rows: tuple[tuple[Row, int], ...]  # each with the attempts to say in its outcome


class InFlight:
    """Single flight by URL and by content, with what was found out lately in front of both.

    A failure that would come out differently another time is not remembered; any other is, with
    `attempts` 0 for rows that come later.
    """

    def __init__(self, cache_bytes: int, ttl: float, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._rows: set[Row] = set()
        self._urls: dict[str, UrlWork] = {}
        self._contents: dict[str, ContentWork] = {}
        embeddings = cache_bytes * 9 // 20
        self._found: BoundedCache[str, str | Failure] = BoundedCache(
            cache_bytes - 2 * embeddings, ttl, clock
        )
        self._images: BoundedCache[str, Embedding] = BoundedCache(embeddings, ttl, clock)
        self.captions: BoundedCache[str, tuple[Embedding, bool]] = BoundedCache(
            embeddings, ttl, clock
        )

    def admit(self, url: Url, row: Row) -> UrlWork | Encoded | Failure | None:
        """Take a row in.

        Returns:
            The work of a URL that has to be fetched, or what is known already (of this row alone),
            or None if the row waits for work that has begun.
        """
        with self._lock:
            self._rows.add(row)
            work = self._urls.get(url.text)
            if work is not None:
                work.rows.append(row)
                return None
            found = self._found.get(url.text)
            if isinstance(found, Failure):
                return replace(found, attempts=0)
            embedding = self._images.get(found) if found else None
            if found and embedding is not None:
                return Encoded(found, embedding, ((row, 0),))
            work = UrlWork(url, [row])
            self._urls[url.text] = work
            return work

    def fetched(self, work: UrlWork, sha256: str) -> ContentWork | Encoded | None:
        """Say what a URL led to.

        Returns:
            The work of an image that has to be decoded, or its embedding where that is known, or
            None if the URL waits for an image that is being worked on.
        """
        with self._lock:
            self._found.put(work.url.text, sha256, len(work.url.text) + len(sha256))
            content = self._contents.get(sha256)
            if content is not None:
                content.urls.append(work)
                return None
            embedding = self._images.get(sha256)
            if embedding is not None:
                return Encoded(sha256, embedding, self._leave(work))
            content = ContentWork(sha256, [work])
            self._contents[sha256] = content
            return content

    def encoded(self, content: ContentWork, embedding: Embedding) -> Encoded:
        """End the work on an image: later rows find its embedding, those that waited are given."""
        with self._lock:
            self._images.put(content.sha256, embedding, embedding.nbytes + len(content.sha256))
            del self._contents[content.sha256]
            rows = tuple(pair for work in content.urls for pair in self._leave(work))
            return Encoded(content.sha256, embedding, rows)

    def failed(self, work: UrlWork | ContentWork, failure: Failure) -> list[tuple[Row, Failure]]:
        """End the work on a URL or an image with a failure, for each row that waited."""
        with self._lock:
            if isinstance(work, ContentWork):
                del self._contents[work.sha256]
                urls = work.urls
            else:
                urls = [work]
            ended: list[tuple[Row, Failure]] = []
            for url in urls:
                if not failure.retryable:
                    text = url.url.text
                    self._found.put(text, failure, len(text) + len(failure.detail))
                own = replace(failure, attempts=url.attempts)
                ended += ((row, own) for row, _ in self._leave(url))
            return ended

    def settle(self, outcomes: Iterable[tuple[Row, Outcome]]) -> None:
        """Give rows their outcomes; the futures' callbacks run in this thread."""
        for row, outcome in outcomes:
            with self._lock:
                known = row in self._rows
                self._rows.discard(row)
            if known:
                row.future.set_result(outcome)

    def abandon(self, error: BaseException) -> None:
        """Let every row in flight raise `error`."""
        with self._lock:
            rows, self._rows = self._rows, set()
        for row in rows:
            row.future.set_exception(error)

    def waiting(self) -> int:
        """How many images are being fetched, decoded or encoded."""
        return len(self._urls)

    def _leave(self, work: UrlWork) -> tuple[tuple[Row, int], ...]:
        self._urls.pop(work.url.text, None)
        return tuple((row, work.attempts) for row in work.rows)
