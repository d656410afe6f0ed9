"""The bounded cache: what it keeps, what it gives up, and when."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from pairscore.cache import BoundedCache


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_entry_is_given_back_until_it_is_too_old():
    clock = Clock()
    cache: BoundedCache[str, int] = BoundedCache(10_000, ttl=60, clock=clock)
    cache.put([("a", 1, 8)])
    clock.now = 59.9
    assert cache.get("a") == 1
    clock.now = 60.0
    assert cache.get("a") is None
    assert len(cache) == 0


def test_least_recently_used_entry_goes_first():
    cache: BoundedCache[str, int] = BoundedCache(1_500, ttl=60, clock=Clock())
    for name in "abc":
        cache.put([(name, ord(name), 100)])
    assert cache.get("a") is not None
    cache.put([("d", ord("d"), 100)])
    assert [name for name in "abcd" if cache.get(name) is None] == ["b"]


def test_entry_larger_than_the_cache_is_not_kept_and_evicts_nothing():
    cache: BoundedCache[str, int] = BoundedCache(1_000, ttl=60, clock=Clock())
    cache.put([("small", 1, 10)])
    cache.put([("large", 2, 5_000)])
    assert cache.get("small") == 1
    assert cache.get("large") is None


def test_cache_of_no_bytes_keeps_nothing():
    cache: BoundedCache[str, int] = BoundedCache(0, ttl=60, clock=Clock())
    cache.put([("a", 1, 0)])
    assert cache.get("a") is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 900)), max_size=200),
    st.integers(0, 8_000),
)
def test_total_size_never_exceeds_the_bound(puts, bound):
    cache: BoundedCache[int, int] = BoundedCache(bound, ttl=60, clock=Clock())
    last = {}
    for key, size in puts:
        cache.put([(key, size, size)])
        last[key] = size
        kept = {k: v for k in range(21) if (v := cache.get(k)) is not None}
        assert sum(size + 400 for size in kept.values()) <= bound
        assert all(last[k] == v for k, v in kept.items())
        assert key in kept or size + 400 > bound


def test_threads_may_share_it():
    cache: BoundedCache[int, int] = BoundedCache(20_000, ttl=60, clock=Clock())
    wrong = []

    def work(seed: int) -> None:
        for i in range(3_000):
            key = (i * 7 + seed) % 100
            cache.put([(key, key * 3, 100)])
            found = cache.get(key)
            if found is not None and found != key * 3:
                wrong.append((key, found))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong
    assert len(cache) <= 40
