"""Which image format some bytes are in, told by their first bytes alone.

File names and `Content-Type` are not asked: servers lie about both, and a decoder looks at neither.
"""

from codecs import getincrementaldecoder
from enum import StrEnum

_WORDS = 1024


class Format(StrEnum):
    """The formats that are decoded; the values are Pillow's names for them."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    AVIF = "AVIF"


_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"GIF87a", Format.GIF),
    (b"GIF89a", Format.GIF),
    (b"II*\0", Format.TIFF),
    (b"MM\0*", Format.TIFF),
    # The next two have the wrong byte order for their mark; writers of them exist, and Pillow reads
    # them.
    (b"MM*\0", Format.TIFF),
    (b"II\0*", Format.TIFF),
    (b"MM\0+", Format.TIFF),
    (b"II+\0", Format.TIFF),
)

# Two letters are not enough to tell a bitmap from a text that begins with them: the length of the
# header that follows takes one of these values (12 is OS/2's, 40 Windows 3's, 124 version 5's).
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
# Brands of the container, which HEIC shares: what is inside is said by the compatible brands.
_HEIF_BRANDS = frozenset({b"mif1", b"msf1"})

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "ZIP"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\x01\0", "ICO"),
    (b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (b"RIFF", "RIFF, not WebP"),
)


def sniff(data: bytes) -> Format | None:
    """Name the format of `data`, or None where it is no format that is decoded."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Format.WEBP
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return Format.BMP
    if data[4:8] == b"ftyp" and _is_avif(data):
        return Format.AVIF
    return None


def describe(data: bytes) -> str:
    """Say in a few words what bytes that are no supported image look like."""
    if not data:
        return "empty body"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return "HEIC" if brand[:2] in (b"he", b"mi", b"ms") else "MP4 or a relative of it"
    for magic, name in _OTHERS:
        if data.startswith(magic):
            return name
    return _describe_text(data[:_WORDS]) or f"unknown format, first bytes {data[:8].hex(' ')}"


def _is_avif(data: bytes) -> bool:
    brand = data[8:12]
    if brand in _AVIF_BRANDS:
        return True
    box = data[16 : min(int.from_bytes(data[:4], "big"), _WORDS)]
    compatible = {box[i : i + 4] for i in range(0, len(box), 4)}
    return brand in _HEIF_BRANDS and not compatible.isdisjoint(_AVIF_BRANDS)


def _describe_text(head: bytes) -> str:
    """Name the kind of text that `head` begins, or nothing where it is no text."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        return "white space"
    if text.startswith(b"<"):
        if b"<svg" in text:
            return "SVG"
        if b"<html" in text or text.startswith((b"<!doctype html", b"<head", b"<body", b"<script")):
            return "HTML"
        return "XML" if text.startswith(b"<?xml") else "markup"
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in text) or not _is_utf8(text):
        return ""
    return "JSON" if text[:1] in (b"{", b"[") else "text"


def _is_utf8(head: bytes) -> bool:
    try:
        # Not final: the head may end within a character.
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
