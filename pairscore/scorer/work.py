"""What is in flight: rows that wait for URLs, and URLs that wait for contents."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pairscore.cache import CaptionEntry, Embedding, UrlEntry
from pairscore.fetch import Url
from pairscore.pair import Outcome
from pairscore.scorer.promise import Promise

Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Row:
    """A pair that was submitted, the future of its outcome, and what is known of it by now.

    With `image`, its image's embedding (float32 [d], of length 1), it can be scored; then `sha256`
    and `attempts` are those to say in its outcome. One that is `urgent` goes first in every stage.
    """

    url: Url
    caption: str
    future: Future[Outcome] | Promise
    urgent: bool = False
    text: CaptionEntry | None = None
    image: Embedding | None = None
    sha256: str = ""
    attempts: int = 0

    def led_to(self, sha256: str, image: Embedding, attempts: int = 0) -> None:
        """Say what its image is."""
        self.sha256 = sha256
        self.image = image
        self.attempts = attempts


@dataclass(slots=True, eq=False)
class UrlWork:
    """A URL in flight and the rows that want its image; `attempts` is known once it was fetched.

    `earlier` is what it once led to, with the embedding of that: to be validated. It is `urgent` if
    one of its rows is.
    """

    url: Url
    rows: list[Row] = field(default_factory=list)
    attempts: int = 0
    earlier: tuple[UrlEntry, Embedding] | None = None
    urgent: bool = False

    @classmethod
    def of(cls, row: Row) -> Self:
        """That of the first row that wants it."""
        return cls(row.url, [row], urgent=row.urgent)

    def join(self, row: Row) -> None:
        """Let a row wait for it too."""
        self.rows.append(row)
        self.urgent = self.urgent or row.urgent


@dataclass(slots=True, eq=False)
class ContentWork:
    """An image in flight, by the hash of its bytes, and the URLs that led to it.

    `pixels` (uint8 [3, height, width]) are there when it has been decoded, `embedding` (float32
    [d], of length 1) when it has been encoded; `slots` is where the slot of its pixels is from.
    """

    sha256: str
    urls: list[UrlWork] = field(default_factory=list)
    pixels: Pixels | None = None
    embedding: Embedding | None = None
    slots: Semaphore | None = None

    @property
    def urgent(self) -> bool:
        """Whether one of its URLs is, by now."""
        return any(url.urgent for url in self.urls)
