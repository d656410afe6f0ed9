"""Caps are checked from the header, before memory and time are spent."""

import resource
import struct
import sys
import time
import zlib

import pytest
from PIL import Image

from pairscore.image import decode
from pairscore.pair import Failure, Reason
from tests.unit.image_samples import encode, in_mode, photo, png_chunk, png_header, tiff

CAP = 64_000_000
SIDE = 30_000


def patched(data: bytes, at: int, *values: int, layout: str) -> bytes:
    new = struct.pack(layout, *values)
    return data[:at] + new + data[at + len(new) :]


def bombs() -> dict[str, bytes]:
    """Small files whose header declares 30000x30000 pixels."""
    image = photo()
    jpeg = encode(image, "JPEG")
    cmyk = encode(image.convert("CMYK"), "JPEG")
    gif = encode(image, "GIF", interlace=0)
    bmp = encode(image, "BMP")
    avif = encode(image, "AVIF")
    canvas = (SIDE - 1).to_bytes(3, "little") * 2
    extended = encode(in_mode("RGBA"), "WEBP")
    return {
        "JPEG": patched(jpeg, jpeg.index(b"\xff\xc0") + 5, SIDE, SIDE, layout=">HH"),
        "JPEG CMYK": patched(cmyk, cmyk.index(b"\xff\xc0") + 5, SIDE, SIDE, layout=">HH"),
        "PNG": png_header(SIDE, SIDE)
        + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9))
        + png_chunk(b"IEND", b""),
        "GIF screen": patched(gif, 6, SIDE, SIDE, layout="<HH"),
        "GIF frame": patched(gif, gif.index(b",\0\0\0\0", 781) + 5, SIDE, SIDE, layout="<HH"),
        "BMP": patched(bmp, 18, SIDE, SIDE, layout="<II"),
        "WEBP": extended[:24] + canvas + extended[30:],
        "AVIF": patched(avif, avif.index(b"ispe") + 8, SIDE, SIDE, layout=">II"),
        "TIFF": tiff({256: SIDE, 257: SIDE, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 279: 4}),
        "TIFF tile": tiff(
            {256: 9, 257: 9, 258: 8, 259: 8, 262: 1, 277: 1, 322: SIDE, 323: SIDE, 324: 8, 325: 9}
        ),
    }


BOMBS = bombs()


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_without_decoding_it(name: str) -> None:
    before = peak_bytes()

    outcome = decode(BOMBS[name], max_pixels=CAP)

    assert outcome == Failure(
        Reason.TOO_MANY_PIXELS, "900000000 pixels (30000x30000), cap 64000000"
    )
    assert peak_bytes() - before < 50_000_000


@pytest.mark.parametrize("lossless", [True, False])
def test_the_size_of_a_plain_webp_is_read_from_its_header(lossless: bool) -> None:
    outcome = decode(encode(photo(101, 11), "WEBP", lossless=lossless), max_pixels=1000)

    assert outcome == Failure(Reason.TOO_MANY_PIXELS, "1111 pixels (101x11), cap 1000")


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_an_image_of_exactly_the_cap_is_decoded_and_one_over_is_not(format_name: str) -> None:
    data = encode(photo(40, 30), format_name)

    assert not isinstance(decode(data, max_pixels=1200), Failure)
    outcome = decode(data, max_pixels=1199)
    assert isinstance(outcome, Failure)
    assert outcome.error == "too_many_pixels: 1200 pixels (40x30), cap 1199"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_endless_scans_is_refused_at_once(mode: str) -> None:
    data = encode(Image.new(mode, (4000, 4000)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 20_000 + data[-2:]
    start = time.monotonic()

    outcome = decode(bomb, max_pixels=CAP)

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.TOO_MANY_PIXELS
    assert " scans of 16000000 pixels (4000x4000), cap 2048000000" in outcome.detail
    assert time.monotonic() - start < 5


def test_a_progressive_jpeg_of_the_largest_size_is_within_the_cap_on_scans() -> None:
    data = encode(photo(400, 300), "JPEG", progressive=True)

    assert not isinstance(decode(data, max_pixels=400 * 300), Failure)


def test_a_png_of_endless_text_is_corrupt_and_takes_little_memory() -> None:
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(60_000_000), 9))
    data = encode(photo(), "PNG")
    before = peak_bytes()

    outcome = decode(data[:33] + text * 50 + data[33:], max_pixels=CAP)

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.CORRUPT_IMAGE
    assert peak_bytes() - before < 100_000_000


@pytest.mark.parametrize(("format_name", "at"), [("BMP", 18), ("PNG", 16), ("GIF", 6)])
def test_an_image_without_width_is_a_reason(format_name: str, at: int) -> None:
    data = encode(photo(16, 16), format_name, **({"interlace": 0} if format_name == "GIF" else {}))
    empty = bytearray(patched(data, at, 0, layout="<I"))
    if format_name == "GIF":
        frame = bytes(empty).index(b",\0\0\0\0\x10\0\x10\0")
        empty[frame + 5 : frame + 9] = bytes(4)

    outcome = decode(bytes(empty), max_pixels=CAP)

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.CORRUPT_IMAGE
