"""Captions to token ids with the model's own tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pairscore.clip.architecture import Architecture
from pairscore.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The rule of CLIP's first configurations, see Architecture.
_HIGHEST_ID_ENDS = 2


@dataclass(frozen=True, slots=True)
class Caption:
    """Token ids with both special tokens; `length` is up to and with the one that is pooled.

    `truncated`: the caption had more tokens than the model takes, and those before the end token
    that were too many are left out.
    """

    ids: tuple[int, ...]
    length: int
    truncated: bool


def padded(captions: Sequence[Caption]) -> NDArray[np.int64]:
    """Ids [n, tokens] of n captions, as long as the longest; zeros after each one's length.

    Attention is causal, so that what comes after the token that is pooled has no effect on it.
    """
    ids = np.zeros((len(captions), max(caption.length for caption in captions)), dtype=np.int64)
    for row, caption in zip(ids, captions, strict=True):
        row[: caption.length] = caption.ids[: caption.length]
    return ids


class CaptionTokenizer:
    """May be called from any thread."""

    def __init__(self, tokenizer: "Tokenizer", architecture: Architecture) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = architecture.max_tokens
        self._eos = architecture.eos_token_id

    def __call__(self, captions: Sequence[str]) -> list[Caption]:
        """Tokenise; one caption out for each in, in order."""
        # A lone surrogate, which JSON can smuggle into a string, is not text to the tokenizer.
        texts = [caption.encode("utf-8", "replace").decode() for caption in captions]
        return [self._caption(e.ids) for e in self._tokenizer.encode_batch_fast(texts)]

    def _caption(self, ids: list[int]) -> Caption:
        truncated = len(ids) > self._max_tokens
        if truncated:
            ids = [*ids[: self._max_tokens - 1], ids[-1]]
        return Caption(tuple(ids), self._pooled(ids) + 1, truncated)

    def _pooled(self, ids: list[int]) -> int:
        if self._eos == _HIGHEST_ID_ENDS:
            return ids.index(max(ids))
        return ids.index(self._eos)


def load_tokenizer(folder: Path, architecture: Architecture, name: str) -> CaptionTokenizer:
    """Load `tokenizer.json`, or have transformers make the tokenizer from older files.

    Raises:
        ModelError: there is no tokenizer, or it is not one of this model's.
    """
    tokenizer = _read(folder, name)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > architecture.vocabulary:
        raise ModelError(
            f"model {name}: its tokenizer has {tokenizer.get_vocab_size()} tokens, the model only "
            f"{architecture.vocabulary}"
        )
    ids = tokenizer.encode("a").ids
    last = max(ids) if architecture.eos_token_id == _HIGHEST_ID_ENDS else architecture.eos_token_id
    if len(ids) < 2 or ids[-1] != last:
        raise ModelError(
            f"model {name}: its tokenizer does not end captions as its config.json says"
        )
    return CaptionTokenizer(tokenizer, architecture)


def _read(folder: Path, name: str) -> "Tokenizer":
    file = folder / "tokenizer.json"
    if not file.is_file():
        return _convert(folder, name)
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001  # the binding raises bare Exception
        raise ModelError(f"model {name}: {file} cannot be read ({error})") from None


def _convert(folder: Path, name: str) -> "Tokenizer":
    if not (folder / "vocab.json").is_file():
        raise ModelError(f"model {name} has no tokenizer: no tokenizer.json in {folder}")
    from transformers import CLIPTokenizer

    try:
        made = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer: Tokenizer = made.backend_tokenizer
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"model {name}: its tokenizer cannot be read ({reason})") from None
    return tokenizer
