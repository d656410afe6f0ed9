"""Partitions that are being taken over: not read before the store has said from where."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple, Protocol

from pairscore.errors import EnvironmentFault
from sink.faults import RETRY_SECONDS, Persistent, StoreFault
from sink.intake import Place
from sink.offsets import Start, find_start
from sink.topics import TopicWatch

SOON_SECONDS: Final = 0.02
"""How long the consumer may be expected to need until it has taken over what it was assigned."""

_log = logging.getLogger(__name__)


class Offsets(Protocol):
    """The part of the store that says where reading goes on."""

    def claim(
        self, places: Collection[Place], topic_ids: Mapping[str, str]
    ) -> Mapping[Place, int | None]:
        """The next offset of each, None where nothing is stored of it.

        Raises:
            StoreFault: the store cannot be asked now.
        """
        ...


class Opened(NamedTuple):
    """Where a partition is to be read from; `stored` is None where nothing is stored of it."""

    place: Place
    stored: int | None
    start: Start


class Opening:
    """What is still to be opened, and when it is time to ask (again)."""

    def __init__(self, watch: TopicWatch, offsets: Offsets, clock: Callable[[], float]) -> None:
        self._watch = watch
        self._offsets = offsets
        self._clock = clock
        self._places: set[Place] = set()
        self._at = clock()
        self._asking = Persistent(clock)

    def add(self, places: Collection[Place], *, at_once: bool) -> None:
        """Take in some; `at_once` asks about all of them without regard to what was refused."""
        self._places.update(places)
        if at_once:
            self._at = self._clock()

    def remove(self, places: Collection[Place]) -> None:
        """They are open, or are no longer this sink's."""
        self._places.difference_update(places)

    def look_soon(self) -> None:
        """Some could not be opened yet, for no fault of anybody's."""
        self._at = self._clock() + SOON_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time to ask."""
        return bool(self._places) and self._clock() >= self._at

    def ask(self) -> list[Opened]:
        """Where each is to be read from; nothing where that cannot be said now."""
        places = sorted(self._places)
        self._at = self._clock() + RETRY_SECONDS
        try:
            topics = self._watch.read()
            stored = self._offsets.claim(places, {name: topics[name].id for name in topics})
            ranges = self._watch.ranges(places)
        except StoreFault as fault:  # which the store tells of
            _log.debug("partitions are not read yet: %s", fault)
            return []
        except EnvironmentFault as fault:
            self._asking.failed(str(fault))
            return []
        self._asking.succeeded()
        return [Opened(p, stored[p], find_start(p, stored[p], ranges[p])) for p in places]
