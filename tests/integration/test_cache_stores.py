"""The stores of a shared cache, against a real Redis and a real file: the same contract."""

import socketserver
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest
import redis

from pairscore.cache import NegativeEntry, UrlEntry
from pairscore.cache.codec import Keys, encode_url
from pairscore.cache.redis_store import RedisStore
from pairscore.cache.sqlite_store import FILE, SqliteStore
from pairscore.cache.store import Question, Store
from pairscore.errors import EnvironmentFault
from pairscore.guard import Unavailable
from pairscore.pair import Failure, Reason
from tests.fetching import wait_until

SHA256 = "ab" * 32
OTHER = "cd" * 32
SECONDS = 10.0


@pytest.fixture
def keys() -> Keys:
    """Of a model of each test's own, so that no two see the same entries of images."""
    return Keys(uuid.uuid4().hex, 8)


@pytest.fixture(params=["redis", "sqlite"])
def make(request, keys, tmp_path) -> Callable[[], Store]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_service").url
        return lambda: RedisStore(url, images=keys.images, seconds=SECONDS)
    return lambda: SqliteStore(tmp_path, images=keys.images)


@pytest.fixture
def store(make) -> Iterator[Store]:
    made = make()
    yield made
    made.close()


def url_key() -> bytes:
    return b"pairscore:url:" + uuid.uuid4().hex.encode()


def led_to(key: bytes, sha256: str = SHA256) -> bytes:
    return encode_url(key, UrlEntry(sha256, 1e10, "http://e.org/"))


def test_what_was_put_is_found_with_the_image_that_a_url_names(store, keys):
    known, bare, negative, absent = (url_key() for _ in range(4))
    failure = encode_url(negative, NegativeEntry(Failure(Reason.NOT_AN_IMAGE), 1e10))
    store.put(
        [
            (known, led_to(known), 60),
            (bare, led_to(bare, OTHER), 60),
            (negative, failure, 60),
            (keys.image(SHA256), b"image", 60),
            (keys.caption("a dog"), b"caption", 60),
        ]
    )
    captions = [keys.caption("a cat"), keys.caption("a dog")]
    answer = store.look_up(Question([known, absent, bare, negative], captions))
    assert answer.urls == [
        (led_to(known), b"image"),
        (None, None),
        (led_to(bare, OTHER), None),
        (failure, None),
    ]
    assert list(answer.captions) == [None, b"caption"]


@pytest.mark.parametrize("what", ["urls", "captions", "nothing"])
def test_a_question_may_be_about_one_thing_alone(store, keys, what):
    question = Question(
        [url_key()] if what == "urls" else [], [keys.caption("a")] if what == "captions" else []
    )
    answer = store.look_up(question)
    assert list(answer.urls) == ([(None, None)] if what == "urls" else [])
    assert list(answer.captions) == ([None] if what == "captions" else [])


def test_what_was_put_last_holds_and_what_is_forgotten_is_gone(store, keys):
    key = keys.caption("a dog")
    store.put([(key, b"one", 60)])
    store.put([(key, b"two", 60)])
    assert store.look_up(Question([], [key])).captions == [b"two"]
    store.put([(key, None, 0)])
    assert store.look_up(Question([], [key])).captions == [None]


def test_an_entry_ends_when_its_time_is_over(store, keys):
    key = keys.caption("a dog")
    store.put([(key, b"one", 1)])
    assert store.look_up(Question([], [key])).captions == [b"one"]
    wait_until(lambda: store.look_up(Question([], [key])).captions == [None], within=5)


def test_many_keys_are_one_question(store, keys):
    names = [keys.caption(str(n)) for n in range(1_500)]
    store.put([(name, name, 60) for name in names])
    assert store.look_up(Question([], names)).captions == names


def test_an_image_that_is_known_is_nobodys_to_embed(store, keys):
    store.put([(keys.image(SHA256), b"image", 60)])
    claims = [(keys.image(each), keys.claim(each)) for each in (SHA256, OTHER)]
    assert store.claim(claims, 60) == [b"image", True]


def test_another_process_finds_what_one_put(make, keys):
    first, second = make(), make()
    first.put([(keys.caption("a dog"), b"one", 60)])
    assert second.look_up(Question([], [keys.caption("a dog")])).captions == [b"one"]


@pytest.fixture
def on_redis(redis_service, keys) -> RedisStore:
    return RedisStore(redis_service.url, images=keys.images, seconds=SECONDS)


@pytest.fixture
def server(redis_service) -> redis.Redis:
    return redis.Redis.from_url(redis_service.url)


def test_one_of_several_may_embed_an_image_until_that_took_too_long(on_redis, redis_service, keys):
    other = RedisStore(redis_service.url, images=keys.images, seconds=SECONDS)
    claim = [(keys.image(SHA256), keys.claim(SHA256))]
    assert on_redis.claim(claim, 1.0) == [True]
    assert other.claim(claim, 1.0) == [False]
    wait_until(lambda: other.claim(claim, 60.0) == [True], within=5)
    assert on_redis.claim(claim, 1.0) == [False]


def test_a_claim_that_is_taken_back_is_free_for_the_next(on_redis, keys):
    claim = [(keys.image(SHA256), keys.claim(SHA256))]
    assert on_redis.claim(claim, 60.0) == [True]
    on_redis.put([(keys.claim(SHA256), None, 0)])
    assert on_redis.claim(claim, 60.0) == [True]


