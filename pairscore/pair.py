"""The domain types: a pair goes in, an outcome (a score or a failure) comes out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias


class Reason(StrEnum):
    """Why a pair has no score: a closed list, the same in CSV files, messages and metrics."""

    MALFORMED_ROW = "malformed_row"
    INVALID_URL = "invalid_url"
    BLOCKED_ADDRESS = "blocked_address"
    DISALLOWED = "disallowed"
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
    CANCELLED = "cancelled"
    INTERNAL = "internal"


# What each reason means, and whether it is tried again; the reference is written from this.
REASONS: Final = {
    Reason.MALFORMED_ROW: ("more or fewer cells than the header, or an empty line", "no"),
    Reason.INVALID_URL: (
        "empty, not http(s), no host, over 8,192 characters or unparsable; or redirected to such",
        "no",
    ),
    Reason.BLOCKED_ADDRESS: ("leads to an address that is neither public nor allowed", "no"),
    Reason.DISALLOWED: (
        (
            "the site's robots.txt or X-Robots-Tag does not want it, and "
            "PAIRSCORE_FETCH__ROBOTS=respect"
        ),
        "if robots.txt could not be had",
    ),
    Reason.DNS_ERROR: ("the name does not resolve", "if the resolver could not say"),
    Reason.CONNECT_ERROR: ("no connection, or one that broke before the body was whole", "yes"),
    Reason.TLS_ERROR: ("certificate or handshake refused", "no"),
    Reason.TIMEOUT: ("the deadline passed, or no data came for too long", "yes"),
    Reason.TOO_MANY_REDIRECTS: ("more than 5", "no"),
    Reason.HTTP_ERROR: ("a status other than 2xx, which is the detail", "408, 425, 429 and 5xx"),
    Reason.TOO_LARGE: ("a body over the cap (20 MB), declared or not", "no"),
    Reason.NOT_AN_IMAGE: ("no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF", "no"),
    Reason.CORRUPT_IMAGE: ("truncated, or not decodable", "no"),
    Reason.TOO_MANY_PIXELS: ("over the cap (64 megapixels), found before decoding", "no"),
    Reason.EMPTY_CAPTION: ("nothing left after trimming", "no"),
    Reason.CANCELLED: ("its job was cancelled before it was scored (fleet only)", "no"),
    Reason.INTERNAL: (
        "a defect in pairscore, logged with its traceback; or too few descriptors",
        "yes",
    ),
}


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

    `retry_after` is how many seconds the server asked to be left alone, where it did. `deferred`
    says that nobody was asked, because its host's turn did not come in time.
    """

    reason: Reason
    detail: str = ""
    attempts: int = 0
    image_sha256: str | None = None
    retryable: bool = False
    retry_after: float | None = None
    deferred: bool = False

    @property
    def error(self) -> str:
        """The `error` cell: the reason, with the detail after a colon where there is one."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


Outcome: TypeAlias = Score | Failure
