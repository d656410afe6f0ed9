"""What every loop of the producer does each time round: live, and end when it is asked to."""

import time
from collections.abc import Callable

from shared.shutdown import Deadline, StopSignal
from shared.telemetry.health import Health

_SLICE = 1.0


class Pulse:
    """One for the whole process; the loops of the main thread share it."""

    def __init__(
        self, stop: StopSignal, health: Health, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._stop = stop
        self._health = health

    @property
    def stopping(self) -> bool:
        """Whether the process was asked to end."""
        return self._stop.asked

    def deadline(self, seconds: float) -> Deadline:
        """One that ends in so many seconds."""
        return Deadline(seconds, self.clock)

    def beat(self) -> None:
        """Say that the loop goes round."""
        self._health.beat()

    def check(self) -> None:
        """Say so, too.

        Raises:
            KeyboardInterrupt: asked to end.
        """
        self._health.beat()
        if self._stop.asked:
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            KeyboardInterrupt: asked to end, before or meanwhile.
        """
        deadline = self.deadline(seconds)
        while not deadline.passed:
            self._stop.wait(min(deadline.left(), _SLICE))
            self.check()
