"""Standard streams that never end a run: closed, full or broken, what they cannot take is dropped.

A reader who left early (`| head`), a full disk behind `>` or a terminal without the letters of a
path must change neither what is in the output file nor the exit code.
"""

import io
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO


class LenientStream(io.TextIOBase):
    """Writes to `stream` for as long as that works."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property there, too, to the stub
        """That of the stream."""
        return self._stream.encoding if self._stream is not None else "utf-8"

    def write(self, text: str) -> int:
        """Write, or drop."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except OSError:
                self._give_up(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError:
                self._give_up(self._stream)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether people read along."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """That of the stream; an OSError if there is none."""
        return self._stream.fileno() if self._stream is not None else super().fileno()

    def _give_up(self, stream: TextIO) -> None:
        self._stream = None
        # What is left in its buffer would fail again when the interpreter ends, and change the exit
        # code; behind the same descriptor it goes nowhere.
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class LogLines(logging.Handler):
    """Log records as plain lines on what `sys.stderr` is when they come (a bar may stand in)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, with its traceback if it has one."""
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()


def take_over() -> None:
    """Make the process's streams lenient, and lines on stderr of what the package logs."""
    sys.stdout, sys.stderr = LenientStream(sys.stdout), LenientStream(sys.stderr)
    logger = logging.getLogger("pairscore")
    logger.addHandler(LogLines())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def hand_back() -> None:
    """Flush both; what fails is dropped."""
    sys.stdout.flush()
    sys.stderr.flush()
