"""Pictures in other formats than plain JPEG, and bodies that only look like pictures."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, features

from pairscore.pair import Reason

Encode = tuple[str, Callable[[Image.Image], bytes]]
"""A file suffix, and what turns an RGB picture into such a file's bytes."""

_EXIF_ORIENTATION, _QUARTER_TURN = 0x0112, 6
_HUGE_SIDE = 30_000


def formats() -> dict[str, Encode]:
    """What a reader of pictures has to cope with, by name; AVIF where Pillow can write it."""
    known: dict[str, Encode] = {
        "PNG": (".png", lambda image: _save(image, "PNG")),
        "WebP": (".webp", lambda image: _save(image, "WEBP", quality=80)),
        "GIF": (".gif", lambda image: _save(image, "GIF")),
        "BMP": (".bmp", lambda image: _save(image, "BMP")),
        "TIFF": (".tiff", lambda image: _save(image, "TIFF")),
        "PNG with a palette": (".png", lambda image: _save(image.quantize(16), "PNG")),
        "PNG with alpha": (".png", lambda image: _save(_with_alpha(image), "PNG")),
        "CMYK JPEG": (".jpg", lambda image: _save(image.convert("CMYK"), "JPEG", quality=90)),
        "progressive JPEG": (".jpg", lambda image: _save(image, "JPEG", progressive=True)),
        "grey JPEG": (".jpg", lambda image: _save(image.convert("L"), "JPEG")),
        "JPEG with EXIF orientation": (".jpg", _turned),
    }
    if features.check("avif"):
        known["AVIF"] = (".avif", lambda image: _save(image, "AVIF"))
    return known


def broken_bodies(jpeg: bytes) -> dict[str, tuple[str, bytes, Reason]]:
    """Bodies that cannot be scored, by name: file suffix, bytes (`jpeg` spoilt), reason."""
    page = b"<!DOCTYPE html>\n<html><body><h1>Sign in to see this picture</h1></body></html>\n"
    return {
        "truncated JPEG": (".jpg", jpeg[: len(jpeg) // 2], Reason.CORRUPT_IMAGE),
        "HTML page called .jpg": (".jpg", page, Reason.NOT_AN_IMAGE),
        "huge picture in a small file": (".png", _bomb(), Reason.TOO_MANY_PIXELS),
        "empty body": (".jpg", b"", Reason.NOT_AN_IMAGE),
        "SVG": (".svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>\n', Reason.NOT_AN_IMAGE),
        "JPEG head, then noise": (".jpg", jpeg[:4] + bytes(range(256)) * 4, Reason.CORRUPT_IMAGE),
    }


def _save(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002 (Pillow's name)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _with_alpha(image: Image.Image) -> Image.Image:
    see_through = image.convert("RGBA")
    see_through.putalpha(200)
    return see_through


def _turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _QUARTER_TURN
    return _save(image, "JPEG", exif=exif.tobytes())


def _bomb() -> bytes:
    """A PNG whose header promises 900 megapixels: a few dozen bytes (PNG specification, 11.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", _HUGE_SIDE, _HUGE_SIDE, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
