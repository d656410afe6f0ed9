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


def provide_descriptors(concurrency: int) -> None:
    """Raise this process's soft limit on open files to what `concurrency` transfers at once need.

    Raises:
        EnvironmentFault: the hard limit, or the system, does not allow that.
    """
    needed = _PER_TRANSFER * concurrency + _RESERVE
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
    fitting = (hard - _RESERVE) // _PER_TRANSFER
    advice = f"lower --concurrency to {fitting}, or " if fitting > 0 else ""
    raise EnvironmentFault(
        f"{concurrency:,} downloads at once need {needed:,} open files, and this process may have "
        f"{hard:,}; {advice}raise the limit with `ulimit -n {needed}`"
    )


def _suffices(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
