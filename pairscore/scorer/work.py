"""What is in flight: rows wait for URLs, URLs wait for contents, and each is worked on once.

The one table that the stages share. All of it is under one lock, held only for look-ups.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pairscore.cache import Cache, CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.cache.shared import FoundUrl
from pairscore.cache.stats import Kind
from pairscore.fetch import Origin, Url
from pairscore.pair import Failure, Outcome

Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Row:
    """A pair that was submitted, the future of its outcome, and what others knew of its caption."""

    caption: str
    future: Future[Outcome]
    known: CaptionEntry | None = None


@dataclass(slots=True, eq=False)
class UrlWork:
    """A URL in flight and the rows that want its image; `attempts` is known once it was fetched.

    `earlier` is what it once led to, with the embedding of that: to be validated.
    """

    url: Url
    rows: list[Row] = field(default_factory=list)
    attempts: int = 0
    earlier: tuple[UrlEntry, Embedding] | None = None


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
    """Single flight by URL and by content, with what is in the cache in front of both.

    A failure that would come out differently another time is not remembered; any other is, with
    `attempts` 0 for rows that come later.
    """

    def __init__(self, cache: Cache) -> None:
        self._lock = threading.Lock()
        self._rows: set[Row] = set()
        self._urls: dict[str, UrlWork] = {}
        self._contents: dict[str, ContentWork] = {}
        self._cache = cache

    def enter(self, row: Row) -> None:
        """Take a row in, which from now on ends with an outcome or with what ends the scorer."""
        with self._lock:
            self._rows.add(row)

    def has(self, url: str) -> bool:
        """Whether a URL is being worked on."""
        return url in self._urls

    def admit(
        self, url: Url, row: Row, found: FoundUrl | None = None
    ) -> UrlWork | Encoded | Failure | None:
        """Begin with a row, of whose URL others know what is `found`.

        Returns:
            The work of a URL that has to be fetched, or what is known already (of this row alone),
            or None if the row waits for work that has begun.
        """
        with self._lock:
            work = self._urls.get(url.text)
            if work is not None:
                work.rows.append(row)
                return None
            entry, embedding = self._cache.url(url.text), None
            if found is not None and (entry is None or found[0].fresh_until >= entry.fresh_until):
                entry, embedding = found
            fresh = entry is not None and self._cache.is_fresh(entry)
            self._cache.count(Kind.URL, hit=fresh)
            if isinstance(entry, UrlEntry):
                if embedding is None:
                    embedding = self._cache.image(entry.sha256)
                if fresh and embedding is not None:
                    self._cache.count(Kind.IMAGE, hit=True)
                    return Encoded(entry.sha256, embedding, ((row, 0),))
            elif isinstance(entry, NegativeEntry) and fresh:
                return replace(entry.failure, attempts=0)
            work = UrlWork(url, [row])
            if isinstance(entry, UrlEntry) and entry.can_be_validated and embedding is not None:
                work.earlier = (entry, embedding)
            self._urls[url.text] = work
            return work

    def fetched(self, work: UrlWork, sha256: str, origin: Origin) -> ContentWork | Encoded | None:
        """Say what a URL led to, and where that came from.

        Returns:
            The work of an image that has to be decoded, or its embedding where that is known, or
            None if the URL waits for an image that is being worked on.
        """
        with self._lock:
            self._led_to(work, sha256, origin)
            content = self._contents.get(sha256)
            if content is not None:
                content.urls.append(work)
                return None
            embedding = self._cache.image(sha256)
            if embedding is not None:
                self._cache.count(Kind.IMAGE, hit=True)
                return Encoded(sha256, embedding, self._leave(work))
            content = ContentWork(sha256, [work])
            self._contents[sha256] = content
            return content

    def unchanged(self, work: UrlWork, origin: Origin) -> Encoded:
        """Say that a URL leads to what it led to `earlier`."""
        if work.earlier is None:
            raise RuntimeError("only what is known can have stayed the same")
        entry, embedding = work.earlier
        self._cache.count(Kind.IMAGE, hit=True)
        with self._lock:
            self._led_to(work, entry.sha256, origin)
            return Encoded(entry.sha256, embedding, self._leave(work))

    def encoded(self, content: ContentWork, embedding: Embedding, *, by_others: bool) -> Encoded:
        """End the work on an image: later rows find its embedding, those that waited are given."""
        self._cache.count(Kind.IMAGE, hit=by_others)
        remember = self._cache.learn_image if by_others else self._cache.embedded
        with self._lock:
            remember(content.sha256, embedding)
            del self._contents[content.sha256]
            rows = tuple(pair for work in content.urls for pair in self._leave(work))
            return Encoded(content.sha256, embedding, rows)

    def failed(self, work: UrlWork | ContentWork, failure: Failure) -> list[tuple[Row, Failure]]:
        """End the work on a URL or an image with a failure, for each row that waited."""
        with self._lock:
            if isinstance(work, ContentWork):
                del self._contents[work.sha256]
                self._cache.gave_up(work.sha256)
                urls = work.urls
            else:
                urls = [work]
            ended: list[tuple[Row, Failure]] = []
            for url in urls:
                self._cache.failed(url.url.text, failure)
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

    def give_up(self) -> None:
        """Let others embed the images that are in flight."""
        with self._lock:
            contents = list(self._contents)
        for sha256 in contents:
            self._cache.gave_up(sha256)

    def waiting(self) -> int:
        """How many images are being fetched, decoded or encoded."""
        return len(self._urls)

    def _led_to(self, work: UrlWork, sha256: str, origin: Origin) -> None:
        self._cache.led_to(
            work.url.text,
            sha256,
            origin.lifetime,
            target=origin.url,
            etag=origin.etag,
            last_modified=origin.last_modified,
        )

    def _leave(self, work: UrlWork) -> tuple[tuple[Row, int], ...]:
        self._urls.pop(work.url.text, None)
        return tuple((row, work.attempts) for row in work.rows)
