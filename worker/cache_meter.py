"""What a worker tells of its cache: the counts that the cache keeps, brought into the metrics."""

from collections.abc import Iterator

from pairscore.cache import Cache
from pairscore.cache.shared import SharedCache
from pairscore.cache.stats import Call, Kind, LookUpStats
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import Metric, Metrics
from worker.totals import Count, Totals


class CacheMeter:
    """Belongs to one thread."""

    def __init__(self, metrics: Metrics, cache: Cache) -> None:
        self._metrics = metrics
        self._cache = cache
        self._totals = Totals(metrics)

    def show(self, now: float) -> None:
        """Bring the metrics up to date, once a second; `now` is seconds."""
        if not self._totals.are_due(now):
            return
        cache, shared = self._cache, self._cache.shared
        self._metrics.set(catalogue.WORKER_CACHE_BYTES, cache.size)
        self._totals.advance(_lookups(catalogue.WORKER_CACHE_LOOKUPS, cache.looked_up))
        if shared is not None:
            self._metrics.set(catalogue.WORKER_SHARED_CACHE_STATE, shared.reads.state)
            self._totals.advance(_of_shared(shared))


def _lookups(metric: Metric, stats: LookUpStats) -> Iterator[Count]:
    for kind in Kind:
        yield metric, {"kind": kind.value, "result": "hit"}, stats.hits[kind]
        yield metric, {"kind": kind.value, "result": "miss"}, stats.misses[kind]


def _of_shared(shared: SharedCache) -> Iterator[Count]:
    yield from _lookups(catalogue.WORKER_SHARED_CACHE_LOOKUPS, shared.looked_up)
    calls = catalogue.WORKER_SHARED_CACHE_CALLS
    for call in Call:
        stats = shared.writes if call is Call.PUT else shared.reads
        name = call.value
        yield calls, {"call": name, "result": "answered"}, stats.calls[call]
        yield calls, {"call": name, "result": "failed"}, stats.errors[call]
        yield catalogue.WORKER_SHARED_CACHE_SECONDS, {"call": name}, stats.seconds[call]
    yield catalogue.WORKER_SHARED_CACHE_WRITTEN, {}, shared.written.bytes
    yield catalogue.WORKER_SHARED_CACHE_NOT_WRITTEN, {}, shared.written.left_out
