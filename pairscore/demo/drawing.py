"""Turns scenes into pictures, and pictures into JPEG bytes; everything random comes from `rng`."""

import colorsys
import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pairscore.demo.scenes import Scene

_SUPERSAMPLING = 2
_RADII = {"small": (0.125, 0.14), "large": (0.2, 0.22)}
_MAX_TILT = math.radians(12)
_GAP = 2.2
_MARGIN = 0.2
_TRIES = 8

# Hue in degrees, saturation and value: the lowest and highest of each.
_HSV = {
    "red": ((-7, 7), (0.80, 1.0), (0.75, 1.0)),
    "orange": ((24, 33), (0.85, 1.0), (0.90, 1.0)),
    "yellow": ((51, 58), (0.75, 1.0), (0.90, 1.0)),
    "green": ((105, 140), (0.60, 1.0), (0.45, 0.80)),
    "cyan": ((177, 188), (0.65, 1.0), (0.85, 1.0)),
    "blue": ((218, 236), (0.75, 1.0), (0.70, 1.0)),
    "purple": ((268, 284), (0.60, 0.95), (0.50, 0.80)),
    "pink": ((322, 338), (0.35, 0.55), (0.95, 1.0)),
    "brown": ((20, 30), (0.55, 0.75), (0.30, 0.45)),
    "white": ((0, 360), (0.00, 0.04), (0.94, 1.0)),
    "grey": ((0, 360), (0.00, 0.06), (0.45, 0.62)),
    "black": ((0, 360), (0.00, 0.30), (0.00, 0.10)),
}


def render(scene: Scene, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw `scene` as an RGB picture of `width` x `height` pixels.

    The shapes lie, whole and apart, in the central square of side min(width, height), which is what
    CLIP's centre crop keeps.
    """
    mask = _mask(scene, rng, width, height)[..., None]
    ink = np.asarray(_rgb(scene.colour, rng), np.float32)
    pixels = _background(scene.background, rng, width, height)
    pixels += (ink - pixels) * mask
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, 9))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def photo_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a width and a height from 96 to 400 pixels, neither over twice the other."""
    short = int(rng.integers(96, 301))
    long = int(rng.integers(short, min(400, 2 * short) + 1))
    return (long, short) if rng.random() < 0.6 else (short, long)


def to_jpeg(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Encode `image` at a quality from 60 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
    return buffer.getvalue()


def _mask(
    scene: Scene, rng: np.random.Generator, width: int, height: int
) -> npt.NDArray[np.float32]:
    """Coverage of each pixel by shapes: (height, width), from 0 to 1."""
    side = min(width, height) * _SUPERSAMPLING
    left, top = (width * _SUPERSAMPLING - side) / 2, (height * _SUPERSAMPLING - side) / 2
    image = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    radius = rng.uniform(*_RADII[scene.size])
    for x, y in _places(scene.count, radius, rng):
        for points, ink in _outline(scene.shape, rng):
            tilted = _tilt(points, rng.uniform(-_MAX_TILT, _MAX_TILT) if ink else 0.0)
            scale = side * radius
            corners = tilted * scale + (left + x * side, top + y * side)
            draw.polygon([tuple(corner) for corner in corners.tolist()], fill=ink)
    return np.asarray(image.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


def _places(count: int, radius: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Centres of `count` discs in the unit square that neither touch nor stick out: (count, 2)."""
    margin = max(radius * 1.03, _MARGIN)
    for _ in range(_TRIES):
        places = rng.uniform(margin, 1 - margin, (count, 2))
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        if count == 1 or apart[np.triu_indices(count, 1)].min() > _GAP * radius:
            return places
    cells = rng.permutation([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])[:count]
    return cells + rng.uniform(-1, 1, (count, 2)) * (0.25 - radius * 1.03)


def _outline(shape: str, rng: np.random.Generator) -> list[tuple[npt.NDArray[np.float64], int]]:
    """Polygons of `shape` within the unit disc, each drawn (255) or cut out (0)."""
    circle = _regular(36)
    match shape:
        case "circle":
            return [(circle * 0.95, 255)]
        case "ring":
            return [(circle, 255), (circle * rng.uniform(0.52, 0.6), 0)]
        case "square":
            return [(_regular(4, math.pi / 4), 255)]
        case "triangle":
            return [(_regular(3, -math.pi / 2) + np.array([0, 0.12]), 255)]
        case "cross":
            w = rng.uniform(0.2, 0.26)
            half = [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w)]
            return [(np.array(half + [(-x, -y) for x, y in half]) * 0.97, 255)]
        case "crescent":
            return [(_crescent(), 255)]
    raise ValueError(f"no such shape: {shape}")


def _crescent() -> npt.NDArray[np.float64]:
    """A disc less another one to its right that meets it at its horns."""
    horn = math.radians(50)
    outer = np.linspace(horn, 2 * math.pi - horn, 40)
    rim = np.stack([np.cos(outer), np.sin(outer)], 1)
    centre = 0.55
    reach = math.hypot(math.cos(horn) - centre, math.sin(horn))
    start = math.atan2(math.sin(horn), math.cos(horn) - centre)
    inner = np.linspace(2 * math.pi - start, start, 30)
    bite = np.stack([centre + reach * np.cos(inner), reach * np.sin(inner)], 1)
    return np.concatenate([rim, bite])


def _regular(corners: int, start: float = 0.0) -> npt.NDArray[np.float64]:
    angles = start + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _tilt(points: npt.NDArray[np.float64], angle: float) -> npt.NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    tilted: npt.NDArray[np.float64] = points @ np.array([[cos, sin], [-sin, cos]])
    return tilted


def _background(
    colour: str, rng: np.random.Generator, width: int, height: int
) -> npt.NDArray[np.float32]:
    """One colour with a slight slope of light across it: (height, width, 3), from 0 to 255."""
    slope_x, slope_y = rng.uniform(-10, 10, 2)
    light = (
        np.linspace(-slope_x, slope_x, width, dtype=np.float32)[None, :]
        + np.linspace(-slope_y, slope_y, height, dtype=np.float32)[:, None]
    )
    return np.asarray(_rgb(colour, rng), np.float32) + light[..., None]


def _rgb(colour: str, rng: np.random.Generator) -> tuple[float, float, float]:
    hue, saturation, value = (rng.uniform(*span) for span in _HSV[colour])
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return red * 255, green * 255, blue * 255
