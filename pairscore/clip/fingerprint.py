"""Names what a similarity was computed with: weights, preprocessing, backend and precision."""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pairscore.clip.preprocessing import Preprocessing

# Hashing less than this takes no longer than looking up what it was.
_SMALL = 16_000_000


def digest(parts: Iterable[str]) -> str:
    """Sha256, in hex, of a list of strings."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Sha256, in hex, of a file's contents."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_digest(files: Iterable[Path], preprocessing: Preprocessing, cache: Path) -> str:
    """Sha256, in hex, of what a model is: the contents of its files, and its preprocessing.

    Args:
        files: whose contents count, whatever their folder.
        preprocessing: as read.
        cache: folder where digests of large files are kept.
    """
    contents = [f"{file.name} {file_digest(file, cache)}" for file in files]
    return digest([*contents, repr(preprocessing)])


def file_digest(file: Path, cache: Path) -> str:
    """Sha256, in hex; that of a large file is kept under its path, size and time of change.

    Where the cache cannot be used, it is computed every time.
    """
    real = file.resolve()
    state = real.stat()
    if state.st_size < _SMALL:
        return sha256_of(real)
    key = digest([str(real), str(state.st_size), str(state.st_mtime_ns)])
    kept = cache / "digests" / key
    with suppress(OSError, UnicodeError):
        if len(known := kept.read_text(encoding="utf-8")) == 64:
            return known
    computed = sha256_of(real)
    with suppress(OSError):
        _keep(computed, kept)
    return computed


def _keep(computed: str, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(computed, encoding="utf-8")
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(name: str, backend: str, precision: str, identity: str) -> str:
    """Readable in front, exact behind: `clip-vit-base-patch32:onnx-fp32:3f9ac2510b7c4e08`.

    Args:
        name: of the model; only its last component shows.
        backend: torch or onnx.
        precision: fp32, fp16, bf16 or int8.
        identity: of what is computed, such as `model_digest` gives.
    """
    short = name.rstrip("/").rsplit("/", 1)[-1]
    exact = digest([backend, precision, identity])[:16]
    return f"{short}:{backend}-{precision}:{exact}"
