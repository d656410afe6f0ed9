"""Entries as bytes, for stores that may hold anything: what is not exactly an entry is a miss.

A value is `version, kind, payload, checksum`. The checksum is over the key too, so that a value
that was put under another key, which names the model and its embedding size, is no entry there.
Numbers are little-endian. A store's script reads the digest of a URL's image out of its entry,
which therefore has its place (`DIGEST`).
"""

import hashlib
import math
import struct
from typing import Final

import numpy as np

from pairscore.cache.entries import CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.pair import Failure, Reason

DIGEST: Final = slice(10, 74)
"""Where in the value of a `UrlEntry` its `sha256` is."""

IMAGE_OF_URL: Final = b"u"
"""The kind, second byte of the value, of a `UrlEntry`."""

_VERSION: Final = b"\1"
_FAILURE: Final = b"n"
_IMAGE: Final = b"i"
_CAPTION: Final = b"c"
_CHECKSUM_BYTES: Final = 16
_TEXT: Final = struct.Struct("<H")
_TIME: Final = struct.Struct("<d")
_ABSENT: Final = 0xFFFF
_HEX: Final = frozenset("0123456789abcdef")


PREFIXES: Final = {
    "url": b"pairscore:url:",
    "image": b"pairscore:image:",
    "caption": b"pairscore:caption:",
}
"""What keys begin with, by the kind of their entries."""


class Keys:
    """Under which keys a model's entries are; those of URLs are every model's.

    `dimensions` is the size of its embeddings.
    """

    def __init__(self, fingerprint: str, dimensions: int) -> None:
        model = _digest(f"{fingerprint} {dimensions}")[:24]
        self.images: Final = PREFIXES["image"] + model + b":"
        """What the key of an image begins with; its hex sha256 follows."""
        self._captions = PREFIXES["caption"] + model + b":"
        self._claims = b"pairscore:claim:" + model + b":"

    def url(self, text: str) -> bytes:
        """Of what a URL led to."""
        return PREFIXES["url"] + _digest(text)

    def image(self, sha256: str) -> bytes:
        """Of an image's embedding."""
        return self.images + sha256.encode()

    def caption(self, text: str) -> bytes:
        """Of a caption's embedding."""
        return self._captions + _digest(text)

    def claim(self, sha256: str) -> bytes:
        """Of who is about to embed an image."""
        return self._claims + sha256.encode()


def encode_url(key: bytes, entry: UrlEntry | NegativeEntry) -> bytes:
    """The value of what a URL led to."""
    time = _TIME.pack(entry.fresh_until)
    if isinstance(entry, NegativeEntry):
        failure = entry.failure
        return _seal(
            key,
            _FAILURE + time + _texts(failure.reason.value, failure.detail, failure.image_sha256),
        )
    texts = _texts(entry.target, entry.etag, entry.last_modified)
    return _seal(key, IMAGE_OF_URL + time + entry.sha256.encode() + texts)


def decode_url(key: bytes, value: object) -> UrlEntry | NegativeEntry | None:
    """What a URL led to; None if `value` is not exactly that."""
    payload = _unseal(key, value)
    if payload is None:
        return None
    try:
        if payload[:1] == IMAGE_OF_URL:
            return _decode_image_of_url(payload)
        if payload[:1] == _FAILURE:
            return _decode_failure(payload)
    except (struct.error, ValueError, UnicodeDecodeError):
        return None
    return None


def encode_image(key: bytes, embedding: Embedding) -> bytes:
    """The value of an image's embedding (float32 [d])."""
    return _seal(key, _IMAGE + embedding.astype("<f4").tobytes())


def decode_image(key: bytes, value: object, dimensions: int) -> Embedding | None:
    """The embedding (float32 [dimensions]); None if `value` is not exactly that."""
    payload = _unseal(key, value)
    if payload is None or payload[:1] != _IMAGE:
        return None
    return _embedding(payload[1:], dimensions)


def encode_caption(key: bytes, entry: CaptionEntry) -> bytes:
    """The value of a caption's embedding."""
    flag = b"\1" if entry.truncated else b"\0"
    return _seal(key, _CAPTION + flag + entry.embedding.astype("<f4").tobytes())


def decode_caption(key: bytes, value: object, dimensions: int) -> CaptionEntry | None:
    """The caption's embedding; None if `value` is not exactly that."""
    payload = _unseal(key, value)
    if payload is None or payload[:1] != _CAPTION or payload[1:2] not in {b"\0", b"\1"}:
        return None
    embedding = _embedding(payload[2:], dimensions)
    return None if embedding is None else CaptionEntry(embedding, payload[1:2] == b"\1")


def _decode_image_of_url(payload: bytes) -> UrlEntry | None:
    sha256 = payload[9:73].decode("ascii")
    target, place = _read_text(payload, 73)
    etag, place = _read_text(payload, place)
    last_modified, place = _read_text(payload, place)
    fresh_until = _read_time(payload)
    if place != len(payload) or target is None or not _HEX.issuperset(sha256):
        return None
    if not all(text is None or _can_be_sent(text) for text in (etag, last_modified)):
        return None
    return UrlEntry(sha256, fresh_until, target, etag, last_modified)


def _can_be_sent(text: str) -> bool:
    return text.isascii() and text.isprintable()  # in a header


def _decode_failure(payload: bytes) -> NegativeEntry | None:
    reason, place = _read_text(payload, 9)
    detail, place = _read_text(payload, place)
    sha256, place = _read_text(payload, place)
    if place != len(payload) or reason is None or detail is None:
        return None
    failure = Failure(Reason(reason), detail, image_sha256=sha256)
    return NegativeEntry(failure, _read_time(payload))


def _read_time(payload: bytes) -> float:
    time: float = _TIME.unpack_from(payload, 1)[0]
    if not math.isfinite(time):
        raise ValueError
    return time


def _embedding(data: bytes, dimensions: int) -> Embedding | None:
    if len(data) != 4 * dimensions:
        return None
    embedding = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    return embedding if np.isfinite(embedding).all() else None


def _texts(*texts: str | None) -> bytes:
    return b"".join(map(_text, texts))


def _text(text: str | None) -> bytes:
    if text is None:
        return _TEXT.pack(_ABSENT)
    data = text.encode("utf-8", "replace")
    if len(data) >= _ABSENT:
        raise ValueError(f"a text of {len(data):,} bytes is no part of an entry")
    return _TEXT.pack(len(data)) + data


def _read_text(payload: bytes, place: int) -> tuple[str | None, int]:
    length: int = _TEXT.unpack_from(payload, place)[0]
    start = place + _TEXT.size
    if length == _ABSENT:
        return None, start
    if start + length > len(payload):
        raise ValueError
    return payload[start : start + length].decode(), start + length


def _seal(key: bytes, payload: bytes) -> bytes:
    return _VERSION + payload + _checksum(key, payload)


def _unseal(key: bytes, value: object) -> bytes | None:
    if not isinstance(value, bytes) or value[:1] != _VERSION:
        return None
    payload = value[1:-_CHECKSUM_BYTES]
    return payload if value[-_CHECKSUM_BYTES:] == _checksum(key, payload) else None


def _checksum(key: bytes, payload: bytes) -> bytes:
    hashed = hashlib.blake2b(payload, digest_size=_CHECKSUM_BYTES)
    hashed.update(key)
    return hashed.digest()


def _digest(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=20).hexdigest().encode()
