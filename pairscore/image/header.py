"""What decoding an image will cost, read from its bytes where decoders would find out too late."""

import re
from typing import TypeAlias

from pairscore.image.format import Format

Size: TypeAlias = tuple[int, int]

# A marker cannot appear inside a scan's data, and a scan's header has one of four lengths.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e]")
# AVIF's property that holds an item's size: a full box of 20 bytes (ISO/IEC 23008-12, 6.5.3).
_ISPE = re.compile(rb"\0\0\0\x14ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)
_SOS, _SEQUENTIAL = 0xDA, frozenset({0xC0, 0xC1})


def declared_size(data: bytes, kind: Format) -> Size | None:
    """Read the (width, height) where the format's decoder would not say in time that it is large.

    Those of GIF and WebP allocate when they are made; AVIF's calls what is too large damaged.
    None for every other format, whose size Pillow reads without allocating, and for headers that
    are damaged, which the decoders refuse.
    """
    if kind is Format.GIF:
        return _gif(data)
    if kind is Format.WEBP:
        return _webp(data)
    if kind is Format.AVIF:
        return _avif(data)
    return None


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG: the passes over the whole image that decoding it takes."""
    # Most have one, and a look at the header shows it: decoders refuse to go on after that one.
    return 1 if _is_one_scan(data) else len(_SCAN.findall(data))


def _is_one_scan(data: bytes) -> bool:
    """Tell whether a sequential JPEG's first scan holds all its components (ITU-T T.81, B.2)."""
    position, components = 2, -1
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _SOS:
            return data[position + 4] == components
        if marker in _SEQUENTIAL:
            components = data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _gif(data: bytes) -> Size | None:
    """Read the screen, grown to hold the first frame as Pillow grows it (GIF89a, 18-20)."""
    if len(data) < 13:
        return None
    width, height = _u16(data, 6), _u16(data, 8)
    position = 13 + _table_bytes(data[10])
    while position < len(data):
        block = data[position]
        if block == 0x2C and position + 9 <= len(data):
            right = _u16(data, position + 1) + _u16(data, position + 5)
            bottom = _u16(data, position + 3) + _u16(data, position + 7)
            return max(width, right), max(height, bottom)
        if block == 0x3B:
            break
        # An extension is its mark, its label and length-prefixed parts up to an empty one.
        position = _after_parts(data, position + 2) if block == 0x21 else position + 1
    return width, height


def _webp(data: bytes) -> Size | None:
    """Read the canvas (RFC 9649, sections 2.5-2.7)."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and len(data) >= 30:
        return _u16(data, 26) & 0x3FFF, _u16(data, 28) & 0x3FFF
    return None


def _avif(data: bytes) -> Size | None:
    """Read the largest item: the image itself, beside its tiles, thumbnail and alpha plane."""
    sizes = [
        (int.from_bytes(width, "big"), int.from_bytes(height, "big"))
        for width, height in _ISPE.findall(data)
    ]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_parts(data: bytes, position: int) -> int:
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1


def _u16(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "little")
