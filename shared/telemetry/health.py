"""Whether a service's loop is alive, and whether the service can do its work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

STALL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Readiness:
    ok: bool
    why: str


class Health:
    """Told by the loop that owns it, asked by other threads.

    Until the first beat it counts as alive, since a model may take minutes to load; it is not ready
    until it is said to be. `stall_seconds` without a beat are too many.
    """

    def __init__(
        self,
        stall_seconds: float = STALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_seconds = stall_seconds
        self.clock = clock
        self._last_beat: float | None = None
        self._readiness = _Readiness(False, "starting")

    def beat(self) -> None:
        """Say that the loop goes round."""
        self._last_beat = self.clock()

    @property
    def last_beat(self) -> float | None:
        """When it last did, by `clock`; None before the first time."""
        return self._last_beat

    def silence(self, now: float | None = None) -> float:
        """Seconds since the last beat; 0 before the first."""
        last = self._last_beat
        return 0.0 if last is None else max(0.0, (self.clock() if now is None else now) - last)

    def alive(self, now: float | None = None) -> bool:
        """Whether the last beat is young enough."""
        return self.silence(now) < self.stall_seconds

    def ready(self, ok: bool, why: str = "") -> None:
        """Say whether work can be done, and in a few words why not."""
        self._readiness = _Readiness(ok, why)

    @property
    def is_ready(self) -> bool:
        """Whether work can be done."""
        return self._readiness.ok

    @property
    def why(self) -> str:
        """Why not; empty where it can."""
        readiness = self._readiness
        return "" if readiness.ok else readiness.why or "not ready"
