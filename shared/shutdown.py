"""How a service is asked to end, and how long it may take over it."""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

EXIT_LATE: Final = 3

_log = logging.getLogger(__name__)
_FOREVER_SECONDS: Final = 3600.0


class Deadline:
    """A moment that many waits share: each waits for what is `left()`, none for longer.

    `seconds` from now, by `clock` (seconds that only rise).
    """

    __slots__ = ("_clock", "_end")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds until it passes, never less than 0."""
        return max(0.0, self._end - self._clock())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self._clock() >= self._end


def try_to_close(close: Callable[[], object], name: str, seconds: float) -> None:
    """Close something, or let it be after so long: the process is to end without it then.

    What `close` raises in time is raised here.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            close()
        # Not swallowed: it is raised where the closing was asked for.
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    closing = threading.Thread(target=run, name=f"close {name}", daemon=True)
    closing.start()
    closing.join(seconds)
    if raised:
        raise raised[0]


class StopSignal:
    """Whether the service was asked to end; asked once, it stays asked.

    SIGTERM and SIGINT ask when it is installed. A second one ends the process at once, with the
    exit code 128 + its number, since who asks twice does not want to wait.
    """

    def __init__(self) -> None:
        self._asked = False
        self._number: int | None = None
        self._at_stake = True
        # Not an Event: a handler that sets one while the same thread enters `wait` blocks for
        # ever. Nor a SimpleQueue, whose time-outs cannot be relied on.
        self._woken, self._asking = os.pipe()
        os.set_blocking(self._asking, False)
        self._installed = False

    def __del__(self) -> None:
        """Give back what it waits with, unless signals may still come."""
        if not self._installed:
            for end in (self._woken, self._asking):
                os.close(end)

    def install(self, grace: float | None = None) -> None:
        """Take SIGTERM and SIGINT; only the main thread can.

        A process that has not ended `grace` seconds after it was asked to is ended with
        `EXIT_LATE`, whatever it hangs in: for one whose work is safe at any moment.
        """
        self._installed = True
        # Handlers run between two steps of the main thread, which may never come: it may hang in a
        # call of librdkafka's. This is written at once.
        signal.set_wakeup_fd(self._asking, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        if grace is not None:
            threading.Thread(
                target=self._enforce, args=(grace,), name="shutdown", daemon=True
            ).start()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While entered nothing is at stake: asked to, the process ends at once, with 0.

        That is, where `install` was given a `grace`.
        """
        self._at_stake = False
        try:
            yield
        finally:
            self._at_stake = True

    @property
    def asked(self) -> bool:
        """Whether it was."""
        return self._asked

    @property
    def number(self) -> int | None:
        """The signal that asked; None if none did."""
        return self._number

    def ask(self) -> None:
        """Ask, as a signal would, from any thread."""
        self._asked = True
        with suppress(BlockingIOError):  # asked so often that it is full
            os.write(self._asking, b"\0")

    def wait(self, seconds: float) -> bool:
        """Wait until asked, at most `seconds`; whether it was. Any number of threads may wait."""
        if not self._asked:
            # What is sent is left there, for all who wait.
            poll = select.poll()
            poll.register(self._woken, select.POLLIN)
            if poll.poll(max(0.0, seconds) * 1000):
                self._asked = True
        return self._asked

    def _enforce(self, grace: float) -> None:
        while not self.wait(_FOREVER_SECONDS):
            pass
        if not self._at_stake:
            _log.info("asked to end before it had begun")
            os._exit(0)
        time.sleep(grace)
        _log.critical(
            "not ended %.0f s after being asked to, as if Kafka or the store were away; what is "
            "not committed is left to others, or to the next start",
            grace,
        )
        os._exit(EXIT_LATE)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._number is not None:
            os._exit(128 + number)
        self._number = number
        self.ask()
