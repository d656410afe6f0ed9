"""Photo-like JPEGs and the CSV files that name them: what the benchmarks fetch."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 640, 480
_OCTAVES = ((8, 90.0), (20, 45.0), (60, 22.0), (160, 11.0), (640, 5.0))
_CAPTIONS = (
    "a photo of {n} {a} {b} standing near a {c} on a {d} street",
    "the {a} {b} and the {c} are next to a {d} house in town",
    "a picture of a {a} {b} with {n} {c} under a {d} sky",
)
_A = ("small", "large", "old", "young", "white", "black", "red", "blue", "green", "yellow")
_B = ("dog", "cat", "horse", "bird", "man", "woman", "boy", "girl", "child", "cow")
_C = ("tree", "car", "bus", "bicycle", "boat", "table", "chair", "umbrella", "clock", "bag")
_D = ("dark", "bright", "wooden", "colourful", "empty", "crowded", "grey", "purple")
_N = ("two", "three", "four", "several", "many")


def make_photos(folder: Path, count: int = 512) -> Sequence[str]:
    """Write `count` distinct 640x480 JPEGs (some 90 kB each) unless there; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        if not (folder / name).exists():
            _photo(np.random.default_rng(number)).save(folder / name, quality=85)
    return names


def caption(rng: np.random.Generator) -> str:
    """An English caption of about 16 tokens."""
    parts = {"a": _A, "b": _B, "c": _C, "d": _D, "n": _N}
    chosen = {key: words[rng.integers(len(words))] for key, words in parts.items()}
    return _CAPTIONS[rng.integers(len(_CAPTIONS))].format(**chosen)


def write_csv(path: Path, urls: Sequence[str], seed: int = 0, captions: int | None = None) -> Path:
    """A CSV of `urls` with a caption each, of `captions` distinct ones if given."""
    rng = np.random.default_rng(seed)
    pool = [caption(rng) for _ in range(captions or len(urls))]
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["url", "caption"])
        writer.writerows((url, pool[i % len(pool)]) for i, url in enumerate(urls))
    return path


def _photo(rng: np.random.Generator) -> Image.Image:
    """Noise whose spectrum falls off as that of photographs does (Field 1987), and edges."""
    picture = np.full((HEIGHT, WIDTH, 3), 128.0, np.float32)
    for side, strength in _OCTAVES:
        coarse = rng.normal(0, strength, (max(2, side * HEIGHT // WIDTH), side, 3))
        for channel in range(3):
            layer = Image.fromarray(coarse[:, :, channel].astype(np.float32))
            picture[:, :, channel] += np.asarray(
                layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            )
    for _ in range(6):
        x, y = rng.integers(0, WIDTH - 60), rng.integers(0, HEIGHT - 60)
        w, h = rng.integers(40, 240, 2)
        picture[y : y + h, x : x + w] += rng.normal(0, 40, 3)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))
