"""Remembers what URLs led to, and the embeddings of images and captions: here and with others."""

from pairscore.cache.bounded import BoundedCache
from pairscore.cache.cache import Cache
from pairscore.cache.entries import CaptionEntry, Embedding, NegativeEntry, UrlEntry
from pairscore.cache.lifetimes import Lifetimes

__all__ = [
    "BoundedCache",
    "Cache",
    "CaptionEntry",
    "Embedding",
    "Lifetimes",
    "NegativeEntry",
    "UrlEntry",
]
