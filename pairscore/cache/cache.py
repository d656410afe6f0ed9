"""The cache as the scorer sees it: what this process knows, in front of what others share."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from pairscore.cache.bounded import BoundedCache
from pairscore.cache.entries import CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.cache.lifetimes import Lifetimes
from pairscore.cache.shared import Found, SharedCache
from pairscore.cache.stats import Kind, LookUpStats
from pairscore.pair import Failure

_LONGEST_TARGET: Final = 16_384  # characters of a URL; what it was asked by goes with it
_FOR_EVER: Final = float("inf")
_SKEW_SECONDS: Final = 3_600.0


class Cache:
    """Knows what it has seen within `max_bytes` bytes, and tells `shared`, if there is one.

    Whatever is asked of it is answered from memory, at once; what others know is asked of `shared`
    by whoever can wait for that, and handed in with `learn`. Threads may share it.
    """

    def __init__(
        self,
        max_bytes: int,
        lifetimes: Lifetimes,
        shared: SharedCache | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`wall` gives seconds since the epoch."""
        embeddings = max_bytes * 9 // 20
        self._lifetimes = lifetimes
        self._wall = wall
        self.shared: Final = shared
        self.looked_up: Final = LookUpStats()
        self._urls: BoundedCache[str, UrlEntry | NegativeEntry] = BoundedCache(
            max_bytes - 2 * embeddings,
            max(lifetimes.longest(is_image=each) for each in (True, False)),
            wall,
        )
        self._images: BoundedCache[str, Embedding] = BoundedCache(embeddings, _FOR_EVER, wall)
        self._captions: BoundedCache[str, CaptionEntry] = BoundedCache(embeddings, _FOR_EVER, wall)

    @property
    def size(self) -> int:
        """How many bytes are in memory."""
        return self._urls.size + self._images.size + self._captions.size

    def url(self, text: str) -> UrlEntry | NegativeEntry | None:
        """What a URL led to, be it that it is to be validated by now."""
        return self._urls.get(text)

    def is_fresh(self, entry: UrlEntry | NegativeEntry) -> bool:
        """Whether an entry is still believed; one of a clock that is far ahead is not."""
        now = self._wall()
        most = self._lifetimes.longest(is_image=isinstance(entry, UrlEntry))
        return now < entry.fresh_until <= now + most + _SKEW_SECONDS

    def image(self, sha256: str) -> Embedding | None:
        """The embedding (float32 [d]) of an image."""
        return self._images.get(sha256)

    def caption(self, text: str) -> CaptionEntry | None:
        """The embedding of a caption."""
        return self._captions.get(text)

    def led_to(
        self,
        url: str,
        sha256: str,
        lifetime: float | None,
        *,
        target: str = "",
        etag: str | None = None,
        last_modified: str | None = None,
    ) -> None:
        """Remember what a URL led to; `lifetime` is for how long its server says so, in seconds."""
        seconds = self._lifetimes.of_image(lifetime)
        if len(target) > _LONGEST_TARGET:
            target, etag, last_modified = "", None, None
        entry = UrlEntry(sha256, self._wall() + seconds, target, etag, last_modified)
        kept = self._lifetimes.most if entry.can_be_validated else seconds
        self._urls.put([_url_item(url, entry)], kept)
        if self.shared is not None:
            self.shared.keep_url(url, entry, kept)

    def failed(self, url: str, found: Failure) -> None:
        """Remember why there is no image, unless that may come out differently the next time."""
        if found.retryable:
            return
        seconds = self._lifetimes.of_failure(found)
        here = self._lifetimes.least if seconds is None else seconds
        entry = NegativeEntry(found, self._wall() + here)
        self._urls.put([_url_item(url, entry)], here)
        if seconds is not None and self.shared is not None:
            self.shared.keep_url(url, entry, seconds)

    def embedded(self, sha256: str, embedding: Embedding) -> None:
        """Remember an image's embedding (float32 [d]), unless it is one of no numbers."""
        if not np.isfinite(embedding).all():
            return
        self.learn_image(sha256, embedding)
        if self.shared is not None:
            self.shared.keep_image(sha256, embedding)

    def embedded_caption(self, text: str, entry: CaptionEntry) -> None:
        """Remember a caption's embedding."""
        self._captions.put([_caption_item(text, entry)])
        if self.shared is not None:
            self.shared.keep_caption(text, entry)

    def gave_up(self, sha256: str) -> None:
        """Let others embed an image that this one was to embed, and could not."""
        if self.shared is not None:
            self.shared.release(sha256)

    def learn(self, found: Found) -> Found:
        """Remember what the shared cache knew; without those URLs of which more is known here."""
        urls = {url: each for url, each in found.urls.items() if not self._is_old(url, each[0])}
        self._urls.put([_url_item(url, entry) for url, (entry, _) in urls.items()])
        self._images.put(
            [
                _image_item(entry.sha256, embedding)
                for entry, embedding in urls.values()
                if embedding is not None and isinstance(entry, UrlEntry)
            ]
        )
        self._captions.put([_caption_item(*each) for each in found.captions.items()])
        return Found(urls, found.captions)

    def learn_image(self, sha256: str, embedding: Embedding) -> None:
        """Remember an image's embedding (float32 [d]) that others have made."""
        self._images.put([_image_item(sha256, embedding)])

    def count(self, kind: Kind, *, hits: int = 0, misses: int = 0) -> None:
        """Count what was needed, and was known, here or to others, or was not.

        Of rows that wait for the same work, the first one's needs are counted.
        """
        self.looked_up.add(kind, hits=hits, misses=misses)

    def figures(self) -> dict[str, object]:
        """What it has done: hits and misses by kind, its bytes, and the shared cache's calls."""
        known = {
            kind: {"hits": hits, "misses": asked - hits}
            for kind, (hits, asked) in self.looked_up.shares().items()
        }
        shared = None if self.shared is None else self.shared.figures()
        return {**known, "bytes": self.size, "shared": shared}

    def close(self) -> None:
        """Let go of the shared cache, after what is to be kept there was written."""
        if self.shared is not None:
            self.shared.close()

    def _is_old(self, url: str, entry: UrlEntry | NegativeEntry) -> bool:
        here = self._urls.get(url)
        return here is not None and here.fresh_until > entry.fresh_until


def _url_item(
    url: str, entry: UrlEntry | NegativeEntry
) -> tuple[str, UrlEntry | NegativeEntry, int]:
    return url, entry, len(url) + entry.size


def _image_item(sha256: str, embedding: Embedding) -> tuple[str, Embedding, int]:
    return sha256, embedding, embedding.nbytes + len(sha256)


def _caption_item(text: str, entry: CaptionEntry) -> tuple[str, CaptionEntry, int]:
    return text, entry, entry.embedding.nbytes + 2 * len(text)
