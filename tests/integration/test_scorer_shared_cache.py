"""Scorers that share what they know: nothing is downloaded or embedded twice, nothing changes."""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from deploy import local
from deploy.local.ports import free_ports
from pairscore.cache.codec import Keys
from pairscore.cache.redis_store import RedisStore
from pairscore.clip import ClipModel, load_model
from pairscore.pair import Failure, Outcome, Reason, Score
from pairscore.scorer import Scorer
from pairscore.scorer.lookup import CLAIM_SECONDS
from pairscore.settings import CacheSettings, RedisSettings, Settings, load_settings
from tests.fetching import wait_until
from tests.image_server import ImageServer, image_server, picture
from tests.redis_relay import Relay, relay
from tests.tiny_clip import make_tiny_clip

ROWS = 24


class Counting:
    """A model that counts what it embeds, with a fingerprint of its own."""

    def __init__(self, model: ClipModel, fingerprint: str) -> None:
        self._model = model
        self.fingerprint = fingerprint
        self.images = 0
        self.captions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_images(self, pixels: Any) -> Any:
        self.images += len(pixels)
        return self._model.embed_images(pixels)

    def embed_captions(self, tokens: Any) -> Any:
        self.captions += len(tokens)
        return self._model.embed_captions(tokens)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        {
            "model": str(make_tiny_clip(tmp_path_factory.mktemp("model"))),
            "cache_dir": tmp_path_factory.mktemp("cache"),
            "fetch": {
                "allow_networks": "127.0.0.0/8",
                "timeout": 20,
                "attempts": 1,
            },
        }
    )


@pytest.fixture(scope="module")
def model(settings: Settings) -> Iterator[ClipModel]:
    model = load_model(settings)
    yield model
    model.close()


@pytest.fixture
def counting(model: ClipModel) -> Counting:
    return Counting(model, uuid.uuid4().hex)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def on_redis(settings: Settings, url: str, **more: object) -> Settings:
    return settings.model_copy(update={"redis": RedisSettings(url=url, **more)})


@pytest.fixture(params=["redis", "folder"])
def shared(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    if request.param == "redis":
        # As long as it takes on a busy machine: what a slow answer does is for other tests.
        return on_redis(settings, request.getfixturevalue("redis_service").url, timeout=5)
    return settings.model_copy(update={"cache": CacheSettings(folder=tmp_path / "kept")})


@contextmanager
def scoring(settings: Settings, model: Any) -> Iterator[Scorer]:
    with Scorer(settings, model=model) as scorer:
        yield scorer


def pairs_of(server: ImageServer, rows: int = ROWS) -> list[tuple[str, str]]:
    """Of different images, each with another caption; one of them is not there."""
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(rows - 1)] + [server.url("/gone")]
    return [(url, f"a dog and {n} cats") for n, url in enumerate(urls)]


def outcomes(settings: Settings, model: Any, pairs: list[tuple[str, str]]) -> list[Outcome]:
    with scoring(settings, model) as scorer:
        return list(scorer.score_pairs(pairs))


def without_attempts(found: list[Outcome]) -> list[object]:
    return [
        (round(o.similarity, 3), o.image_sha256) if isinstance(o, Score) else (o.reason, o.detail)
        for o in found
    ]


def similarities(found: list[Outcome]) -> list[float]:
    return [o.similarity if isinstance(o, Score) else np.nan for o in found]


def assert_same(found: list[Outcome], expected: list[Outcome]) -> None:
    assert [type(o) for o in found] == [type(o) for o in expected]
    assert similarities(found) == pytest.approx(similarities(expected), abs=1e-3, nan_ok=True)


def test_what_one_scorer_has_seen_another_neither_downloads_nor_embeds(shared, counting, server):
    pairs = pairs_of(server)
    first = outcomes(shared, counting, pairs)
    assert (counting.images, counting.captions) == (ROWS - 1, ROWS - 1)
    hits = server.hits.total()
    second = outcomes(shared, counting, pairs)
    assert (counting.images, counting.captions) == (ROWS - 1, ROWS - 1)
    assert server.hits.total() == hits
    assert_same(second, first)
    assert {o.attempts for o in first} == {1}
    assert {o.attempts for o in second} == {0}


def test_the_same_image_under_another_url_is_downloaded_and_not_embedded(shared, counting, server):
    outcomes(shared, counting, [(server.add("/a.jpg", picture(1)), "a dog")])
    assert counting.images == 1
    [found] = outcomes(shared, counting, [(server.add("/b.jpg", picture(1)), "a dog")])
    assert isinstance(found, Score)
    assert found.attempts == 1
    assert counting.images == 1


