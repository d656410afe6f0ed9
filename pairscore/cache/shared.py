"""The cache that several workers, or several runs, share: lookups in batches, writes behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from pairscore.cache import codec
from pairscore.cache.codec import Keys
from pairscore.cache.entries import CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.cache.guarded import Guarded
from pairscore.cache.stats import Kind, LookUpStats, WriteStats
from pairscore.cache.store import Item, Question, Store
from pairscore.cache.writing import Writer
from pairscore.guard import CallStats

MOST_AT_ONCE: Final = 500
"""Rows to look up at once: more would keep a server of others from answering them."""

_CLOSE_SECONDS: Final = 5.0
T = TypeVar("T")
FoundUrl: TypeAlias = tuple[UrlEntry | NegativeEntry, Embedding | None]


@dataclass(frozen=True, slots=True)
class Found:
    """What is known: of URLs, with the embedding of the image where that is known; of captions."""

    urls: Mapping[str, FoundUrl]
    captions: Mapping[str, CaptionEntry]


NOTHING: Final = Found({}, {})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shared cache is.

    `make` connects to it, once for reading and once for writing; `name` is for messages; `seconds`
    is what one call may take.
    """

    name: str
    make: Callable[[], Store]
    seconds: float
    lasting: int
    """For how many seconds entries are kept."""


class SharedCache:
    """Entries of one model in a store. `look_up` and `claim` are for one thread.

    Nothing that the store does or fails to do changes what is found, other than that less is.
    """

    def __init__(
        self,
        place: Place,
        keys: Keys,
        dimensions: int,
    ) -> None:
        """`dimensions` is the size of the model's embeddings.

        Raises:
            EnvironmentFault: the store's folder cannot be used.
        """
        self._keys = keys
        self._dimensions = dimensions
        self._lasting = place.lasting
        self._own: set[str] = set()  # images claimed here
        self.reads: Final = CallStats()
        self.writes: Final = CallStats()
        self.written: Final = WriteStats()
        self.looked_up: Final = LookUpStats()
        reading, writing = place.make(), place.make()
        self._reader = Guarded(reading, name=place.name, seconds=place.seconds, stats=self.reads)
        writer = Guarded(
            writing,
            name=f"{place.name} (writing)",
            seconds=max(1.0, place.seconds),
            stats=self.writes,
        )
        self._writer = Writer(writer, self.written)

    @property
    def available(self) -> bool:
        """Whether it is worth asking."""
        return self._reader.available

    def look_up(self, urls: Sequence[str], captions: Sequence[str]) -> Found:
        """What is known of different URLs and different captions, of at most `MOST_AT_ONCE`."""
        url_keys = [self._keys.url(text) for text in urls]
        caption_keys = [self._keys.caption(text) for text in captions]
        answer = self._reader.look_up(Question(url_keys, caption_keys))
        if answer is None:
            return NOTHING
        found_urls: dict[str, FoundUrl] = {}
        for text, key, (value, image) in zip(urls, url_keys, answer.urls, strict=True):
            entry = codec.decode_url(key, value)
            if entry is not None:
                found_urls[text] = (entry, self._image_of(entry, image))
        found_captions: dict[str, CaptionEntry] = {}
        for text, key, value in zip(captions, caption_keys, answer.captions, strict=True):
            caption = codec.decode_caption(key, value, self._dimensions)
            if caption is not None:
                found_captions[text] = caption
        self._count(Kind.URL, urls, found_urls)
        self._count(Kind.CAPTION, captions, found_captions)
        return Found(found_urls, found_captions)

    def claim(self, images: Sequence[str], seconds: float) -> list[Embedding | bool]:
        """Of each image, by its sha256, the embedding, or whether the caller is to make it.

        Where that is False, somebody else is at it, and may be for `seconds` seconds.
        """
        keys = [self._keys.image(sha256) for sha256 in images]
        claims = [self._keys.claim(sha256) for sha256 in images]
        answer = self._reader.claim(list(zip(keys, claims, strict=True)), seconds)
        if answer is None:
            self._own.update(images)  # the question may have come through
            return [True for _ in images]
        found = [self._claimed(key, value) for key, value in zip(keys, answer, strict=True)]
        self._own.update(sha256 for sha256, each in zip(images, found, strict=True) if each is True)
        hits = sum(not isinstance(each, bool) for each in found)
        # Those that others are at are asked for again.
        self.looked_up.add(Kind.IMAGE, hits=hits, misses=sum(each is True for each in found))
        return found

    def keep_url(self, text: str, entry: UrlEntry | NegativeEntry, seconds: float) -> None:
        """Remember what a URL led to, for `seconds` seconds."""
        lasting = max(1, round(seconds))
        self._writer.keep(lambda: _item(self._keys.url(text), codec.encode_url, entry, lasting))

    def keep_image(self, sha256: str, embedding: Embedding) -> None:
        """Remember an image's embedding (float32 [d]), which nobody is about to make any more."""
        self._writer.keep(
            lambda: _item(self._keys.image(sha256), codec.encode_image, embedding, self._lasting)
        )
        self.release(sha256)

    def keep_caption(self, text: str, entry: CaptionEntry) -> None:
        """Remember a caption's embedding."""
        self._writer.keep(
            lambda: _item(self._keys.caption(text), codec.encode_caption, entry, self._lasting)
        )

    def release(self, sha256: str) -> None:
        """Take back the claim on an image, which others wait for; one of theirs stays."""
        if sha256 in self._own:
            self._own.discard(sha256)
            self._writer.keep(lambda: (self._keys.claim(sha256), None, 0))

    def figures(self) -> dict[str, object]:
        """What was asked of the store, and what came of that."""
        return {
            "hits": sum(self.looked_up.hits.values()),
            "misses": sum(self.looked_up.misses.values()),
            "errors": sum((self.reads.errors + self.writes.errors).values()),
            "written": self.written.entries,
            "written_bytes": self.written.bytes,
            "not_written": self.written.left_out,
        }

    def close(self) -> None:
        """Write what waits, for some seconds at most, and let go."""
        self._writer.close(_CLOSE_SECONDS)
        self._reader.close()

    def _image_of(self, entry: UrlEntry | NegativeEntry, value: bytes | None) -> Embedding | None:
        if value is None or isinstance(entry, NegativeEntry):
            return None
        return codec.decode_image(self._keys.image(entry.sha256), value, self._dimensions)

    def _claimed(self, key: bytes, value: bytes | bool) -> Embedding | bool:
        if isinstance(value, bool):
            return value
        embedding = codec.decode_image(key, value, self._dimensions)
        return True if embedding is None else embedding

    def _count(self, kind: Kind, asked: Sequence[str], found: Mapping[str, object]) -> None:
        self.looked_up.add(kind, hits=len(found), misses=len(asked) - len(found))


def _item(key: bytes, encode: Callable[[bytes, T], bytes], entry: T, seconds: int) -> Item:
    return key, encode(key, entry), seconds
