"""Bytes in, pixels out: exactly those of Pillow's `Image.open(...).convert("RGB")`, or a reason.

Two decoders share the work. JPEG goes to libjpeg-turbo through simplejpeg, which takes two thirds
of the time that Pillow takes and gives the same pixels: both run the accurate integer DCT and the
smooth ("fancy") chroma upsampling. Whatever simplejpeg refuses or so much as warns about goes to
Pillow, whose word is final; so do the other formats.
"""

import re
import struct
import warnings
import zlib
from io import BytesIO
from typing import TypeAlias

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pairscore.image.format import Format, describe, sniff
from pairscore.image.header import Size, count_scans, declared_size
from pairscore.pair import Failure, Reason

Pixels: TypeAlias = NDArray[np.uint8]

_PLUGINS: dict[Format, type[ImageFile.ImageFile]] = {
    Format.JPEG: JpegImagePlugin.JpegImageFile,
    Format.PNG: PngImagePlugin.PngImageFile,
    Format.WEBP: WebPImagePlugin.WebPImageFile,
    Format.GIF: GifImagePlugin.GifImageFile,
    Format.BMP: BmpImagePlugin.BmpImageFile,
    Format.TIFF: TiffImagePlugin.TiffImageFile,
    Format.AVIF: AvifImagePlugin.AvifImageFile,
}

# What Pillow's plugins and codecs raise on bad bytes: they parse with struct, slices and
# dictionaries and let what goes wrong there through. MemoryError is left out: with the size known
# to be within the cap it is this machine that lacks memory, and the image may be sound.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# simplejpeg turns CMYK and YCCK into RGB by a formula of its own; Pillow's is the one to match.
_PLAIN_COLOURS = frozenset({"YCbCr", "RGB", "Gray"})

# Every scan of a JPEG is a pass over the whole image, and an empty one takes a dozen bytes: a small
# body can ask for days of work. Encoders write about ten; an image of the largest size may have
# this many, a smaller one more.
_MAX_SCANS = 32

# Pixels are converted in bands of about this many, so that beside the decoded image and the result
# no third copy of a large image exists.
_BAND_PIXELS = 1 << 20

# Pillow's plugins warn about metadata that has no bearing on pixels.
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\.\w+ImagePlugin"), 0)

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MAX_DETAIL = 120


def decode(data: bytes, *, max_pixels: int) -> Pixels | Failure:
    """Decode the first frame of an image to RGB.

    EXIF orientation is not applied (but TIFF's is, by Pillow itself), colour profiles are ignored,
    and alpha is dropped, not composited: that is what `convert("RGB")` does.

    Returns:
        uint8 [height, width, 3], or a failure: `not_an_image`, `too_many_pixels` (known from the
        header, before memory is allocated) or `corrupt_image` (damaged, truncated, or of a kind
        that Pillow does not read).
    """
    kind = sniff(data)
    if kind is None:
        return Failure(Reason.NOT_AN_IMAGE, describe(data))
    if kind is Format.JPEG:
        decoded = _decode_jpeg(data, max_pixels)
        if decoded is not None:
            return decoded
    try:
        return _decode_pillow(data, kind, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Reached only where the cap is above Pillow's own (179 megapixels).
        return Failure(Reason.TOO_MANY_PIXELS, _one_line(error))
    except _DAMAGE as error:
        return Failure(Reason.CORRUPT_IMAGE, _one_line(error))


def _decode_jpeg(data: bytes, max_pixels: int) -> Pixels | Failure | None:
    """Decode with libjpeg-turbo; None where Pillow is to decide."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _PLAIN_COLOURS:
        return None
    if failure := _over_cap(data, Format.JPEG, (width, height), max_pixels):
        return failure
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        return None
    return pixels


def _decode_pillow(data: bytes, kind: Format, max_pixels: int) -> Pixels | Failure:
    """Decode with the one Pillow plugin for `kind`.

    The plugin is called by itself: `Image.open` would also apply a pixel limit that is global to
    the process and warns before it fails.
    """
    size = declared_size(data, kind)
    if size and (failure := _over_cap(data, kind, size, max_pixels)):
        return failure
    _silence_plugins()
    with _PLUGINS[kind](BytesIO(data)) as image:
        for size in _sizes(image):
            if failure := _over_cap(data, kind, size, max_pixels):
                return failure
        image.load()
        return _to_rgb(image)


def _over_cap(data: bytes, kind: Format, size: Size, max_pixels: int) -> Failure | None:
    width, height = size
    pixels = width * height
    if pixels > max_pixels:
        detail = f"{pixels} pixels ({width}x{height}), cap {max_pixels}"
        return Failure(Reason.TOO_MANY_PIXELS, detail)
    scans = count_scans(data) if kind is Format.JPEG else 1
    if pixels * scans > max_pixels * _MAX_SCANS:
        detail = (
            f"{scans} scans of {pixels} pixels ({width}x{height}), cap {max_pixels * _MAX_SCANS}"
        )
        return Failure(Reason.TOO_MANY_PIXELS, detail)
    return None


def _sizes(image: ImageFile.ImageFile) -> list[Size]:
    """List the image's size and that of a TIFF's tiles: each is decoded whole, however large."""
    sizes = [image.size]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width = image.tag_v2.get(TiffImagePlugin.TILEWIDTH)
        height = image.tag_v2.get(TiffImagePlugin.TILELENGTH)
        if isinstance(width, int) and isinstance(height, int):
            sizes.append((width, height))
    return sizes


def _to_rgb(image: Image.Image) -> Pixels:
    """Do what `np.array(image.convert("RGB"))` does, in bands."""
    # It says which colour is transparent; on the way to RGB it only makes Pillow warn.
    image.info.pop("transparency", None)
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        pixels[top:bottom] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    return pixels


def _silence_plugins() -> None:
    """Put the filter for Pillow's plugins in front, unless it is there.

    `warnings.catch_warnings` restores the whole process's filters when it ends and so cannot be
    used in threads (until Python 3.14); a narrow filter that stays can.
    """
    if list(warnings.filters[:1]) != [_QUIET]:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)


def _one_line(error: BaseException) -> str:
    text = " ".join(_ADDRESS.sub("", str(error)).split())
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable[:_MAX_DETAIL] or type(error).__name__
