"""How often the demo model is right on new scenes, read from the files that a user would load.

Each picture goes through a real JPEG file's bytes and the model's own Hugging Face processor.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from pairscore.demo.drawing import photo_size, render, to_jpeg
from pairscore.demo.scenes import ATTRIBUTES, Combinations, Scene, caption, change, sample

CHOICES = 32
_BATCH = 128


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares in [0, 1] over `scenes` new scenes.

    `attributes`: how often the right caption scores above one with exactly that attribute changed.
    `top1`: how often it scores highest of 32 captions of different scenes.
    """

    combinations: Combinations
    scenes: int
    attributes: dict[str, float]
    top1: float

    def row(self) -> str:
        """One line of the table that `header` heads, in per cent."""
        cells = [*self.attributes.values(), self.top1]
        return f"{self.combinations:<12}{self.scenes:>7}" + "".join(f"{c:>12.1%}" for c in cells)


def header() -> str:
    """The head of the table of accuracies."""
    names = [*ATTRIBUTES, f"top-1 of {CHOICES}"]
    return f"{'colour-shape':<12}{'scenes':>7}" + "".join(f"{name:>12}" for name in names)


def evaluate(folder: Path, combinations: Combinations, scenes: int, seed: int = 0) -> Accuracy:
    """Load the model in `folder` and measure it on `scenes` scenes, a multiple of 32.

    The scenes and pictures depend on `seed` alone, and on no stream that training draws from.
    """
    judge = _Judge(folder)
    rng = np.random.default_rng((seed, len(combinations), 0xE7A1))
    drawn = [sample(rng, combinations) for _ in range(scenes)]
    images = judge.images([_photo(scene, rng) for scene in drawn])
    wordings = [int(n) for n in rng.integers(1 << 30, size=scenes)]
    right = judge.texts([_say(s, n) for s, n in zip(drawn, wordings, strict=True)])
    similarity = (images * right).sum(-1)
    attributes: dict[str, float] = {}
    for attribute in ATTRIBUTES:
        changed = [change(scene, attribute, rng) for scene in drawn]
        wrong = judge.texts([_say(s, n) for s, n in zip(changed, wordings, strict=True)])
        attributes[attribute] = (similarity > (images * wrong).sum(-1)).double().mean().item()
    return Accuracy(combinations, scenes, attributes, _top1(images, right))


def _say(scene: Scene, wording: int) -> str:
    return caption(scene, np.random.default_rng(wording))


def _photo(scene: Scene, rng: np.random.Generator) -> Image.Image:
    width, height = photo_size(rng)
    return Image.open(io.BytesIO(to_jpeg(render(scene, rng, width, height), rng)))


def _top1(images: Tensor, texts: Tensor) -> float:
    shape = (-1, CHOICES, images.shape[-1])
    best = (images.reshape(shape) @ texts.reshape(shape).transpose(1, 2)).argmax(-1)
    return (best == torch.arange(CHOICES)).double().mean().item()


class _Judge:
    """The model in a folder, read as a stranger would read it."""

    def __init__(self, folder: Path) -> None:
        self._model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
        self._processor = CLIPProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised embeddings: (images, width)."""
        parts = []
        for start in range(0, len(images), _BATCH):
            inputs = self._processor(
                images=list(images[start : start + _BATCH]), return_tensors="pt"
            )
            parts.append(self._model.get_image_features(**inputs).pooler_output)
        return torch.nn.functional.normalize(torch.cat(parts))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Normalised embeddings: (captions, width)."""
        parts = []
        for start in range(0, len(captions), _BATCH):
            inputs = self._processor(
                text=list(captions[start : start + _BATCH]), padding=True, return_tensors="pt"
            )
            parts.append(self._model.get_text_features(**inputs).pooler_output)
        return torch.nn.functional.normalize(torch.cat(parts))
