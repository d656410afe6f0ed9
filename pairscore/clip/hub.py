"""Models of the Hugging Face hub: found in its cache on this machine, or downloaded to it."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pairscore.clip.folders import hub_cache
from pairscore.clip.weights import weight_files
from pairscore.errors import ModelError

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
_PICKLE = "pytorch_model.bin"
# What a model needs at least, each line in one of its forms.
_NEEDED = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.json"),
    (*_SAFETENSORS[:2], _PICKLE),
)
# The hub's client waits for ever for a hub that takes the question and does not answer.
_PATIENCE = 20.0
_UNUSABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}
)

logger = logging.getLogger(__name__)


def hub_folder(name: str) -> Path:
    """Give the folder of a hub model's files; what is here already is used without asking the hub.

    Raises:
        ModelError: the model is not here and cannot be had.
    """
    return kept_folder(name) or _download(name)


def kept_folder(name: str) -> Path | None:
    """Give the folder of a hub model's files if they are all here; no network is used.

    Raises:
        ModelError: `name` is no hub id, or its index of weights is broken.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = [*_CONFIGURATION, *_SAFETENSORS]
    try:
        kept = snapshot_download(
            name, cache_dir=hub_cache(), allow_patterns=patterns, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError:
        raise ModelError(f"model {name} is neither a folder nor a hub id (owner/name)") from None
    folder = Path(kept)
    complete = all(any((folder / file).is_file() for file in forms) for forms in _NEEDED)
    if not complete:
        return None
    # An index alone says nothing of the shards that it names.
    return folder if all(file.is_file() for file in weight_files(folder, name)) else None


def _download(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        with _quiet():
            listed = HfApi().model_info(name, timeout=_PATIENCE).siblings or []
            logger.info("downloading model %s", name)
            # Older models have a pickled checkpoint alone.
            safe = {file.rfilename for file in listed} & set(_SAFETENSORS)
            patterns = [*_CONFIGURATION, *(_SAFETENSORS if safe else (_PICKLE,))]
            return Path(snapshot_download(name, cache_dir=hub_cache(), allow_patterns=patterns))
    except Exception as error:  # noqa: BLE001  # the client's errors have no common ancestor
        raise ModelError(_explain(error, name)) from None


def _explain(error: Exception, name: str) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"model {name} is gated; accept its terms on the hub and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"model {name} is neither a folder here nor a model of the hub's; "
            "check its spelling, or set HF_TOKEN if it is private"
        )
    answered = isinstance(error, HfHubHTTPError)
    # The HTTP client's own errors are the other ancestor of HfHubHTTPError.
    unreached = (HfHubHTTPError.__bases__[0], ConnectionError, FileNotFoundError)
    if not answered and isinstance(error, unreached):
        return (
            f"model {name} is not on this machine and the hub cannot be reached; "
            "check the network, or give a folder or `demo`"
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError) and error.errno in _UNUSABLE:
        return (
            f"model {name}: the hub's cache cannot be used ({reason}); "
            "set HF_HOME to a folder with space"
        )
    return f"model {name} could not be downloaded ({reason}); try again"


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
