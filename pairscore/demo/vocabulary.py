"""A tokenizer for the demo model: CLIP's format and rules, with merges learnt from our captions."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

CONTEXT_LENGTH = 77
"""Tokens a caption may have, the start and end tokens among them: CLIP's own."""

_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Build a tokenizer that makes one token of every word in `captions`, and bytes of any other.

    Token ids are laid out as in OpenAI's vocabulary: bytes, bytes that end a word, merges, start,
    end; the end token has the highest id and also pads. The same captions give the same tokenizer.
    """
    words = Counter(word for text in captions for word in _letters(text))
    merges = _learn_merges(words)
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + _WORD_END for letter in letters)]
    tokens += [left + right for left, right in merges]
    tokens += [_START, _END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,  # type: ignore[arg-type] # tuples are what it hands on
        model_max_length=CONTEXT_LENGTH,
    )


def _letters(text: str) -> list[tuple[str, ...]]:
    """Split ASCII text into words, each a tuple of letters whose last carries the word end."""
    words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
    return [(*word[:-1], word[-1] + _WORD_END) for word in words]


def _learn_merges(words: Counter[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) until every word is one token."""
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    for letter in word:
        if parts and (parts[-1], letter) == pair:
            parts[-1] += letter
        else:
            parts.append(letter)
    return tuple(parts)
