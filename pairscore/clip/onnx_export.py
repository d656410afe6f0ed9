"""Exports a model to ONNX files in the cache folder, once, and finds them again."""

import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pairscore.clip.architecture import Architecture
from pairscore.clip.fingerprint import digest, sha256_of
from pairscore.clip.preprocessing import Preprocessing
from pairscore.clip.weights import open_weights
from pairscore.errors import EnvironmentFault, ModelError

# Part of an export's identity: a change of what the graphs compute needs a new one.
_GRAPH_VERSION = 1
_MANIFEST = "manifest.json"
_LOCK_TIMEOUT = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported; `int8_limit` is the greatest quantised weight, None for fp32."""

    name: str
    weights: tuple[Path, ...]
    identity: str
    architecture: Architecture
    preprocessing: Preprocessing
    int8_limit: int | None

    @property
    def key(self) -> str:
        """Name of the export's folder: equal for equal graphs."""
        return digest([self.identity, str(_GRAPH_VERSION), str(self.int8_limit)])[:32]


def exported(export: Export, cache: Path) -> Path:
    """Give the folder with `vision.onnx` and `text.onnx`, exporting if they are not there whole.

    Only one process exports at a time; the others wait for it. An export that was interrupted or
    damaged is made again.

    Raises:
        ModelError: the model cannot be exported.
        EnvironmentFault: the cache folder cannot be written, or its lock is held for 10 minutes.
    """
    folder = cache / "onnx" / export.key
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_LOCK_TIMEOUT):
            if not _is_whole(folder):
                _export(export, folder)
    except Timeout:
        raise EnvironmentFault(f"another process has held {folder}.lock for 10 minutes") from None
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write the exported model to {cache} ({error.strerror or error}); "
            "set PAIRSCORE_CACHE_DIR to a folder with space"
        ) from None
    return folder


def _export(export: Export, folder: Path) -> None:
    # A process that finds the export there has no need of onnx.
    from pairscore.clip.onnx_graph import ACTIVATIONS, write_text, write_vision
    from pairscore.clip.onnx_nodes import Int8Linear

    architecture = export.architecture
    for tower in (architecture.vision, architecture.text):
        if tower.activation not in ACTIVATIONS:
            raise ModelError(
                f"model {export.name}: backend onnx lacks its activation {tower.activation}; "
                "use backend torch"
            )
    logger.info("exporting %s to %s", export.name, folder)
    quantised = None if export.int8_limit is None else Int8Linear(export.int8_limit)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
        # A folder of its own, as the temporary one is readable by its owner alone.
        work = Path(temporary) / "export"
        work.mkdir()
        with open_weights(export.weights, export.name) as weights:
            write_vision(work, weights, architecture, export.preprocessing, quantised)
            write_text(work, weights, architecture, quantised)
        files = {file.name: _state(file) for file in sorted(work.iterdir())}
        manifest = json.dumps({"model": export.name, "files": files}, indent=2)
        (work / _MANIFEST).write_text(manifest, encoding="utf-8")
        for file in work.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(_is_as_written(folder / name, state) for name, state in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _state(file: Path) -> dict[str, int | str]:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_of(file)}


def _is_as_written(file: Path, state: dict[str, int | str]) -> bool:
    stat = file.stat()
    if stat.st_size != state["size"]:
        return False
    return stat.st_mtime_ns == state["mtime_ns"] or sha256_of(file) == state["sha256"]
