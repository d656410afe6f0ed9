"""Entry point of `pairscore` and `python -m pairscore`."""

import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    try:
        # Imported here, as an interrupt may come while this takes its time.
        from pairscore.cli.process import run

        code = run()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
