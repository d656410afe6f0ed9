"""A CLIP ready to embed images and captions, whatever runs it."""

import logging
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pairscore.clip.architecture import read_architecture
from pairscore.clip.choice import Capabilities, Choice, choose, probe
from pairscore.clip.fingerprint import fingerprint, model_digest
from pairscore.clip.folders import cache_folder
from pairscore.clip.onnx_export import Export, exported
from pairscore.clip.preprocessing import Preprocessing, read_preprocessing
from pairscore.clip.source import DEMO, ModelFiles, find_model
from pairscore.clip.tokenizer import Caption, CaptionTokenizer, load_tokenizer
from pairscore.clip.weights import open_weights
from pairscore.settings import Settings

Floats = NDArray[np.float32]

_BATCH_SIZES = {"cuda": 128, "mps": 32}
_IMAGES_PER_CORE = 16
_MOST_IMAGES = 256

logger = logging.getLogger("pairscore.clip")


class Backend(Protocol):
    """What runs the two encoders; called from one thread at a time."""

    def embed_images(self, pixels: NDArray[np.uint8]) -> Floats:
        """Float32 [n, d] of length 1 from uint8 [n, 3, height, width], n > 0."""
        ...

    def embed_captions(self, captions: Sequence[Caption]) -> Floats:
        """Float32 [n, d] of length 1, in the order of `captions`, n > 0."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class ClipModel:
    """Embeds images and captions in one space: the cosine of two says how well they match.

    `embed_images` and `embed_captions` are for one thread at a time, `tokenize` for any.

    Attributes:
        name: as it was asked for.
        fingerprint: of weights, preprocessing, backend and precision; equal fingerprints give equal
            similarities.
        device, precision, backend: what it runs on, as `choose` decided.
        why: a line on each of these decisions.
        batch_size: how many images at once suit the device.
        logit_scale: what a cosine is multiplied by to give a similarity.
        preprocessing: how `embed_images` wants its pixels; it rescales and normalises by itself.
        dimensions: of an embedding.
    """

    def __init__(
        self,
        files: ModelFiles,
        choice: Choice,
        backend: Backend,
        *,
        fingerprint: str,
        tokenizer: CaptionTokenizer,
        preprocessing: Preprocessing,
        logit_scale: float,
        dimensions: int,
        batch_size: int,
    ) -> None:
        self.name = files.name
        self.fingerprint = fingerprint
        self.device = choice.device
        self.precision = choice.precision
        self.backend = choice.backend
        self.why = choice.why
        self.batch_size = batch_size
        self.logit_scale = logit_scale
        self.preprocessing = preprocessing
        self.dimensions = dimensions
        self._backend = backend
        self._tokenizer = tokenizer

    def tokenize(self, captions: Sequence[str]) -> list[Caption]:
        """Tokens of each caption, in order; those that are too long are truncated and say so."""
        return self._tokenizer(captions)

    def embed_images(self, pixels: NDArray[np.uint8]) -> Floats:
        """Embed images.

        Args:
            pixels: uint8 [n, 3, height, width], resized and cropped as `preprocessing` says.

        Returns:
            float32 [n, dimensions], each of length 1.
        """
        shape = (3, *self.preprocessing.crop)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape:
            message = f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [n, {shape}]"
            raise ValueError(message)
        return self._backend.embed_images(pixels) if len(pixels) else self._nothing()

    def embed_captions(self, captions: Sequence[Caption]) -> Floats:
        """Embed tokenised captions: float32 [n, dimensions], each of length 1, in order."""
        return self._backend.embed_captions(captions) if len(captions) else self._nothing()

    def similarity(self, images: Floats, captions: Floats) -> Floats:
        """CLIP's `logits_per_image`: float32 [n, m] of n images' and m captions' embeddings."""
        return np.asarray(self.logit_scale * (images @ captions.T), dtype=np.float32)

    def warm_up(self) -> None:
        """Run both encoders once, so that the first batch is as fast as those that follow."""
        self.embed_images(np.zeros((1, 3, *self.preprocessing.crop), dtype=np.uint8))
        self.embed_captions(self.tokenize(["a photo"]))

    def close(self) -> None:
        """Release the backend's threads and memory; nothing can be embedded afterwards."""
        self._backend.close()

    def _nothing(self) -> Floats:
        return np.empty((0, self.dimensions), dtype=np.float32)


def load_model(settings: Settings, capabilities: Capabilities | None = None) -> ClipModel:
    """Find the model that `settings` name and make it ready, downloading and exporting if need be.

    Args:
        settings: which model, where and how.
        capabilities: of this machine; found out by default.

    Raises:
        ModelError: the model cannot be had or used.
        SettingsError: device, precision and backend do not go together.
        EnvironmentFault: this machine lacks what is asked for, or the cache cannot be written.
    """
    capabilities = capabilities or probe()
    choice = choose(settings, capabilities)
    files = find_model(settings.model)
    if files.name == DEMO:
        logger.warning("the demo model only knows coloured shapes; score photos with another model")
    architecture = read_architecture(files.config, files.name)
    preprocessing = read_preprocessing(files.folder, architecture.image_size, files.name)
    tokenizer = load_tokenizer(files.folder, architecture, files.name)
    with open_weights(files.weights, files.name) as weights:
        scale = exp(float(weights.get("logit_scale")))
        dimensions = len(weights.get("visual_projection.weight"))
    cache = cache_folder(settings.cache_dir)
    identity = model_digest(files.identity, preprocessing, cache)
    batch_size = settings.batch_size or _batch_size(choice, capabilities)
    if choice.backend == "onnx":
        limit = capabilities.int8_limit if choice.precision == "int8" else None
        export = Export(files.name, files.weights, identity, architecture, preprocessing, limit)
        backend = _onnx_backend(export, cache, capabilities)
        identity = export.key
    else:
        backend = _torch_backend(files, preprocessing, choice, batch_size, capabilities)
    return ClipModel(
        files,
        choice,
        backend,
        fingerprint=fingerprint(files.name, choice.backend, choice.precision, identity),
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        logit_scale=scale,
        dimensions=dimensions,
        batch_size=batch_size,
    )


def _batch_size(choice: Choice, capabilities: Capabilities) -> int:
    per_cores = min(_MOST_IMAGES, _IMAGES_PER_CORE * capabilities.cores)
    return _BATCH_SIZES.get(choice.device, per_cores)


# The backends are imported where they are used: either takes a second, and memory.
def _onnx_backend(export: Export, cache: Path, capabilities: Capabilities) -> Backend:
    from pairscore.clip.onnx_backend import OnnxBackend

    alone = export.int8_limit is not None
    return OnnxBackend(exported(export, cache), capabilities.cores, alone=alone)


def _torch_backend(
    files: ModelFiles,
    preprocessing: Preprocessing,
    choice: Choice,
    batch_size: int,
    capabilities: Capabilities,
) -> Backend:
    from pairscore.clip.torch_backend import TorchBackend

    return TorchBackend(
        files,
        preprocessing,
        device=choice.device,
        precision=choice.precision,
        batch_size=batch_size,
        threads=capabilities.cores,
    )