def test_another_model_shares_what_urls_led_to_and_no_embeddings(shared, counting, model, server):
    pairs = pairs_of(server)
    first = outcomes(shared, counting, pairs)
    other = Counting(model, uuid.uuid4().hex)
    assert_same(outcomes(shared, other, pairs), first)
    assert (other.images, other.captions) == (ROWS - 1, ROWS - 1)


def test_without_memory_of_its_own_a_scorer_still_shares(shared, counting, server):
    pairs = pairs_of(server)
    first = outcomes(shared, counting, pairs)
    cache = shared.cache.model_copy(update={"bytes": 0})
    bare = shared.model_copy(update={"cache": cache})
    hits = server.hits.total()
    assert_same(outcomes(bare, counting, pairs), first)
    assert server.hits.total() == hits
    assert (counting.images, counting.captions) == (ROWS - 1, ROWS - 1)


def test_temporary_failures_are_never_shared(shared, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.statuses["/1.jpg"] = [503]
    [failed] = outcomes(shared, counting, [(url, "a dog")])
    assert isinstance(failed, Failure)
    [found] = outcomes(shared, counting, [(url, "a dog")])
    assert isinstance(found, Score)


def test_what_is_no_image_is_not_asked_for_again(shared, counting, server):
    url = server.add("/1.jpg", b"no image")
    for _ in range(2):
        [failed] = outcomes(shared, counting, [(url, "a dog")])
        assert isinstance(failed, Failure)
        assert failed.reason is Reason.NOT_AN_IMAGE
    assert server.hits["/1.jpg"] == 1


def stale_at_once(settings: Settings) -> Settings:
    cache = settings.cache.model_copy(update={"least": 0.0})
    return settings.model_copy(update={"cache": cache})


def test_what_is_stale_is_asked_for_again_and_keeps_its_embedding(shared, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.headers["/1.jpg"] = {"ETag": '"one"', "Cache-Control": "max-age=0"}
    stale = stale_at_once(shared)
    first = outcomes(stale, counting, [(url, "a dog")])
    second = outcomes(stale, counting, [(url, "a dog")])
    assert (server.hits["/1.jpg"], server.unchanged["/1.jpg"], counting.images) == (2, 1, 1)
    assert_same(second, first)
    assert second[0].attempts == 1
    server.headers["/1.jpg"] = {"ETag": '"one"', "Cache-Control": "max-age=600"}
    third = outcomes(stale, counting, [(url, "a dog")] * 2)
    assert (server.hits["/1.jpg"], server.unchanged["/1.jpg"]) == (3, 2)
    outcomes(stale, counting, [(url, "a dog")])
    assert server.hits["/1.jpg"] == 3
    assert_same(third, first * 2)


def test_an_image_that_has_changed_is_embedded_anew(shared, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.headers["/1.jpg"] = {"ETag": '"one"', "Cache-Control": "max-age=0"}
    stale = stale_at_once(shared)
    [first] = outcomes(stale, counting, [(url, "a dog")])
    server.add("/1.jpg", picture(2))
    server.headers["/1.jpg"] = {"ETag": '"two"', "Cache-Control": "max-age=0"}
    [second] = outcomes(stale, counting, [(url, "a dog")])
    assert isinstance(first, Score)
    assert isinstance(second, Score)
    assert first.image_sha256 != second.image_sha256
    assert (server.unchanged["/1.jpg"], counting.images) == (0, 2)


def test_what_is_fresh_by_what_its_server_says_is_not_asked_for(shared, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.headers["/1.jpg"] = {"Cache-Control": "max-age=60"}
    stale = stale_at_once(shared)
    for _ in range(2):
        outcomes(stale, counting, [(url, "a dog")])
    assert server.hits["/1.jpg"] == 1


def test_without_anything_to_ask_by_what_is_stale_is_downloaded(shared, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.headers["/1.jpg"] = {"Cache-Control": "no-cache"}
    stale = stale_at_once(shared)
    for _ in range(2):
        outcomes(stale, counting, [(url, "a dog")])
    assert (server.hits["/1.jpg"], counting.images) == (2, 1)


def test_one_scorer_alone_asks_whether_what_is_stale_has_changed(settings, counting, server):
    url = server.add("/1.jpg", picture(1))
    server.headers["/1.jpg"] = {"ETag": '"one"', "Cache-Control": "max-age=0"}
    with scoring(stale_at_once(settings), counting) as scorer:
        for _ in range(3):
            assert isinstance(scorer.submit((url, "a dog")).result(30), Score)
    assert (server.hits["/1.jpg"], server.unchanged["/1.jpg"], counting.images) == (3, 2, 1)


def test_two_workers_embed_the_same_bytes_once(redis_service, settings, counting, server):
    same = on_redis(settings, redis_service.url, timeout=5)
    urls = [server.add(f"/{n}.jpg", picture(n // 8)) for n in range(64)]
    server.gate.clear()
    with scoring(same, counting) as first, scoring(same, counting) as second:
        found = [(first if n % 2 else second).submit((url, "a dog")) for n, url in enumerate(urls)]
        server.gate.set()
        wait(found, timeout=60)
        assert all(isinstance(each.result(0), Score) for each in found)
    assert counting.images == 8


def claimed_by_another(settings: Settings, model: Any, image: bytes, seconds: float) -> bool:
    """Have somebody else say that it is about to embed an image; whether it may."""
    assert settings.redis.url is not None
    keys = Keys(model.fingerprint, model.dimensions)
    store = RedisStore(settings.redis.url.get_secret_value(), images=keys.images, seconds=10)
    sha256 = hashlib.sha256(image).hexdigest()
    [may] = store.claim([(keys.image(sha256), keys.claim(sha256))], seconds)
    store.close()
    assert isinstance(may, bool)
    return may


def test_a_worker_that_dies_with_a_claim_does_not_keep_others_from_embedding(
    redis_service, settings, counting, server
):
    same = on_redis(settings, redis_service.url, timeout=5)
    url = server.add("/1.jpg", picture(1))
    assert claimed_by_another(same, counting, picture(1), 1.0)
    [found] = outcomes(same, counting, [(url, "a dog")])
    assert isinstance(found, Score)
    assert counting.images == 1


def test_a_worker_that_ends_while_it_waits_leaves_the_claim_to_whose_it_is(
    redis_service, settings, counting, server
):
    same = on_redis(settings, redis_service.url, timeout=5)
    url = server.add("/1.jpg", picture(1))
    assert claimed_by_another(same, counting, picture(1), 60.0)
    with scoring(same, counting) as scorer:
        waiting = scorer.submit((url, "a dog"))
        time.sleep(1.0)
        assert not waiting.done()
        scorer.close()
    assert not claimed_by_another(same, counting, picture(1), 60.0)


def test_a_worker_never_waits_for_a_claim_of_its_own(redis_service, settings, counting, server):
    same = on_redis(settings, redis_service.url, timeout=5)
    cache = same.cache.model_copy(update={"bytes": 0})
    bare = same.model_copy(update={"cache": cache})
    urls = [server.add(f"/{n}.jpg", picture(1)) for n in range(6)]
    began = time.monotonic()
    with scoring(bare, counting) as scorer:
        for url in urls:
            assert isinstance(scorer.submit((url, "a dog")).result(30), Score)
    assert time.monotonic() - began < CLAIM_SECONDS


def test_what_is_no_image_after_all_is_left_to_others(redis_service, settings, counting, server):
    same = on_redis(settings, redis_service.url, timeout=5)
    broken = picture(1)[:200]
    url = server.add("/1.jpg", broken)
    [failed] = outcomes(same, counting, [(url, "a dog")])
    assert isinstance(failed, Failure)
    assert claimed_by_another(same, counting, broken, 1.0)


# Each fault: what is done to a Redis before a scorer starts, and after it has done a part.
def nothing(_: local.NativeRedis) -> None:
    pass


def kill(redis_: local.NativeRedis) -> None:
    redis_.kill()


def start(redis_: local.NativeRedis) -> None:
    redis_.start()


def pause(redis_: local.NativeRedis) -> None:
    redis_.pause()


def full(redis_: local.NativeRedis) -> None:
    client = redis.Redis.from_url(redis_.url)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def evicting(redis_: local.NativeRedis) -> None:
    client = redis.Redis.from_url(redis_.url)
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", 1)


def password(redis_: local.NativeRedis) -> None:
    redis.Redis.from_url(redis_.url).config_set("requirepass", "secret")


def each_value(change: Callable[[redis.Redis, bytes, bytes], None]) -> Callable[..., None]:
    def do(redis_: local.NativeRedis) -> None:
        client = redis.Redis.from_url(redis_.url)
        for key in client.scan_iter("pairscore:*"):
            value = client.get(key)
            if isinstance(value, bytes):
                change(client, bytes(key), value)

    return do


def flip(client: redis.Redis, key: bytes, value: bytes) -> None:
    place = len(value) // 2
    client.set(key, value[:place] + bytes([value[place] ^ 16]) + value[place + 1 :])


def cut(client: redis.Redis, key: bytes, value: bytes) -> None:
    client.set(key, value[: len(value) - 5])


def retype(client: redis.Redis, key: bytes, _: bytes) -> None:
    client.delete(key)
    client.rpush(key, "x")


def swap(client: redis.Redis, key: bytes, value: bytes) -> None:
    kept = client.get("kept")
    client.set("kept", value)
    client.set(key, kept or value[:-1])


FAULTS = {
    "absent": (kill, nothing),
    "started late": (kill, start),
    "killed midway": (nothing, kill),
    "paused": (pause, nothing),
    "paused midway": (nothing, pause),
    "full": (full, nothing),
    "full midway": (nothing, full),
    "evicting everything": (evicting, nothing),
    "flipped bits": (each_value(flip), nothing),
    "truncated values": (each_value(cut), nothing),
    "wrong types": (each_value(retype), nothing),
    "values of others": (each_value(swap), nothing),
    "a password missing": (password, nothing),
    "a password missing midway": (nothing, password),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_scores_are_equal_and_complete_whatever_redis_does(
    fault, restored, settings, counting, server
):
    before, midway = FAULTS[fault]
    pairs = pairs_of(server)
    expected = outcomes(settings, counting, pairs)
    # With the default of 50 ms: what is too slow for that is another fault.
    shared = on_redis(settings, restored.url)
    there = redis.Redis.from_url(restored.url)
    for _ in range(10):  # so that there is something to find
        outcomes(shared, counting, pairs[: ROWS // 2])
        if there.dbsize():
            break
    assert there.dbsize()
    before(restored)
    with scoring(shared, counting) as scorer:
        found = list(scorer.score_pairs(pairs[: ROWS * 3 // 4]))
        midway(restored)
        found += scorer.score_pairs(pairs[ROWS * 3 // 4 :])
        found += scorer.score_pairs(pairs)
    assert_same(found, expected + expected)


def late(way: Relay) -> None:
    way.late = 5.0


def dripping(way: Relay) -> None:
    way.drop = 8


def cut_off(way: Relay) -> None:
    way.cut.set()


@pytest.mark.parametrize("fault", [late, dripping, cut_off], ids=lambda fault: fault.__name__)
def test_scores_are_equal_and_complete_whatever_the_way_to_redis_does(
    fault, redis_service, settings, counting, server
):
    pairs = pairs_of(server)
    expected = outcomes(settings, counting, pairs)
    with relay(redis_service.url) as way:
        shared = on_redis(settings, way.url)
        outcomes(shared, counting, pairs[: ROWS // 2])
        with scoring(shared, counting) as scorer:
            found = list(scorer.score_pairs(pairs[: ROWS * 3 // 4]))
            fault(way)
            started = time.monotonic()
            found += scorer.score_pairs(pairs[ROWS * 3 // 4 :])
            found += scorer.score_pairs(pairs)
            assert scorer.cache.shared is not None
            # What a round trip may take, a few times; none waits for as long as Redis would.
            assert time.monotonic() - started < 5
    assert_same(found, expected + expected)


def test_a_redis_that_was_paused_for_half_a_minute_is_used_again(
    restored, settings, counting, server, pytestconfig
):
    seconds = 30.0 if pytestconfig.getoption("long_faults", default=False) else 3.0
    pairs = pairs_of(server)
    expected = outcomes(settings, counting, pairs)
    with scoring(on_redis(settings, restored.url), counting) as scorer:
        found = list(scorer.score_pairs(pairs[: ROWS // 2]))
        restored.pause()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            found += scorer.score_pairs(pairs[ROWS // 2 :])
            assert_same(found[-(ROWS // 2) :], expected[ROWS // 2 :])
        restored.resume()
        shared = scorer.cache.shared
        assert shared is not None
        wait_until(lambda: shared.available, within=40)
    assert_same(found[:ROWS], expected)


def test_a_redis_that_comes_back_is_used_again(own_redis, settings, counting, server):
    own_redis.start()
    own_redis.kill()
    pairs = pairs_of(server)
    with scoring(on_redis(settings, own_redis.url), counting) as scorer:
        shared = scorer.cache.shared
        assert shared is not None
        list(scorer.score_pairs(pairs))
        assert not shared.available
        own_redis.start()
        wait_until(lambda: shared.available, within=10)


def test_a_redis_that_nobody_listens_at_costs_a_row_next_to_nothing(settings, counting, server):
    [port] = free_ports(1)
    pairs = pairs_of(server)
    with scoring(on_redis(settings, f"redis://127.0.0.1:{port}/0"), counting) as scorer:
        assert len(list(scorer.score_pairs(pairs))) == ROWS
        assert scorer.cache.shared is not None
        assert sum(scorer.cache.shared.reads.errors.values()) <= 3
