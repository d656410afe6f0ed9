"""How long what a URL led to is believed, in seconds. Pure."""

from dataclasses import dataclass
from typing import Final

from pairscore.pair import Failure, Reason

_GONE: Final = frozenset({"404", "410"})


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The bounds, in seconds.

    `least` and `most` bound what a server says of an image; `absent` is for what is not there or no
    image, `unknown_host` for a name that does not exist.
    """

    least: float
    most: float
    absent: float
    unknown_host: float

    def of_image(self, said: float | None) -> float:
        """What is believed where a server has `said` so many seconds, or nothing."""
        return self.least if said is None else min(max(said, self.least), self.most)

    def longest(self, *, is_image: bool) -> float:
        """The longest that an image, or that there is none, is believed."""
        return self.most if is_image else max(self.least, self.absent, self.unknown_host)

    def of_failure(self, failure: Failure) -> float | None:
        """None for what may come out differently the next time, or with other settings."""
        if failure.retryable:
            return None
        if failure.reason is Reason.DNS_ERROR:
            return self.unknown_host
        gone = failure.reason is Reason.HTTP_ERROR and failure.detail in _GONE
        return self.absent if gone or failure.reason is Reason.NOT_AN_IMAGE else None
