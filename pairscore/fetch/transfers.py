"""The transfers in flight: each drives one request, and is used again for the next.

Belongs to the fetch thread, but for `wake`.
"""

from collections.abc import Callable, Iterator
from typing import Final

from pairscore import __version__
from pairscore.fetch.address import AddressGuard
from pairscore.fetch.certificates import trusted
from pairscore.fetch.loop import CurlLoop
from pairscore.fetch.request import Request
from pairscore.fetch.transfer import Transfer
from pairscore.fetch.verdict import SILENT
from pairscore.settings import FetchSettings

LOOK_SECONDS: Final = 0.5
"""How often it is to be looked whether transfers have gone silent."""


class Transfers:
    """Starts transfers and says which have ended, be it that they went silent for too long.

    Raises:
        SettingsError: the CA file cannot be used.
    """

    def __init__(self, settings: FetchSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._guard = AddressGuard(settings.allow_networks)
        self._ca_file = trusted(settings)
        self._agent = settings.user_agent or f"pairscore/{__version__}"
        self._idle: list[Transfer] = []
        self._running: dict[object, tuple[Transfer, Request]] = {}
        self._next_look = 0.0
        self._loop = CurlLoop(clock)

    def __len__(self) -> int:
        """How many are in flight."""
        return len(self._running)

    def start(self, request: Request) -> None:
        """Ask for the target of a request."""
        transfer = self._idle.pop() if self._idle else self._make()
        left = self._settings.timeout - request.seconds
        transfer.start(request.target.text, left, request.condition)
        self._running[transfer.handle] = (transfer, request)
        self._loop.add(transfer.handle)

    def ended(self, timeout: float) -> Iterator[tuple[Transfer, Request, int, str]]:
        """Wait for news, `timeout` seconds at most, and give what has ended.

        Each with libcurl's code and message; the transfer says more until the next is started.
        """
        for handle, code, message in self._loop.turn(timeout):
            yield *self._end(handle), code, message
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        since = now - self._settings.stall_timeout
        for handle, (transfer, _) in list(self._running.items()):
            if transfer.heard is not None and transfer.heard < since:
                yield *self._end(handle), SILENT, ""

    def wake(self) -> None:
        """Make `ended` return soon."""
        self._loop.wake()

    def close(self) -> None:
        """Break off what is in flight."""
        for handle, (transfer, _) in self._running.items():
            self._loop.remove(handle)
            transfer.close()
        for transfer in self._idle:
            transfer.close()
        self._loop.close()

    def _end(self, handle: object) -> tuple[Transfer, Request]:
        transfer, request = self._running.pop(handle)
        self._loop.remove(handle)
        self._idle.append(transfer)
        return transfer, request

    def _make(self) -> Transfer:
        return Transfer(
            self._settings,
            self._guard,
            ca_file=self._ca_file,
            agent=self._agent,
            clock=self._clock,
        )
