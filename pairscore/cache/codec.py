"""Entries as bytes, for stores that may hold anything: what is not exactly an entry is a miss.

A value is `version, kind, payload, checksum`. The checksum is over the key too, so that a value
that was put under another key, which names the model and its embedding size, is no entry there.
Numbers are little-endian. A store reads the digest of a URL's image out of its entry,
which therefore has its place (`DIGEST`).
"""

import hashlib
import math
import struct
from typing import Final, TypeGuard

import numpy as np
import xxhash

from pairscore.cache.entries import CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.pair import Failure, Reason

DIGEST: Final = slice(10, 74)
"""Where in the value of a `UrlEntry` its `sha256` is."""

IMAGE_OF_URL: Final = b"u"
"""The kind, second byte of the value, of a `UrlEntry`."""

_VERSION: Final = b"\2"
_FAILURE: Final = b"n"
_IMAGE: Final = b"i"
_CAPTION: Final = b"c"
_CHECKSUM_BYTES: Final = 16
_TEXT: Final = struct.Struct("<H")
_TIME: Final = struct.Struct("<d")
_ABSENT: Final = 0xFFFF
_HEX: Final = b"0123456789abcdef"


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
    try:
        if _is_sealed(value, key, IMAGE_OF_URL):
            return _decode_image_of_url(value)
        if _is_sealed(value, key, _FAILURE):
            return _decode_failure(value)
    except (struct.error, ValueError):
        return None
    return None


def encode_image(key: bytes, embedding: Embedding) -> bytes:
    """The value of an image's embedding (float32 [d])."""
    return _seal(key, _IMAGE + embedding.astype("<f4").tobytes())


def decode_image(key: bytes, value: object, dimensions: int) -> Embedding | None:
    """The embedding (float32 [dimensions]); None if `value` is not exactly that."""
    if not _is_sealed(value, key, _IMAGE):
        return None
    return _embedding(value[2:-_CHECKSUM_BYTES], dimensions)


def encode_caption(key: bytes, entry: CaptionEntry) -> bytes:
    """The value of a caption's embedding."""
    flag = b"\1" if entry.truncated else b"\0"
    return _seal(key, _CAPTION + flag + entry.embedding.astype("<f4").tobytes())


def decode_caption(key: bytes, value: object, dimensions: int) -> CaptionEntry | None:
    """The caption's embedding; None if `value` is not exactly that."""
    if not _is_sealed(value, key, _CAPTION) or value[2] not in {0, 1}:
        return None
    embedding = _embedding(value[3:-_CHECKSUM_BYTES], dimensions)
    return None if embedding is None else CaptionEntry(embedding, value[2] == 1)


def _decode_image_of_url(value: bytes) -> UrlEntry | None:
    sha256 = value[DIGEST]
    target, etag, last_modified = _read_texts(value, DIGEST.stop)
    if target is None or sha256.strip(_HEX):
        return None
    if not (_can_be_sent(etag) and _can_be_sent(last_modified)):
        return None
    return UrlEntry(sha256.decode(), _read_time(value), target, etag, last_modified)


def _can_be_sent(text: str | None) -> bool:
    return text is None or (text.isascii() and text.isprintable())  # in a header


def _decode_failure(value: bytes) -> NegativeEntry | None:
    reason, detail, sha256 = _read_texts(value, DIGEST.start)
    if reason is None or detail is None:
        return None
    failure = Failure(Reason(reason), detail, image_sha256=sha256)
    return NegativeEntry(failure, _read_time(value))


def _read_time(value: bytes) -> float:
    time: float = _TIME.unpack_from(value, 2)[0]
    if not math.isfinite(time):
        raise ValueError
    return time


def _embedding(data: bytes, dimensions: int) -> Embedding | None:
    if len(data) != 4 * dimensions:
        return None
    embedding = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    return embedding if np.count_nonzero(np.isfinite(embedding)) == dimensions else None


def _texts(*texts: str | None) -> bytes:
    return b"".join(map(_text, texts))


def _text(text: str | None) -> bytes:
    if text is None:
        return _TEXT.pack(_ABSENT)
    data = text.encode("utf-8", "replace")
    if len(data) >= _ABSENT:
        raise ValueError(f"a text of {len(data):,} bytes is no part of an entry")
    return _TEXT.pack(len(data)) + data


def _read_texts(value: bytes, place: int) -> list[str | None]:
    """The three texts between a place and the checksum."""
    texts: list[str | None] = []
    for _ in range(3):
        length: int = _TEXT.unpack_from(value, place)[0]
        place += _TEXT.size
        if length == _ABSENT:
            texts.append(None)
        else:
            texts.append(value[place : place + length].decode())
            place += length
    if place != len(value) - _CHECKSUM_BYTES:
        raise ValueError
    return texts


def _seal(key: bytes, payload: bytes) -> bytes:
    return _VERSION + payload + _checksum(key, payload)


def _is_sealed(value: object, key: bytes, kind: bytes) -> TypeGuard[bytes]:
    return (
        isinstance(value, bytes)
        and value[:2] == _VERSION + kind
        and value[-_CHECKSUM_BYTES:] == _checksum(key, value[1:-_CHECKSUM_BYTES])
    )


def _checksum(key: bytes, payload: bytes) -> bytes:
    # Against what is damaged or in a wrong place, not against forgers: they could write a whole
    # entry. Any cryptographic hash takes longer than all the rest of decoding.
    hashed = xxhash.xxh3_128(payload)
    hashed.update(key)
    return hashed.digest()


def _digest(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=20).hexdigest().encode()
