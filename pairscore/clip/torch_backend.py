"""Runs transformers' CLIPModel with torch, on a GPU or a CPU.

On a CPU, cores work on different small batches, each on one thread (see `onnx_backend` for why); a
GPU is given one batch after the other.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize
from transformers import CLIPModel

from pairscore.clip.choice import ChosenDevice, ChosenPrecision
from pairscore.clip.preprocessing import Preprocessing
from pairscore.clip.source import ModelFiles
from pairscore.clip.tokenizer import Caption, padded
from pairscore.errors import ModelError
from pairscore.threads import use_one_core

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Per thread of a CPU; more gains nothing there.
_CPU_IMAGES, _CPU_CAPTIONS = 8, 16
Floats = NDArray[np.float32]


class TorchBackend:
    """Both encoders on one device; pixels are normalised and embeddings scaled in fp32.

    At most `batch_size` images or captions go to a GPU at once; a CPU works on `threads` at a time.
    """

    def __init__(
        self,
        files: ModelFiles,
        preprocessing: Preprocessing,
        *,
        device: ChosenDevice,
        precision: ChosenPrecision,
        batch_size: int,
        threads: int,
    ) -> None:
        self._device = torch.device(device)
        self._dtype = _DTYPES[precision]
        on_cpu = device == "cpu"
        self._images = min(batch_size, _CPU_IMAGES) if on_cpu else batch_size
        self._captions = min(batch_size, _CPU_CAPTIONS) if on_cpu else batch_size
        self._pool = ThreadPoolExecutor(
            threads if on_cpu else 1,
            thread_name_prefix="pairscore-torch",
            initializer=use_one_core if on_cpu else None,
        )
        self._model = _load(files, self._dtype, self._device)
        std = np.asarray(preprocessing.std)
        self._scale = self._channels(preprocessing.rescale / std)
        self._shift = self._channels(-np.asarray(preprocessing.mean) / std)

    def embed_images(self, pixels: NDArray[np.uint8]) -> Floats:
        """Float32 [n, d] of length 1 from uint8 [n, 3, height, width]."""
        parts = [pixels[part] for part in _slices(len(pixels), self._images)]
        return self._run(self._encode_images, parts)

    def embed_captions(self, captions: Sequence[Caption]) -> Floats:
        """Float32 [n, d] of length 1, in the order of `captions`."""
        order = sorted(range(len(captions)), key=lambda index: captions[index].length)
        parts = _slices(len(captions), self._captions)
        groups = [[captions[i] for i in order[part]] for part in parts]
        embeddings = self._run(self._encode_captions, groups)
        restored = np.empty_like(embeddings)
        restored[order] = embeddings
        return restored

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _run(self, encode: Callable[[Any], torch.Tensor], batches: list[Any]) -> Floats:
        @torch.inference_mode()
        def embed(batch: Any) -> torch.Tensor:  # noqa: ANN401  # pixels or captions
            return normalize(encode(batch).float(), dim=-1)

        # Results are fetched after the last batch is under way: fetching waits for the device.
        embeddings: Floats = torch.cat(list(self._pool.map(embed, batches))).cpu().numpy()
        return embeddings

    def _encode_images(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        on_device = self._send(pixels).float()
        normalised = torch.addcmul(self._shift, on_device, self._scale).to(self._dtype)
        with self._unrounded():
            features: torch.Tensor = self._model.get_image_features(normalised).pooler_output
        return features

    def _encode_captions(self, captions: Sequence[Caption]) -> torch.Tensor:
        ids = self._send(padded(captions))
        features: torch.Tensor = self._model.get_text_features(ids).pooler_output
        return features

    def _unrounded(self) -> AbstractContextManager[None]:
        """Keep cuDNN from rounding fp32 to TF32, as it would in the patches' convolution."""
        if self._device.type != "cuda" or self._dtype != torch.float32:
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)

    def _send(self, array: NDArray[Any]) -> torch.Tensor:
        if self._device.type != "cuda":
            # A copy, as torch warns of memory that it may not write to.
            return torch.tensor(array, device=self._device)
        return torch.tensor(array).pin_memory().to(self._device, non_blocking=True)

    def _channels(self, values: NDArray[np.float64]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).view(1, 3, 1, 1)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _load(files: ModelFiles, dtype: torch.dtype, device: torch.device) -> CLIPModel:
    try:
        with _quiet():
            load: Any = CLIPModel.from_pretrained
            model, report = load(
                files.folder,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {files.name}: transformers cannot load it ({reason})") from None
    # transformers would fill in what is missing with random numbers.
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model {files.name}: its weights lack {missing[0]}; it is not a complete CLIP"
        )
    try:
        ready: CLIPModel = model.eval().to(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"model {files.name} does not go on device {device} ({reason})") from None
    return ready


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bar and load report off the terminal, which is the command's."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    bars: Any = transformers_logging
    level, shown = logger.level, bars.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()
