"""File descriptors: as many as the transfers need, or one line that says what to do."""

import errno
import resource
from typing import Final

from pairscore.errors import EnvironmentFault

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Numbers of the errors that say that none is left, to this process or on this machine."""

# A connection and a lookup of its name; and the model, the files and the runtimes of the rest.
_PER_TRANSFER: Final = 2
_RESERVE: Final = 128
_LEAST_URGENT: Final = 4
_PER_URGENT: Final = 8


def urgent_slots(concurrency: int) -> int:
    """How many urgent transfers there may be beside `concurrency` of any kind."""
    return max(_LEAST_URGENT, concurrency // _PER_URGENT)


def provide_descriptors(concurrency: int) -> None:
    """Raise this process's soft limit on open files to what `concurrency` transfers at once need.

    And with them the urgent ones that there may be beside them.

    Raises:
        EnvironmentFault: the hard limit, or the system, does not allow that.
    """
    needed = _PER_TRANSFER * (concurrency + urgent_slots(concurrency)) + _RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _suffices(soft, needed):
        return
    if _suffices(hard, needed):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        except (OSError, ValueError):
            # macOS has a limit of its own (kern.maxfilesperproc) below an unlimited hard one.
            hard = soft
        else:
            return
    transfers = (hard - _RESERVE) // _PER_TRANSFER
    fitting = min(transfers - _LEAST_URGENT, transfers * _PER_URGENT // (_PER_URGENT + 1))
    advice = f"lower --concurrency to {fitting}, or " if fitting > 0 else ""
    raise EnvironmentFault(
        f"{concurrency:,} downloads at once need {needed:,} open files, and this process may have "
        f"{hard:,}; {advice}raise the limit with `ulimit -n {needed}`"
    )


def _suffices(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
