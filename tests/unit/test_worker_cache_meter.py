"""What a worker's metrics say of its cache."""

from collections.abc import Mapping

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pairscore.cache import Cache, Lifetimes
from pairscore.cache.codec import Keys
from pairscore.cache.shared import Place, SharedCache
from pairscore.cache.sqlite_store import SqliteStore
from pairscore.cache.stats import Call, Kind
from pairscore.guard.breaker import State
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import Metrics
from worker.cache_meter import CacheMeter

LIFETIMES = Lifetimes(least=60, most=600, absent=30, unknown_host=10)


def samples(metrics: Metrics) -> Mapping[tuple[str, ...], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name.removeprefix("pairscore_worker_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_labels_are_those_that_the_cache_counts_by():
    [kind, _] = catalogue.WORKER_CACHE_LOOKUPS.labels
    [call, _] = catalogue.WORKER_SHARED_CACHE_CALLS.labels
    assert kind.values == tuple(each.value for each in Kind)
    assert call.values == tuple(each.value for each in Call)


def test_hits_and_misses_are_counted_once_each_and_are_there_at_zero():
    metrics, cache = Metrics("worker"), Cache(100_000, LIFETIMES)
    meter = CacheMeter(metrics, cache)
    assert samples(metrics)["cache_lookups_total", "image", "hit"] == 0
    cache.count(Kind.IMAGE, hits=1)
    cache.count(Kind.IMAGE, hits=1)
    cache.count(Kind.URL, misses=1)
    meter.show(10.0)
    meter.show(10.5)  # not yet again
    meter.show(12.0)
    found = samples(metrics)
    assert found["cache_lookups_total", "image", "hit"] == 2
    assert found["cache_lookups_total", "image", "miss"] == 0
    assert found["cache_lookups_total", "url", "miss"] == 1
    cache.count(Kind.IMAGE, hits=1)
    cache.learn_image("0" * 64, np.ones(8, np.float32))
    meter.show(14.0)
    assert samples(metrics)["cache_lookups_total", "image", "hit"] == 3
    assert samples(metrics)["cache_bytes",] == cache.size > 32


def test_what_is_asked_of_others_is_counted(tmp_path):
    keys = Keys("f", 8)
    place = Place("file", lambda: SqliteStore(tmp_path, images=keys.images), 10, 600)
    shared = SharedCache(place, keys, 8)
    cache = Cache(100_000, LIFETIMES, shared)
    metrics = Metrics("worker")
    meter = CacheMeter(metrics, cache)
    shared.keep_image("0" * 64, np.ones(8, np.float32))
    shared.look_up(["http://e.org/"], ["a dog", "a cat"])
    assert shared.claim(["1" * 64], 60) == [True]
    shared.close()
    meter.show(1.0)
    found = samples(metrics)
    assert found["shared_cache_lookups_total", "url", "miss"] == 1
    assert found["shared_cache_lookups_total", "caption", "miss"] == 2
    assert found["shared_cache_lookups_total", "image", "miss"] == 1
    assert found["shared_cache_calls_total", "look_up", "answered"] == 1
    assert found["shared_cache_calls_total", "claim", "answered"] == 1
    assert found["shared_cache_calls_total", "put", "answered"] == 1
    assert found["shared_cache_calls_total", "put", "failed"] == 0
    assert found["shared_cache_seconds_total", "look_up"] > 0
    assert found["shared_cache_written_bytes_total",] > 32
    assert found["shared_cache_not_written_total",] == 0
    assert found["shared_cache_state",] == State.CLOSED
