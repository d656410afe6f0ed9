"""What fetching has to say of hosts. One thread counts, any may read."""

from collections import Counter
from enum import StrEnum


class Hold(StrEnum):
    """Why a host is not asked: often enough it is already, or it wants that, or does not answer."""

    SLOW = "slow"
    CLOSED = "closed"
    UNREACHABLE = "unreachable"


class FetchStats:
    """How requests waited for their hosts, and how many were let go without being asked.

    `waits` and `wait_seconds` are of requests that began, without the waiting for room. `closings`
    are answers that asked to be left alone for a while. `held` is how many requests wait for
    nothing but their hosts, as of late, where there is a limit to that.
    """

    def __init__(self) -> None:
        self.waits = 0
        self.wait_seconds = 0.0
        self.closings = 0
        self.held = 0
        self.let_go: Counter[Hold] = Counter()

    @property
    def mean_wait(self) -> float:
        """How long a request that began has waited, in seconds, on average."""
        return self.wait_seconds / self.waits if self.waits else 0.0

    def figures(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "requests": self.waits,
            "mean_wait_seconds": round(self.mean_wait, 3),
            "closings": self.closings,
            "let_go": {hold.value: self.let_go[hold] for hold in Hold},
        }
