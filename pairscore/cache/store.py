"""A store of entries that others share: what is asked of it in one go, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeGuard

from pairscore.cache.codec import IMAGE_OF_URL

Item: TypeAlias = tuple[bytes, bytes | None, int]
"""A key, a value, and for how many seconds it is kept; without a value, the key is to go."""


@dataclass(frozen=True, slots=True)
class Question:
    """Keys to look up: of URLs, whose images are looked up with them, and of captions."""

    urls: Sequence[bytes]
    captions: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """The values, in the order of the keys; None where there is none.

    With that of a URL comes that of the image that it names.
    """

    urls: Sequence[tuple[bytes | None, bytes | None]]
    captions: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Contents:
    """How many entries of each kind (`url`, `image`, `caption`) a store has, and its bytes.

    `details` are further findings, by what they are about, for people.
    """

    entries: Mapping[str, int]
    bytes: int
    details: Mapping[str, str]


class Keeper(Protocol):
    """What can be said of a store as a whole, and done to it. All raise `guard.Unavailable`."""

    def contents(self) -> Contents:
        """Count what is there; entries of others than pairscore do not count."""
        ...

    def clear(self) -> int:
        """Forget every entry, and say how many there were; what is not pairscore's stays."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class Store(Keeper, Protocol):
    """Keeps values under keys for a while; belongs to one thread.

    Every call is about all of its keys at once, and raises `guard.Unavailable`.
    """

    def look_up(self, question: Question) -> Answer:
        """Read."""
        ...

    def claim(self, images: Sequence[tuple[bytes, bytes]], seconds: float) -> list[bytes | bool]:
        """Say that images are about to be embedded, unless that is done or another has said so.

        Args:
            images: the key of each, and that of the claim.
            seconds: how long the claim holds.

        Returns:
            For each the value, or whether it is the caller's to embed.
        """
        ...

    def put(self, items: Sequence[Item]) -> None:
        """Keep values, or forget keys."""
        ...

    def ping(self) -> None:
        """Do nothing, with an answer."""
        ...


def names_image(value: bytes | None) -> TypeGuard[bytes]:
    """Whether a value of a URL's key says that it led to an image."""
    return value is not None and value[1:2] == IMAGE_OF_URL
