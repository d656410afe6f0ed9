"""Finds a model's files: a folder, the model that comes with the package, or one of the hub's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pairscore
from pairscore.clip.hub import hub_folder, kept_folder
from pairscore.clip.weights import weight_files
from pairscore.errors import ModelError

DEMO = "demo"


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
    return kept_folder(name)


def _may_be_hub_id(name: str) -> bool:
    path = _path(name)
    return not (name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists())


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ModelError(f"model {name}: there is no such folder, as ~ is not known") from None


def _folder(name: str) -> Path:
    if name == DEMO:
        return Path(pairscore.__file__).parent / "demo" / "model"
    path = _path(name)
    if path.is_dir():
        return path
    if not _may_be_hub_id(name):
        raise ModelError(f"model {name}: there is no such folder")
    return hub_folder(name)


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
