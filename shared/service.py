"""A service as a process: what ends it with which exit code."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from pairscore.errors import PairscoreError

EXIT_DEFECT: Final = 1
EXIT_INTERRUPTED: Final = 130

_log = logging.getLogger(__name__)


def run_service(name: str, main: Callable[[], int]) -> int:
    """Run `main` and give the process's exit code: what it returns, or why it did not.

    | ended by | exit code | on stderr |
    |---|---|---|
    | `PairscoreError` | its own: 2 or 3 | one line, `name: what is wrong` |
    | `KeyboardInterrupt` | 130 | `name: interrupted` |
    | any other exception | 1 | its traceback, as a line of the log |

    Until `main` configures logging, nothing is logged but the last of these: what goes wrong at the
    start is said in one line, without the warnings that led to it.
    """
    logging.basicConfig(level=logging.CRITICAL, format=f"{name}: %(message)s")
    try:
        return main()
    except PairscoreError as error:
        _complain(name, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain(name, "interrupted")
        return EXIT_INTERRUPTED
    # The one place where a defect of the main thread is turned into the end of the process.
    except Exception:  # noqa: BLE001
        _log.critical("this is a defect in pairscore; please report it", exc_info=True)
        return EXIT_DEFECT


def end_process(code: int) -> NoReturn:
    """End with this exit code, at once, though a client of Kafka's is still there.

    Its destructor may hold a process up for half a minute, all being done and closed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # nobody reads on, such as `head`
            stream.flush()
    os._exit(code)


def _complain(name: str, line: str) -> None:
    sys.stderr.write(f"{name}: {line}\n")
