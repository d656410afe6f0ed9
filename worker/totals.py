"""Counters that follow totals which are counted elsewhere."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from shared.telemetry.metrics import Metric, Metrics

Count: TypeAlias = tuple[Metric, Mapping[str, str], float]
_EVERY_SECONDS: Final = 1.0


class Totals:
    """Brings counters up to totals, which never fall. Belongs to one thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counted: dict[tuple[Metric, str], float] = {}
        self._due = 0.0

    def are_due(self, now: float) -> bool:
        """Whether they are to be brought up to date: once a second; `now` is seconds."""
        if now < self._due:
            return False
        self._due = now + _EVERY_SECONDS
        return True

    def advance(self, counts: Iterable[Count]) -> None:
        """Bring each metric with its labels to the total."""
        for metric, labels, total in counts:
            key = (metric, "/".join(labels.values()))
            before = self._counted.get(key, 0.0)
            if total > before:
                self._metrics.inc(metric, total - before, **labels)
                self._counted[key] = total
