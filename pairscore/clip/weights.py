"""Reads a model's weights one tensor at a time, as fp32, without loading the model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pairscore.errors import ModelError

if TYPE_CHECKING:
    import torch

_SAFETENSORS = "model.safetensors"
_SAFETENSORS_INDEX = "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"


class Weights(Protocol):
    """Tensors by their name in the checkpoint."""

    def get(self, name: str) -> NDArray[np.float32]:
        """Give a tensor as a new fp32 array; ModelError if the checkpoint lacks it."""
        ...


def weight_files(folder: Path, name: str) -> tuple[Path, ...]:
    """Name the files that hold the weights, safetensors before a pickled checkpoint.

    Raises:
        ModelError: there are none, or their index cannot be read.
    """
    if (folder / _SAFETENSORS).is_file():
        return (folder / _SAFETENSORS,)
    if (folder / _SAFETENSORS_INDEX).is_file():
        return tuple(folder / shard for shard in _shards(folder / _SAFETENSORS_INDEX, name))
    if (folder / _PICKLE).is_file():
        return (folder / _PICKLE,)
    raise ModelError(
        f"model {name} has no weights: neither {_SAFETENSORS} nor {_PICKLE} in {folder}"
    )


@contextmanager
def open_weights(files: tuple[Path, ...], name: str) -> Iterator[Weights]:
    """Open what `weight_files` named.

    A pickled checkpoint is read by torch with `weights_only=True`, which runs no code of its.

    Raises:
        ModelError: a file cannot be read as what it should be.
    """
    import ml_dtypes  # noqa: F401  # lets numpy hold bfloat16
    from safetensors import SafetensorError, safe_open

    if files[0].name == _PICKLE:
        yield _Pickled(_load_pickle(files[0], name), name)
        return
    try:
        handles = [safe_open(file, framework="numpy") for file in files]
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"model {name}: its weights cannot be read ({error}); download them again"
        ) from None
    yield _Safetensors(handles, name)


def _shards(index: Path, name: str) -> list[str]:
    try:
        shards = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        shards = []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise ModelError(f"model {name}: {index} does not name its weights; download it again")
    return sorted(set(shards))


class _Safetensors:
    def __init__(self, handles: list[Any], name: str) -> None:
        self._where = {key: handle for handle in handles for key in handle.keys()}  # noqa: SIM118
        self._name = name

    def get(self, name: str) -> NDArray[np.float32]:
        if name not in self._where:
            raise _missing(self._name, name)
        return np.asarray(self._where[name].get_tensor(name), dtype=np.float32)


class _Pickled:
    def __init__(self, tensors: dict[str, "torch.Tensor"], name: str) -> None:
        self._tensors = tensors
        self._name = name

    def get(self, name: str) -> NDArray[np.float32]:
        if name not in self._tensors:
            raise _missing(self._name, name)
        return self._tensors[name].float().numpy()


def _load_pickle(file: Path, name: str) -> dict[str, "torch.Tensor"]:
    import pickle

    import torch

    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"model {name}: {file.name} cannot be read ({reason})") from None
    return dict(loaded)


def _missing(model: str, tensor: str) -> ModelError:
    return ModelError(f"model {model}: its weights lack {tensor}; it is not a complete CLIP")
