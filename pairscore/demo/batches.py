"""Training batches of hard negatives: groups of scenes one attribute away from their first."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset
from transformers import CLIPTokenizer

from pairscore.demo.drawing import render, to_jpeg
from pairscore.demo.scenes import (
    ATTRIBUTES,
    VALUES,
    Attribute,
    Scene,
    caption,
    change,
    sample,
)

GROUPS = 13

# Shapes and counts are learnt last, so they are contrasted most.
CHANGES: tuple[Attribute, ...] = (
    "shape",
    "shape",
    "shape",
    "shape",
    "count",
    "count",
    "colour",
    "size",
    "background",
)
BATCH_SIZE = GROUPS * (1 + len(CHANGES))

_COMPLETE = 0.6
_MENTIONED = 0.6


@dataclass(frozen=True, slots=True)
class Batch:
    """`BATCH_SIZE` scenes with a caption each.

    `pixels`: uint8 (batch, 3, side, side). `tokens`: int64 (batch, longest), padded with
    the end token. `fits`: bool (batch, batch); whether caption j is true of scene i, which may be
    so for i != j.
    """

    pixels: Tensor
    tokens: Tensor
    fits: Tensor


class Batches(Dataset[Batch]):
    """Batch `i` is a function of the seed and `i` alone, whichever process makes it."""

    def __init__(self, tokenizer: CLIPTokenizer, side: int, seed: int, count: int) -> None:
        self._tokenizer = tokenizer
        self._side = side
        self._seed = seed
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self._seed, index))
        scenes = [scene for _ in range(GROUPS) for scene in _group(rng)]
        mentions = [_mention(rng) for _ in scenes]
        captions = [caption(s, rng, m) for s, m in zip(scenes, mentions, strict=True)]
        tokens = self._tokenizer(captions, padding=True, return_tensors="pt")
        return Batch(
            pixels=torch.stack([_photo(scene, rng, self._side) for scene in scenes]),
            tokens=tokens["input_ids"],
            fits=torch.from_numpy(_fits(scenes, mentions)),
        )


def _group(rng: np.random.Generator) -> list[Scene]:
    scene = sample(rng, "seen")
    return [scene, *(change(scene, attribute, rng, "seen") for attribute in CHANGES)]


def _mention(rng: np.random.Generator) -> tuple[Attribute, ...]:
    if rng.random() < _COMPLETE:
        return ATTRIBUTES
    chosen = tuple(a for a in ATTRIBUTES if rng.random() < _MENTIONED)
    return chosen or (ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))],)


def _photo(scene: Scene, rng: np.random.Generator, side: int) -> Tensor:
    """Draw, compress, read back and shrink, as a picture fares on its way to the model."""
    drawn = int(rng.integers(side * 5 // 4, side * 2))
    with Image.open(io.BytesIO(to_jpeg(render(scene, rng, drawn, drawn), rng))) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    size = (side, side)
    return interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]


def _fits(scenes: list[Scene], mentions: list[tuple[Attribute, ...]]) -> npt.NDArray[np.bool_]:
    fits = np.ones((len(scenes), len(scenes)), np.bool_)
    for attribute in ATTRIBUTES:
        values = [getattr(scene, attribute) for scene in scenes]
        codes = np.array([VALUES[attribute].index(value) for value in values])
        named = np.array([attribute in mention for mention in mentions])
        agree = codes[:, None] == codes[None, :]
        if attribute == "count":
            # A caption without a number still tells one thing from several.
            loose = (codes[:, None] == 0) == (codes[None, :] == 0)
        else:
            loose = np.ones_like(agree)
        fits &= np.where(named[None, :], agree, loose)
    return fits
