"""`pairscore cache`: what is kept from one run to the next, or between workers, and its end."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pairscore.cache.opening import open_keeper
from pairscore.cache.store import Keeper
from pairscore.errors import EnvironmentFault, InputError
from pairscore.guard import Unavailable
from pairscore.settings import Settings


def show_cache(settings: Settings, *, as_json: bool) -> None:
    """Print how many entries there are, and of what size.

    Raises:
        InputError: no cache is named.
        EnvironmentFault: it cannot be used.
    """
    with _opened(settings) as keeper:
        found = keeper.contents()
    if as_json:
        fields = {"entries": dict(found.entries), "bytes": found.bytes, **found.details}
        sys.stdout.write(json.dumps(fields) + "\n")
        return
    for kind, entries in found.entries.items():
        sys.stdout.write(f"{kind + 's':<16}{entries:>14,}\n")
    sys.stdout.write(f"{'size':<16}{found.bytes / 1e6:>11,.1f} MB\n")
    for what, finding in found.details.items():
        sys.stdout.write(f"{what:<16}  {finding}\n")


def clear_cache(settings: Settings) -> None:
    """Forget everything, and say how much that was.

    Raises:
        InputError: no cache is named.
        EnvironmentFault: it cannot be used.
    """
    with _opened(settings) as keeper:
        gone = keeper.clear()
    sys.stdout.write(f"{gone:,} entries are forgotten\n")


@contextmanager
def _opened(settings: Settings) -> Iterator[Keeper]:
    keeper = open_keeper(settings)
    if keeper is None:
        raise InputError(
            "no cache is named: say --cache redis://host:6379/0 or --cache DIR, or set "
            "PAIRSCORE_REDIS__URL or PAIRSCORE_CACHE__FOLDER"
        )
    try:
        yield keeper
    except Unavailable as error:
        raise EnvironmentFault(f"the cache cannot be used: {error}") from error
    finally:
        keeper.close()
