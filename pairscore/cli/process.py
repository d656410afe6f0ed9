"""The command as a process: what it takes over, and what ends it with which exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import typer

from pairscore.cli.app import app
from pairscore.cli.streams import hand_back, take_over
from pairscore.errors import EnvironmentFault, PairscoreError, what_is_missing

EXIT_DEFECT: Final = 1
EXIT_INTERRUPTED: Final = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (those of the process by default) and give its exit code.

    Takes over the process: its standard streams, its logging and its signals.
    """
    take_over()
    # A supervisor's SIGTERM ends a run as Ctrl-C does: with what is done kept for --resume.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = _run(arguments)
        if code == EXIT_INTERRUPTED:
            _complain("interrupted")
    finally:
        hand_back()
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Typer turns a KeyboardInterrupt into the exit code 130.
        result = typer.main.get_command(app).main(
            args=list(arguments) if arguments is not None else None,
            prog_name="pairscore",
            standalone_mode=False,
        )
    except typer.TyperException as error:
        line = error.format_message().replace("Value error, ", "")
        _complain(f"{line} (see pairscore --help)")
        return error.exit_code
    except PairscoreError as error:
        _complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = what_is_missing(error)
        if missing is None:
            return _defect()
        _complain(missing)
        return EnvironmentFault.exit_code
    # The one place where a defect of the main thread is turned into the end of the process.
    except Exception:  # noqa: BLE001
        return _defect()
    return result if isinstance(result, int) else 0


def _defect() -> int:
    traceback.print_exc()
    _complain("this is a defect in pairscore; please report it")
    return EXIT_DEFECT


def _complain(line: str) -> None:
    sys.stderr.write(f"pairscore: {line}\n")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Who asks twice does not want to wait for what ends in order; the rows written are safe anyway.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    raise KeyboardInterrupt


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(EXIT_INTERRUPTED)
