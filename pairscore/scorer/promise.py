"""An outcome to come, as light as a window of many thousands needs it."""

import threading

from pairscore.pair import Outcome


class Promise:
    """What a `Future` is to one that waits for it, and nothing more.

    A future is a dozen objects, which the garbage collector goes through again and again while they
    wait; this is one.
    """

    __slots__ = ("_error", "_news", "_outcome")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._news: threading.Event | None = None

    def set_result(self, outcome: Outcome) -> None:
        """Say what came of it."""
        self._outcome = outcome
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        """Let `result` raise `error`."""
        self._error = error
        self._tell()

    def done(self) -> bool:
        """Whether `result` does not wait."""
        return self._outcome is not None or self._error is not None

    def result(self) -> Outcome:
        """The outcome, waited for as long as it takes; for one thread."""
        if not self.done():
            # In this order: what is set after the look is told.
            self._news = threading.Event()
            if not self.done():
                self._news.wait()
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise RuntimeError("told of nothing")
        return self._outcome

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