def test_values_of_other_types_are_misses_and_hide_no_others(on_redis, server, keys):
    wrong, right = url_key(), url_key()
    server.lpush(wrong, "x")
    server.hset(keys.image(OTHER), "x", "y")
    server.sadd(keys.caption("a dog"), "x")
    on_redis.put([(right, led_to(right, OTHER), 60), (keys.caption("a cat"), b"cat", 60)])
    captions = [keys.caption("a dog"), keys.caption("a cat")]
    answer = on_redis.look_up(Question([wrong, right], captions))
    assert answer.urls == [(None, None), (led_to(right, OTHER), None)]
    assert list(answer.captions) == [None, b"cat"]
    assert on_redis.claim([(keys.image(OTHER), keys.claim(OTHER))], 60.0) == [True]
    on_redis.put([(wrong, b"right", 60)])
    assert server.get(wrong) == b"right"


def test_a_redis_that_has_forgotten_the_script_is_told_it_again(on_redis, server, keys):
    server.script_flush()
    assert on_redis.claim([(keys.image(SHA256), keys.claim(SHA256))], 60.0) == [True]


def test_no_redis_is_a_fault_in_one_line(keys):
    store = RedisStore("redis://127.0.0.1:1/0", images=keys.images, seconds=0.2)
    for ask in (
        store.ping,
        lambda: store.look_up(Question([url_key()], [])),
        lambda: store.claim([(keys.image(SHA256), keys.claim(SHA256))], 1),
        lambda: store.put([(url_key(), b"x", 60)]),
    ):
        with pytest.raises(Unavailable) as error:
            ask()
        assert str(error.value).isprintable()


def test_a_file_that_is_none_of_sqlite_is_said_in_one_line(tmp_path, keys):
    (tmp_path / FILE).write_bytes(b"not a database at all, of no kind" * 100)
    with pytest.raises(EnvironmentFault, match="remove it, or name another folder"):
        SqliteStore(tmp_path, images=keys.images)


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path, keys):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot be used as a cache"):
        SqliteStore(tmp_path / "file" / "folder", images=keys.images)


def test_a_file_that_is_damaged_is_said_in_one_line(tmp_path, keys):
    store = SqliteStore(tmp_path, images=keys.images)
    store.put([(keys.caption(str(n)), bytes(2_000), 60) for n in range(200)])
    store.close()
    file = tmp_path / FILE
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(EnvironmentFault, match="remove it, or name another folder"):
        SqliteStore(tmp_path, images=keys.images)


def test_a_file_that_goes_wrong_later_is_a_fault_of_the_store(tmp_path, keys):
    store = SqliteStore(tmp_path, images=keys.images)
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("DROP TABLE entries")
    for ask in (
        lambda: store.look_up(Question([], [keys.caption("1")])),
        lambda: store.put([(keys.caption("1"), b"x", 60)]),
        lambda: store.claim([(keys.image(SHA256), keys.claim(SHA256))], 1),
    ):
        with pytest.raises(Unavailable, match="the cache's file"):
            ask()


def test_what_is_too_old_is_gone_from_the_file_when_it_is_opened_again(tmp_path, keys):
    now = [1_000.0]
    store = SqliteStore(tmp_path, images=keys.images, wall=lambda: now[0])
    store.put([(keys.caption("a"), b"x", 60), (keys.caption("b"), b"x", 600)])
    store.close()
    now[0] = 1_100.0
    SqliteStore(tmp_path, images=keys.images, wall=lambda: now[0]).close()
    with sqlite3.connect(tmp_path / FILE) as other:
        assert other.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_values_that_are_no_bytes_are_misses(tmp_path, keys):
    store = SqliteStore(tmp_path, images=keys.images)
    key = keys.caption("a dog")
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("INSERT INTO entries VALUES (?, ?, ?)", (key, 17, 1e10))
    assert store.look_up(Question([], [key])).captions == [None]


def test_a_password_is_not_in_what_is_said(keys):
    class NoRedis(socketserver.BaseRequestHandler):
        def handle(self):
            while asked := self.request.recv(65536):
                self.request.sendall(
                    b"-ERR unknown command, with args beginning with: " + asked[:40]
                )
                self.request.sendall(b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), NoRedis) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://:secret@127.0.0.1:{server.server_address[1]}/0"
        with pytest.raises(Unavailable) as error:
            RedisStore(url, images=keys.images, seconds=SECONDS).ping()
        assert "secret" not in str(error.value)
        server.shutdown()


@pytest.mark.parametrize("answer", [b":1", b"*0", b"*1\r\n:1", b"*2\r\n$-1\r\n$-1", b"$1\r\nx"])
def test_an_answer_of_another_shape_is_a_fault_of_the_store(keys, answer):
    class Lying(socketserver.BaseRequestHandler):
        def handle(self):
            while asked := self.request.recv(65536):
                setup = asked.startswith((b"*4\r\n$6\r\nCLIENT", b"*2\r\n$5\r\nHELLO"))
                count = asked.count(b"SETINFO") if setup else 1
                self.request.sendall((b"+OK" if setup else answer) * count + b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        for ask in (
            lambda store: store.look_up(Question([url_key()] * 3, [])),
            lambda store: store.look_up(Question([], [keys.caption(str(n)) for n in range(3)])),
            lambda store: store.claim([(keys.image(SHA256), keys.claim(SHA256))] * 3, 1),
        ):
            with pytest.raises(Unavailable):
                ask(RedisStore(url, images=keys.images, seconds=2.0))
        server.shutdown()


def test_what_one_has_claimed_is_its_own_when_it_asks_again(on_redis, keys):
    claim = [(keys.image(SHA256), keys.claim(SHA256))]
    assert [on_redis.claim(claim, 60.0) for _ in range(2)] == [[True], [True]]
