"""Decoding gives the pixels of Pillow's `Image.open(...).convert("RGB")`."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pairscore.image import decode
from pairscore.pair import Failure, Reason
from tests.unit.image_samples import (
    HEIGHT,
    WIDTH,
    as_pillow_gives,
    encode,
    in_mode,
    photo,
    rotated_exif,
    samples,
    tiff,
)

CAP = 64_000_000
SAMPLES = samples()


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    decoded = decode(data, max_pixels=CAP)
    assert not isinstance(decoded, Failure), decoded.error
    return decoded


@pytest.mark.parametrize("name", SAMPLES)
def test_every_mode_and_format_gives_pillows_pixels(name: str) -> None:
    decoded = pixels_of(SAMPLES[name])

    np.testing.assert_array_equal(decoded, as_pillow_gives(SAMPLES[name]))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [5, 50, 100])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 1), (8, 8), (333, 219)])
def test_jpegs_of_any_size_and_quality_give_pillows_pixels(
    sampling: str, quality: int, size: tuple[int, int]
) -> None:
    data = encode(photo(*size), "JPEG", subsampling=sampling, quality=quality)

    np.testing.assert_array_equal(pixels_of(data), as_pillow_gives(data))


@pytest.mark.parametrize(
    ("format_name", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(("TIFF", mode) for mode in ("CMYK", "LAB", "I", "F", "YCbCr")),
    ],
)
def test_images_converted_in_several_bands_give_pillows_pixels(format_name: str, mode: str) -> None:
    data = encode(in_mode(mode, 1500, 1501), format_name)

    np.testing.assert_array_equal(pixels_of(data), as_pillow_gives(data))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_not_applied(format_name: str) -> None:
    plain = encode(photo(), format_name)
    rotated = encode(photo(), format_name, exif=rotated_exif())

    assert pixels_of(rotated).shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(pixels_of(rotated), pixels_of(plain))


def test_alpha_is_dropped_and_not_composited() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))

    assert (pixels_of(encode(image, "PNG")) == (200, 100, 50)).all()


def test_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert (pixels_of(data) == (255, 0, 0)).all()


def test_a_jpeg_that_lacks_its_end_is_corrupt() -> None:
    whole = encode(photo(), "JPEG")

    for missing in (2, 100):
        outcome = decode(whole[:-missing], max_pixels=CAP)
        assert isinstance(outcome, Failure)
        assert outcome.reason is Reason.CORRUPT_IMAGE
        assert outcome.detail.startswith("image file is truncated")


@pytest.mark.parametrize("marker", [b"\xff\xda", b"\xff\xd9"], ids=["scan", "end"])
def test_a_jpeg_with_stray_bytes_that_pillow_overlooks_is_decoded(marker: bytes) -> None:
    whole = encode(photo(), "JPEG")
    at = whole.rindex(marker)
    strayed = whole[:at] + b"\x12\x34\x56" + whole[at:]

    np.testing.assert_array_equal(pixels_of(strayed), as_pillow_gives(strayed))


def test_a_jpeg_of_twelve_bits_is_a_reason() -> None:
    data = bytearray(encode(photo(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12

    outcome = decode(bytes(data), max_pixels=CAP)

    assert isinstance(outcome, Failure)
    assert outcome.error == "corrupt_image: cannot handle 12-bit layers"


@pytest.mark.parametrize(
    "name", ["JPEG 420", "PNG RGB", "WEBP RGB", "GIF P", "BMP RGB", "AVIF RGB"]
)
def test_a_truncated_image_is_corrupt_and_says_why_in_one_line(name: str) -> None:
    data = SAMPLES[name]

    outcome = decode(data[: len(data) * 2 // 3], max_pixels=CAP)

    assert isinstance(outcome, Failure)
    assert outcome.reason is Reason.CORRUPT_IMAGE
    assert 0 < len(outcome.detail) <= 120
    assert outcome.detail.isprintable()


def test_pillows_process_wide_pixel_limit_is_neither_used_nor_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    for name in ("JPEG 420", "JPEG CMYK", "PNG RGB", "BMP RGB", "AVIF RGB"):
        assert pixels_of(SAMPLES[name]).shape == (HEIGHT, WIDTH, 3)
    for name in ("TIFF RGB", "WEBP RGB"):
        outcome = decode(SAMPLES[name], max_pixels=CAP)
        assert isinstance(outcome, Failure)
        assert outcome.reason is Reason.TOO_MANY_PIXELS
    assert Image.MAX_IMAGE_PIXELS == 100


def test_metadata_that_pillow_warns_about_does_not_warn() -> None:
    tags = {256: 2, 257: 2, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 4}
    sound = tiff(tags, b"\x10\x20\x30\x40")
    # A rational is kept elsewhere; this one is said to be beyond the end of the file.
    count = len(tags) + 1
    at = 12 + 2 + 12 * len(tags)
    resolution = b"\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0"
    damaged = sound[:12] + bytes([count, 0]) + sound[14:at] + resolution + sound[at:]
    with (
        pytest.warns(UserWarning, match="Truncated File Read"),
        Image.open(BytesIO(damaged)),
    ):
        pass

    np.testing.assert_array_equal(pixels_of(damaged), pixels_of(sound))


def test_threads_decode_alike() -> None:
    expected = {name: pixels_of(data).tobytes() for name, data in SAMPLES.items()}

    def decode_all(turn: int) -> dict[str, bytes]:
        names = list(SAMPLES)
        return {name: pixels_of(SAMPLES[name]).tobytes() for name in names[turn:] + names[:turn]}

    with ThreadPoolExecutor(8) as pool:
        for decoded in pool.map(decode_all, range(16)):
            assert decoded == expected
