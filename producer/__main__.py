"""Entry point of `python -m producer`."""

import signal
import sys

from shared.service import EXIT_INTERRUPTED, end_process, run_service


def main() -> None:
    """Run the command and end the process with its exit code.

    Takes over the process: its standard streams, its logging and its signals.
    """
    end_process(run_service("producer", _run))


def _run() -> int:
    # Until rows are being published there is nothing to end in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Imported here, as an interrupt may come while this takes its time.
    from pairscore.cli.streams import LenientStream
    from producer.cli import run

    sys.stdout, sys.stderr = LenientStream(sys.stdout), LenientStream(sys.stderr)
    code = run(sys.argv[1:])
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return code


if __name__ == "__main__":
    main()
