"""What a sink may be refused by its surroundings, tried again without flooding the log."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from pairscore.errors import EnvironmentFault

RETRY_SECONDS: Final = 3.0
_REPEAT_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class StoreFault(EnvironmentFault):
    """The store refuses to be written now, which may pass; what was to be stored is not lost."""


class Persistent:
    """Does something that may raise `StoreFault` again until it works, 3 s after each failure.

    The first failure is logged, then each that says something else, then one in 30 s, and that it
    is over.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._retry_at = float("-inf")
        self._logged_at = float("-inf")
        self.why = ""

    @property
    def due(self) -> bool:
        """Whether it is time to try (again)."""
        return self._clock() >= self._retry_at

    @property
    def wait(self) -> float:
        """Seconds until it is."""
        return max(0.0, self._retry_at - self._clock())

    def attempt(self, action: Callable[[], Result]) -> Result | None:
        """Try; None if it failed, which `why` says then. Empty `why` means that all is well."""
        try:
            result = action()
        except StoreFault as fault:
            self.failed(str(fault))
            return None
        self.succeeded()
        return result

    def succeeded(self) -> None:
        """Take note that it worked."""
        if self._since is not None:
            _log.info("going on after %.0f s; nothing was lost", self._clock() - self._since)
        self._since, self._retry_at, self.why = None, float("-inf"), ""

    def failed(self, why: str) -> None:
        """Take note that it did not."""
        now = self._clock()
        if self._since is None:
            self._since = now
        if why != self.why or now - self._logged_at >= _REPEAT_SECONDS:
            _log.error("%s; trying again every %.0f s, nothing is lost", why, RETRY_SECONDS)
            self._logged_at = now
        self.why = why
        self._retry_at = now + RETRY_SECONDS
