"""A store behind a guard: what it does not answer soon is not known."""

import time
from collections.abc import Callable, Sequence

from pairscore.cache.stats import Call
from pairscore.cache.store import Answer, Item, Question, Store
from pairscore.guard import CallStats, Guard


class Guarded:
    """Asks a store, and waits for that for `seconds` at most; closes it in the end.

    One thread may ask; any may look at what is said of it.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        seconds: float,
        stats: CallStats,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is what messages call the store."""
        self._store = store
        self._guard = Guard(
            name=name,
            seconds=seconds,
            probe=store.ping,
            close=store.close,
            stats=stats,
            clock=clock,
        )

    @property
    def available(self) -> bool:
        """Whether it is worth asking; begins a probe where it is time for one."""
        return self._guard.available

    def look_up(self, question: Question) -> Answer | None:
        """The answer, or None."""
        size = len(question.urls) + len(question.captions)
        return self._guard.ask(Call.LOOK_UP, size, lambda: self._store.look_up(question))

    def claim(
        self, images: Sequence[tuple[bytes, bytes]], seconds: float
    ) -> list[bytes | bool] | None:
        """The answer, or None."""
        return self._guard.ask(Call.CLAIM, len(images), lambda: self._store.claim(images, seconds))

    def put(self, items: Sequence[Item]) -> bool:
        """Whether the items were kept."""

        def put() -> bool:
            self._store.put(items)
            return True

        return bool(self._guard.ask(Call.PUT, len(items), put))

    def close(self) -> None:
        """Let go of the store; a call that does not come back is not waited for."""
        self._guard.close()
