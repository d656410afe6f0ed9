"""Entry point of `python -m producer`."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from shared.service import EXIT_INTERRUPTED, end_process, run_service


def main() -> None:
    """Run the command and end the process with its exit code.

    Takes over the process: its standard streams, its logging and its signals.
    """
    end_process(run_service("producer", _run))


def _run() -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    # Imported here, as an interrupt may come while this takes its time.
    from pairscore.cli.streams import LenientStream
    from producer.cli import run

    sys.stdout, sys.stderr = LenientStream(sys.stdout), LenientStream(sys.stderr)
    code = run(sys.argv[1:])
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: until rows are being published there is nothing to end in order.

    A KeyboardInterrupt may be lost, as where it comes while an object is being destroyed.
    """
    with suppress(OSError):  # nobody reads on
        os.write(2, b"producer: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
