"""Waiting for what another process is about to do."""

import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.02


def until(
    condition: Callable[[], bool],
    within: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether `condition` comes true before `within` seconds have passed."""
    deadline = clock() + within
    while not condition():
        if clock() >= deadline:
            return False
        pause(_PAUSE_SECONDS)
    return True
