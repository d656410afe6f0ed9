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
            max_bytes - 2 * embeddings, lifetimes.most, wall
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
        return now < entry.fresh_until <= now + self._lifetimes.most + _SKEW_SECONDS

    def image(self, sha256: str) -> Embedding | None:
        """The embedding (float32 [d]) of an image."""
        return self._images.get(sha256)

    def caption(self, text: str) -> CaptionEntry | None:
        """The embedding of a caption."""
        return self._captions.get(text)

    def lacks(self, url: str, caption: str) -> bool:
        """Whether something that a row needs is not known here."""
        entry = self._urls.get(url)
        if entry is None or not self.is_fresh(entry):
            return True
        if isinstance(entry, NegativeEntry):
            return False
        return self._images.get(entry.sha256) is None or self._captions.get(caption) is None

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
        self._keep_url(url, entry, kept)
        if self.shared is not None:
            self.shared.keep_url(url, entry, kept)

    def failed(self, url: str, found: Failure) -> None:
        """Remember why there is no image, unless that may come out differently the next time."""
        if found.retryable:
            return
        seconds = self._lifetimes.of_failure(found)
        here = self._lifetimes.least if seconds is None else seconds
        entry = NegativeEntry(found, self._wall() + here)
        self._keep_url(url, entry, here)
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
        self._keep_caption(text, entry)
        if self.shared is not None:
            self.shared.keep_caption(text, entry)

    def gave_up(self, sha256: str) -> None:
        """Let others embed an image that this one was to embed, and could not."""
        if self.shared is not None:
            self.shared.release(sha256)

    def learn(self, found: Found) -> None:
        """Remember what the shared cache knew; what is known here may be newer."""
        for url, (entry, embedding) in found.urls.items():
            here = self._urls.get(url)
            if here is not None and here.fresh_until > entry.fresh_until:
                continue
            self._keep_url(url, entry)
            if embedding is not None and isinstance(entry, UrlEntry):
                self.learn_image(entry.sha256, embedding)
        for text, caption in found.captions.items():
            self._keep_caption(text, caption)

    def learn_image(self, sha256: str, embedding: Embedding) -> None:
        """Remember an image's embedding (float32 [d]) that others have made."""
        self._images.put(sha256, embedding, embedding.nbytes + len(sha256))

    def count(self, kind: Kind, *, hit: bool) -> None:
        """Count something that was needed, and was known, here or to others, or was not.

        Of rows that wait for the same work, the first one's needs are counted.
        """
        self.looked_up.add(kind, hits=hit, misses=not hit)

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

    def _keep_url(
        self, url: str, entry: UrlEntry | NegativeEntry, seconds: float | None = None
    ) -> None:
        self._urls.put(url, entry, len(url) + entry.size, seconds)

    def _keep_caption(self, text: str, entry: CaptionEntry) -> None:
        self._captions.put(text, entry, entry.embedding.nbytes + 2 * len(text))
