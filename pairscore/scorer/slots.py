"""Slots of images that are decoded and not yet encoded, so that pixels do not pile up."""

import threading

from pairscore.scorer.work import ContentWork


class Slots:
    """`most` of them, and as many that are for urgent images alone, which wait for no others."""

    def __init__(self, most: int) -> None:
        self._urgent = threading.Semaphore(most)
        self._others = threading.Semaphore(most)

    def take(self, content: ContentWork, seconds: float) -> bool:
        """Wait for an image's slot, so long at most; whether it has got one."""
        slots = self._urgent if content.urgent else self._others
        if not slots.acquire(timeout=seconds):
            return False
        content.slots = slots
        return True

    def give_back(self, content: ContentWork) -> None:
        """Let another have an image's slot, of the kind that it took: it may be urgent by now."""
        if content.slots is not None:
            content.slots.release()
            content.slots = None
