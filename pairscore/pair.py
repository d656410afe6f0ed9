"""The domain types: a pair goes in, an outcome (a score or a failure) comes out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Reason(StrEnum):
    """Why a pair has no score: a closed list, the same in CSV files, messages and metrics."""

    MALFORMED_ROW = "malformed_row"
    INVALID_URL = "invalid_url"
    BLOCKED_ADDRESS = "blocked_address"
    DNS_ERROR = "dns_error"
    CONNECT_ERROR = "connect_error"
    TLS_ERROR = "tls_error"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_ERROR = "http_error"
    TOO_LARGE = "too_large"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT_IMAGE = "corrupt_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    EMPTY_CAPTION = "empty_caption"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Pair:
    """An image URL and a caption, as the user gave them; nothing about them has been checked."""

    url: str
    caption: str


@dataclass(frozen=True, slots=True)
class Score:
    """An outcome with a similarity.

    `similarity` is CLIP's `logits_per_image`, exp(logit_scale) * cosine, where `cosine` in [-1, 1]
    is that of the image's and the caption's embeddings (Radford et al. 2021, arXiv:2103.00020).
    `image_sha256` is the hex digest of the bytes that were decoded; `attempts` is how often the URL
    was asked for them, 0 where they were known already.
    """

    similarity: float
    cosine: float
    caption_truncated: bool
    image_sha256: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An outcome with a reason; `detail` is one short line for people, and may be empty.

    `retry_after` is how many seconds the server asked to be left alone, where it did.
    """

    reason: Reason
    detail: str = ""
    attempts: int = 0
    caption_truncated: bool = False
    image_sha256: str | None = None
    retryable: bool = False
    retry_after: float | None = None

    @property
    def error(self) -> str:
        """The `error` cell: the reason, with the detail after a colon where there is one."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


Outcome: TypeAlias = Score | Failure
