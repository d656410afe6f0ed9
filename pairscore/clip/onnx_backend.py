"""Runs the exported encoders with ONNX Runtime on the CPU.

Images are independent, so cores work on different ones: each runs its own small batch on one
thread, which needs no barrier and no spinning, and so leaves the cores to others when it has to. A
batch of 8 keeps a layer's activations near the cache; more gains nothing.

At int8 every image and every caption is run alone. Its activations are quantised by their own range
then, and a similarity does not depend on what else happened to be in the batch.

ONNX Runtime's telemetry is off, unless the environment says otherwise.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pairscore.clip.tokenizer import Caption, padded
from pairscore.errors import ModelError

# It looks only once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

_IMAGES = 8
# A group of captions is closed by the next longer caption once it has this many tokens: the matrix
# products gain little beyond, and padding would cost.
_ENOUGH_TOKENS = 128
_MOST_TOKENS = 512

_Job = TypeVar("_Job")
Floats = NDArray[np.float32]


class OnnxBackend:
    """Both encoders; `alone` runs every image and caption in a batch of its own."""

    def __init__(self, folder: Path, threads: int, *, alone: bool) -> None:
        self._threads = threads
        self._alone = alone
        self._vision = _session(folder / "vision.onnx")
        self._text = _session(folder / "text.onnx")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pairscore-onnx")

    def embed_images(self, pixels: NDArray[np.uint8]) -> Floats:
        """Float32 [n, d] of length 1 from uint8 [n, 3, height, width]."""
        count = len(pixels)
        parts = count if self._alone else self._parts(count)
        return np.concatenate(self._map(self._run_vision, np.array_split(pixels, parts)))

    def embed_captions(self, captions: Sequence[Caption]) -> Floats:
        """Float32 [n, d] of length 1, in the order of `captions`."""
        groups = _groups(captions, most=0 if self._alone else _MOST_TOKENS)
        results = self._map(lambda group: self._run_text([captions[i] for i in group]), groups)
        embeddings = np.concatenate(results)
        order = np.concatenate(groups)
        restored = np.empty_like(embeddings)
        restored[order] = embeddings
        return restored

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _parts(self, count: int) -> int:
        """As many batches as leave no core idle, none above `_IMAGES`."""
        batches = -(-count // _IMAGES)
        return min(count, -(-batches // self._threads) * self._threads)

    def _map(self, run: Callable[[_Job], Floats], jobs: Iterable[_Job]) -> list[Floats]:
        return list(self._pool.map(run, jobs))

    def _run_vision(self, pixels: NDArray[np.uint8]) -> Floats:
        embeddings: Floats = self._vision.run(None, {"pixels": pixels})[0]
        return embeddings

    def _run_text(self, captions: Sequence[Caption]) -> Floats:
        lengths = np.array([caption.length for caption in captions], dtype=np.int32)
        feeds = {"ids": padded(captions), "lengths": lengths}
        embeddings: Floats = self._text.run(None, feeds)[0]
        return embeddings


def _groups(captions: Sequence[Caption], most: int) -> list[list[int]]:
    """Indices of captions of about equal length; `most` tokens a group, or else one caption."""
    groups: list[list[int]] = []
    shortest = 0
    for index in sorted(range(len(captions)), key=lambda i: captions[i].length):
        length = captions[index].length
        tokens = length * len(groups[-1]) if groups else most
        if tokens + length > most or (length > shortest and tokens >= _ENOUGH_TOKENS):
            groups.append([])
            shortest = length
        groups[-1].append(index)
    return groups


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Shapes change from run to run, so a plan of memory would be remade and kept for each.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the exported model {file} cannot be loaded ({reason}); delete it"
        ) from None
