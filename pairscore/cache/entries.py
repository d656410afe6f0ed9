"""What is kept: what a URL led to, the embedding of an image, the embedding of a caption."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pairscore.pair import Failure

Embedding: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class UrlEntry:
    """The image that a URL led to, by the hex sha256 of its bytes, believed until `fresh_until`.

    Then it is asked whether that has changed, by `etag` or `last_modified`, where the server gave
    one for `target`, the URL that the redirects ended at. Times are seconds since the epoch.
    """

    sha256: str
    fresh_until: float
    target: str = ""
    etag: str | None = None
    last_modified: str | None = None

    @property
    def can_be_validated(self) -> bool:
        """Whether the server gave something to ask by."""
        return self.etag is not None or self.last_modified is not None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 64 + len(self.target) + len(self.etag or "") + len(self.last_modified or "")


@dataclass(frozen=True, slots=True)
class NegativeEntry:
    """The failure that a URL led to, for as long as it is believed."""

    failure: Failure
    fresh_until: float

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.failure.detail)


@dataclass(frozen=True, slots=True, eq=False)
class CaptionEntry:
    """The embedding (float32 [d], of length 1) of a caption, and whether that was truncated."""

    embedding: Embedding
    truncated: bool
