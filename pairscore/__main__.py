"""Entry point of `pairscore` and `python -m pairscore`."""

import sys

from pairscore.cli.app import run


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
