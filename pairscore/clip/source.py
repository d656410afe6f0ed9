"""Finds a model's files: a folder, the model that comes with the package, or one of the hub's."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pairscore
from pairscore.clip.weights import weight_files
from pairscore.errors import ModelError

DEMO = "demo"

_CONFIGURATION = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
_SAFETENSORS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)
_PICKLE = ("pytorch_model.bin",)
# What a model needs at least, each line in one of its forms.
_NEEDED = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.json"),
    (*_SAFETENSORS[:2], *_PICKLE),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is on this machine; `config` is its parsed `config.json`."""

    name: str
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def identity(self) -> tuple[Path, ...]:
        """The files whose contents decide what the model computes."""
        tokenizer = [self.folder / file for file in ("tokenizer.json", "vocab.json", "merges.txt")]
        present = [file for file in tokenizer if file.is_file()]
        return (self.folder / "config.json", *present, *self.weights)


def find_model(name: str) -> ModelFiles:
    """Find a model, downloading it if it is the hub's and not here yet.

    Args:
        name: a folder, `demo`, or a hub id such as `openai/clip-vit-base-patch32`. What has been
            downloaded is used as it is, without asking the hub again.

    Raises:
        ModelError: there is no such model, it cannot be had, or its files are broken.
    """
    folder = _folder(name)
    config = _read_config(folder, name)
    return ModelFiles(name, folder, config, weight_files(folder, name))


def find_local(name: str) -> Path | None:
    """The folder of a model that is on this machine; None where it would have to be downloaded.

    Raises:
        ModelError: it can be neither a folder nor a hub id.
    """
    if name == DEMO or not _may_be_hub_id(name):
        return _folder(name)
    kept = _snapshot(name, _SAFETENSORS, local=True)
    return kept if kept is not None and _is_complete(kept) else None


def _may_be_hub_id(name: str) -> bool:
    path = Path(name).expanduser()
    return not (name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists())


def _folder(name: str) -> Path:
    if name == DEMO:
        return Path(pairscore.__file__).parent / "demo" / "model"
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not _may_be_hub_id(name):
        raise ModelError(f"model {name}: there is no such folder")
    return _from_hub(name)


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"model {name}: {folder} has no config.json, so it is not a model"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name}: {file} cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"model {name}: {file} is not a JSON object")
    return config


def _from_hub(name: str) -> Path:
    from huggingface_hub.errors import HFValidationError

    try:
        kept = _snapshot(name, _SAFETENSORS, local=True)
        if kept is not None and _is_complete(kept):
            return kept
        logger.info("downloading model %s", name)
        folder = _snapshot(name, _SAFETENSORS, local=False)
        if folder is not None and not _is_complete(folder):
            # Older models have a pickled checkpoint alone.
            folder = _snapshot(name, _PICKLE, local=False)
    except HFValidationError:
        raise ModelError(f"model {name} is neither a folder nor a hub id (owner/name)") from None
    if folder is None:
        raise ModelError(f"model {name} could not be downloaded; give a folder, or `demo`")
    return folder


def _snapshot(name: str, weights: tuple[str, ...], *, local: bool) -> Path | None:
    """The folder of a hub model's files; None if `local` and they are not all here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with _quiet():
            patterns = [*_CONFIGURATION, *weights]
            folder = snapshot_download(name, allow_patterns=patterns, local_files_only=local)
    except LocalEntryNotFoundError:
        if local:
            return None
        raise ModelError(
            f"model {name} is not on this machine and the hub cannot be reached; "
            "check the network, or give a folder or `demo`"
        ) from None
    except GatedRepoError:
        raise ModelError(
            f"model {name} is gated; accept its terms on the hub and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"model {name} is neither a folder here nor a model of the hub's; "
            "check its spelling, or set HF_TOKEN if it is private"
        ) from None
    except Exception as error:  # the client's own errors have no common ancestor
        if isinstance(error, HFValidationError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {name} could not be downloaded ({reason}); try again") from None
    return Path(folder)


def _is_complete(folder: Path) -> bool:
    return all(any((folder / file).is_file() for file in forms) for forms in _NEEDED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's own bars and warnings off the terminal, which is the command's."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hub = logging.getLogger("huggingface_hub")
    level, bars = hub.level, not are_progress_bars_disabled()
    hub.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        hub.setLevel(level)
        if bars:
            enable_progress_bars()
