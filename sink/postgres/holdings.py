"""The partitions that this sink has: how far each is stored, and how far it was read.

The one thing that the group, which changes it, and the store, which goes by it, both know. It
belongs to the loop's thread.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sink.intake import Place


@dataclass(slots=True)
class Held:
    """One partition; both are next offsets, `stored` None where nothing is stored of it.

    `read` is behind the ends of transactions too, once a record was taken: they are records of
    Kafka's own, which nobody is given.
    """

    stored: int | None
    read: int
    begun: bool = False


class Holdings:
    """The partitions that are being read. What is not in here is not stored."""

    def __init__(self) -> None:
        self._held: dict[Place, Held] = {}
        self._contested: set[Place] = set()

    @property
    def held(self) -> Mapping[Place, Held]:
        """What there is."""
        return self._held

    def add(self, place: Place, held: Held) -> None:
        """Take one in."""
        self._held[place] = held

    def remove(self, places: Collection[Place]) -> None:
        """Let go of some, be it that they are not here."""
        for place in places:
            self._held.pop(place, None)
        self._contested.difference_update(places)

    def stored(self, next_offsets: Mapping[Place, int]) -> None:
        """Take note that everything before these offsets is stored."""
        for place, offset in next_offsets.items():
            self._held[place].stored = offset

    def contest(self, places: Iterable[Place]) -> None:
        """Let go of some that are not where this sink left them."""
        for place in places:
            del self._held[place]
            self._contested.add(place)

    def take_contested(self) -> set[Place]:
        """Those, once."""
        contested, self._contested = self._contested, set()
        return contested
