"""Images for the tests of `pairscore.image`: every mode and format that Pillow can write."""

import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 61, 47
_ORIENTATION = 0x0112


def photo(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> Image.Image:
    """Make an RGB image with smooth parts, edges and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth.astype(np.int16) + rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def as_pillow_gives(data: bytes) -> NDArray[np.uint8]:
    """Decode as the reference does, with its warnings off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(BytesIO(data)) as image:
            return np.array(image.convert("RGB"))


def rotated_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


def samples() -> dict[str, bytes]:
    """Encode the same picture in every way, by name; the format comes first in the name."""
    return {
        **_jpegs(),
        **_pngs(),
        **_webps(),
        **_gifs(),
        **{f"BMP {mode}": encode(in_mode(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
        **_tiffs(),
        **{f"AVIF {mode}": encode(in_mode(mode), "AVIF") for mode in ("L", "RGB", "RGBA")},
    }


def in_mode(mode: str, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Make the picture in `mode`, with values that use its range."""
    image = photo(width, height)
    grey = np.asarray(image.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 3 - 200)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) * 1.5 - 40.0)
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(grey))
        return image
    return image.convert(mode)


def mutants(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Damage seeds in `count` ways: cut, flipped, overwritten at the start, shortened, spliced."""
    rng = random.Random(seed)
    for _ in range(count):
        data, donor = bytearray(rng.choice(seeds)), rng.choice(seeds)
        at, length = rng.randrange(len(data)), rng.randrange(1, 64)
        match rng.randrange(5):
            case 0:
                del data[at:]
            case 1:
                for _ in range(rng.choice((1, 2, 16))):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                for _ in range(rng.choice((1, 2, 4))):
                    data[rng.randrange(min(len(data), 200))] = rng.choice((0, 1, 127, 128, 255))
            case 3:
                del data[at : at + length]
            case _:
                start = rng.randrange(len(donor))
                data[at:at] = donor[start : start + length]
        yield bytes(data)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def tiff(tags: dict[int, int], body: bytes = b"") -> bytes:
    """Write a little-endian TIFF of one directory whose tags are all 32-bit; `body` is at 8."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def _jpegs() -> dict[str, bytes]:
    image = photo()
    pixels = np.asarray(image)
    made = {
        f"JPEG {sampling}": simplejpeg.encode_jpeg(pixels, colorsubsampling=sampling)
        for sampling in ("444", "422", "420", "440", "411", "Gray")
    }
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        made[f"JPEG progressive {sampling}"] = encode(
            image, "JPEG", progressive=True, subsampling=sampling
        )
    cmyk = encode(image.convert("CMYK"), "JPEG")
    adobe_transform = cmyk.index(b"Adobe") + 11
    return {
        **made,
        "JPEG L": encode(in_mode("L"), "JPEG"),
        "JPEG L progressive": encode(in_mode("L"), "JPEG", progressive=True),
        "JPEG RGB": encode(image, "JPEG", keep_rgb=True),
        "JPEG CMYK": cmyk,
        "JPEG YCCK": cmyk[:adobe_transform] + b"\x02" + cmyk[adobe_transform + 1 :],
        "JPEG restarts": encode(image, "JPEG", restart_marker_blocks=2),
        "JPEG rotated": encode(image, "JPEG", exif=rotated_exif()),
        "JPEG trailing bytes": encode(image, "JPEG") + b"<!-- cached -->",
        "MPO": encode(image, "MPO", save_all=True, append_images=[image.rotate(90)]),
    }


def _pngs() -> dict[str, bytes]:
    image = photo()
    palette = image.quantize(16)
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    return {
        **{f"PNG {mode}": encode(in_mode(mode), "PNG") for mode in modes},
        "PNG P one transparent": encode(palette, "PNG", transparency=3),
        "PNG P many transparent": encode(palette, "PNG", transparency=bytes(range(0, 240, 15))),
        "PNG L transparent": encode(in_mode("L"), "PNG", transparency=100),
        "PNG RGB transparent": encode(image, "PNG", transparency=image.getpixel((0, 0))),
        "PNG animated": encode(image, "PNG", save_all=True, append_images=[image.rotate(180)]),
        "PNG rotated": encode(image, "PNG", exif=rotated_exif()),
    }


def _webps() -> dict[str, bytes]:
    image = photo()
    return {
        "WEBP RGB": encode(image, "WEBP"),
        "WEBP RGB lossless": encode(image, "WEBP", lossless=True),
        "WEBP RGBA": encode(in_mode("RGBA"), "WEBP"),
        "WEBP animated": encode(image, "WEBP", save_all=True, append_images=[image.rotate(180)]),
        "WEBP rotated": encode(image, "WEBP", exif=rotated_exif()),
    }


def _gifs() -> dict[str, bytes]:
    image = photo()
    frames = [image.rotate(90), image.rotate(180)]
    plain = encode(image, "GIF")
    return {
        "GIF P": plain,
        "GIF P not interlaced": encode(image, "GIF", interlace=0),
        "GIF L": encode(in_mode("L"), "GIF"),
        "GIF transparent": encode(image.quantize(32), "GIF", transparency=5),
        "GIF animated": encode(image, "GIF", save_all=True, append_images=frames, disposal=2),
        "GIF frame beyond screen": plain[:6] + struct.pack("<HH", 20, 10) + plain[10:],
    }


def _tiffs() -> dict[str, bytes]:
    image = photo()
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
    return {
        **{f"TIFF {mode}": encode(in_mode(mode), "TIFF") for mode in modes},
        **{
            f"TIFF {name}": encode(image, "TIFF", compression=name)
            for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        },
        "TIFF group4": encode(in_mode("1"), "TIFF", compression="group4"),
        "TIFF pages": encode(image, "TIFF", save_all=True, append_images=[image.rotate(90)]),
        "TIFF rotated": encode(image, "TIFF", exif=rotated_exif()),
        "TIFF tiled": tiff(
            {256: 20, 257: 20, 258: 8, 259: 1, 262: 1, 277: 1, 322: 32, 323: 32, 324: 8, 325: 1024},
            bytes(range(256)) * 4,
        ),
    }
