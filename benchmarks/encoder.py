"""How close the encoders come to what this CPU's matrix products allow, and how far ahead of eager.

    python -m benchmarks.encoder [--rounds 5] [--model DIR] [--only onnx-int8 ...]

Every round measures the GEMM rate and each way to run the model, one after the other, so that other
load on the machine falls on all of them; the best round of each counts. A share is the nominal work
(8.8 GFLOP an image, 1.2 a caption of 16 tokens, ViT-B/32) over the time taken, over the GEMM rate
(`torch.nn.functional.linear`, 1600x768x3072, fp32, all cores).
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.limit import gemm_rate
from benchmarks.models import CAPTION_GFLOP, CAPTION_TOKENS, IMAGE_GFLOP, make_vit_b32
from pairscore.clip import Caption, ClipModel, load_model, probe
from pairscore.settings import Settings

COUNT = 64
EAGER_BATCH = 32
KINDS = ("onnx-fp32", "onnx-int8", "torch-fp32", "torch-bf16")


@dataclass
class Times:
    """Seconds per item of every round: of the clock, and of the CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, run: Callable[[], object], items: int) -> None:
        """Take one more round."""
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.wall.append((time.perf_counter() - wall) / items)
        self.cpu.append((time.process_time() - cpu) / items)


class Eager:
    """The obvious script's encoder: transformers' CLIPModel, eager attention, batches of 32."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel

        model: Any = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self._model = model.eval()

    @torch.inference_mode()
    def images(self, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Embed already preprocessed images."""
        values = torch.tensor(pixels[:EAGER_BATCH]).float() / 255
        for _ in range(len(pixels) // EAGER_BATCH):
            self._model.get_image_features(values)

    @torch.inference_mode()
    def captions(self, captions: list[Caption]) -> None:
        """Embed tokenised captions of equal length."""
        ids = torch.tensor([caption.ids for caption in captions])
        for batch in torch.split(ids, EAGER_BATCH):
            self._model.get_text_features(batch)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=Path("/tmp/pairscore-bench/vit-b32"))
    parser.add_argument("--only", nargs="*", default=[*KINDS], choices=KINDS)
    arguments = parser.parse_args()
    torch.set_num_threads(probe().cores)
    folder = make_vit_b32(arguments.model)
    models = {kind: _load(folder, kind) for kind in arguments.only}
    rates, times = _measure(Eager(folder), models, arguments.rounds)
    _report(max(rates), times)


def _load(folder: Path, kind: str) -> ClipModel:
    backend, precision = kind.split("-")
    asked = {"model": str(folder), "device": "cpu", "backend": backend, "precision": precision}
    cache = {"cache_dir": folder.parent / "cache"}
    return load_model(Settings.model_validate(asked | cache))


def _measure(
    eager: Eager, models: dict[str, ClipModel], rounds: int
) -> tuple[list[float], dict[str, tuple[Times, Times]]]:
    size = (COUNT, 3, 224, 224)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    text = " ".join(["dog"] * (CAPTION_TOKENS - 2))
    captions = next(iter(models.values())).tokenize([text] * COUNT)
    runs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "eager": (lambda: eager.images(pixels), lambda: eager.captions(captions))
    }
    for kind, model in models.items():
        runs[kind] = (
            partial(model.embed_images, pixels),
            partial(model.embed_captions, captions),
        )
        model.warm_up()
    rates, times = [], {kind: (Times(), Times()) for kind in runs}
    for _ in range(rounds):
        for kind, (images, texts) in runs.items():
            rates.append(gemm_rate(seconds=0.5))
            times[kind][0].measure(images, COUNT)
            times[kind][1].measure(texts, COUNT)
    return rates, times


def _report(rate: float, times: dict[str, tuple[Times, Times]]) -> None:
    print(f"GEMM rate {rate:.0f} GFLOP/s on {torch.get_num_threads()} cores")
    print(f"{'':12}{'image ms':>10}{'cpu ms':>8}{'share':>7}", end="")
    print(f"{'caption ms':>12}{'cpu ms':>8}{'share':>7}{'pairs/s':>9}{'x eager':>9}")
    eager = sum(min(part.wall) for part in times["eager"])
    for kind, (images, captions) in times.items():
        image, caption = min(images.wall), min(captions.wall)
        print(f"{kind:12}{image * 1e3:10.1f}{min(images.cpu) * 1e3:8.1f}", end="")
        print(f"{IMAGE_GFLOP / image / rate:7.0%}{caption * 1e3:12.2f}", end="")
        print(f"{min(captions.cpu) * 1e3:8.2f}{CAPTION_GFLOP / caption / rate:7.0%}", end="")
        print(f"{1 / (image + caption):9.1f}{eager / (image + caption):9.2f}")


if __name__ == "__main__":
    main()
