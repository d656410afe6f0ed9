"""Which records beyond a committed offset were published, as the metadata of that commit.

Kafka keeps it with the offset, and takes both in the same transaction as what was published.
"""

import base64
import re
from collections.abc import Iterable
from typing import Final

_VERSION: Final = "a1:"
_ANY_VERSION: Final = re.compile(r"a\d+:")


def encode_ahead(offset: int, ahead: Iterable[int]) -> str:
    """Offsets from `offset` on as the metadata of a commit of it: a bit for each, in base64."""
    bits = sum(1 << (each - offset) for each in ahead)
    if not bits:
        return ""
    packed = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    return _VERSION + base64.b64encode(packed).decode()


def decode_ahead(offset: int, metadata: str | None) -> tuple[int, ...]:
    """The offsets that `encode_ahead` was given; none where others have said something there.

    Raises:
        ValueError: it is of another version, or damaged.
    """
    if not metadata or _ANY_VERSION.match(metadata) is None:
        return ()
    if not metadata.startswith(_VERSION):
        raise ValueError(f"{metadata[:20]!r} is not of this version")
    packed = base64.b64decode(metadata[len(_VERSION) :], validate=True)
    bits = int.from_bytes(packed, "little")
    return tuple(offset + place for place in range(bits.bit_length()) if bits >> place & 1)
