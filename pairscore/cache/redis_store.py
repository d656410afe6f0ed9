"""Entries in Redis, with a script for what is to be done at once."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from pairscore.cache.codec import PREFIXES
from pairscore.cache.store import Answer, Contents, Item, Question, StoreError, follow
from pairscore.errors import SettingsError

# Who cannot say that an image is its own, because there is no room for that, embeds it all the
# same; so does who has said so before.
_CLAIM: Final = """
local found = {}
for number = 1, #KEYS, 2 do
  local value = redis.pcall('GET', KEYS[number])
  if type(value) ~= 'string' then
    local key = KEYS[number + 1]
    local claimed = redis.pcall('SET', key, ARGV[2], 'NX', 'PX', ARGV[1])
    if type(claimed) == 'table' and claimed.err then value = 1
    elseif claimed then value = 1
    else value = redis.pcall('GET', key) == ARGV[2] and 1 or 0 end
  end
  found[#found + 1] = value
end
return found
"""

_CLAIM_SHA1: Final = hashlib.sha1(_CLAIM.encode(), usedforsecurity=False).hexdigest()
_Command: TypeAlias = tuple[str | bytes | int, ...]

_SCANNED: Final = 1_000
# Each read lets other threads run, and may have to wait for all of them.
_READ_BYTES: Final = 1_048_576


class RedisStore:
    """One connection to a Redis, opened when it is needed."""

    def __init__(self, url: str, *, images: bytes, seconds: float) -> None:
        """`images` is what keys of images begin with; `seconds` what each answer may take.

        Raises:
            SettingsError: `url` cannot be one of a Redis.
        """
        self._images = images
        self._name = uuid.uuid4().bytes  # of who claims an image
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                # What cannot be had at once is done without.
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
                protocol=2,
                socket_read_size=_READ_BYTES,
            )
        except ValueError as error:  # which does not quote the URL: a password may be in it
            raise SettingsError(f"setting PAIRSCORE_REDIS__URL: {error}") from None

    def look_up(self, question: Question) -> Answer:
        """Read, in two round trips.

        A script that follows a URL to its image saves one, and takes Redis twice the time: it
        copies every value.
        """
        return follow(question, self._images, self._values)

    def claim(self, images: Sequence[tuple[bytes, bytes]], seconds: float) -> list[bytes | bool]:
        """Claim, in one round trip."""
        keys = [key for pair in images for key in pair]
        ask: _Command = (
            "EVALSHA",
            _CLAIM_SHA1,
            len(keys),
            *keys,
            round(seconds * 1000),
            self._name,
        )
        with _faults():
            try:
                [found] = self._send([ask])
            except NoScriptError:
                _, found = self._send([("SCRIPT LOAD", _CLAIM), ask])
        claimed = _listed(found, len(images))
        return [each if isinstance(each, bytes) else bool(each) for each in claimed]

    def put(self, items: Sequence[Item]) -> None:
        """Write, in one round trip."""
        with _faults():
            self._send(
                [
                    ("DEL", key) if value is None else ("SET", key, value, "EX", seconds)
                    for key, value, seconds in items
                ]
            )

    def ping(self) -> None:
        """See whether it answers."""
        with _faults():
            self._redis.ping()

    def contents(self) -> Contents:
        """Count, by going through all keys, and say what Redis says of its memory."""
        entries = dict.fromkeys(PREFIXES, 0)
        with _faults():
            for key in self._redis.scan_iter(b"pairscore:*", count=_SCANNED):
                for kind, prefix in PREFIXES.items():
                    entries[kind] += key.startswith(prefix)
            memory, stats = self._redis.info("memory"), self._redis.info("stats")
        most = memory.get("maxmemory", 0)
        details = {
            "memory limit": f"{most / 1e6:,.0f} MB" if most else "none",
            "when full": str(memory.get("maxmemory_policy", "unknown")),
            "evicted": f"{stats.get('evicted_keys', 0):,}",
        }
        return Contents(entries, memory["used_memory"], details)

    def clear(self) -> int:
        """Remove what begins with `pairscore:`, claims included, which do not count."""
        gone = 0
        with _faults():
            some: list[bytes] = []
            for key in self._redis.scan_iter(b"pairscore:*", count=_SCANNED):
                some.append(key)
                if len(some) == _SCANNED:
                    gone += self._unlink(some)
                    some = []
            return gone + self._unlink(some)

    def _unlink(self, keys: Sequence[bytes]) -> int:
        if keys:
            self._redis.unlink(*keys)
        return sum(key.startswith(tuple(PREFIXES.values())) for key in keys)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(RedisError, OSError):
            self._redis.close()

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        with _faults():
            answer = self._redis.execute_command("MGET", *keys)
        return [v if isinstance(v, bytes) else None for v in _listed(answer, len(keys))]

    def _send(self, commands: Sequence[_Command]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
            return answers


def _listed(answer: object, count: int) -> list[object]:
    """The items of an answer, each of which may be anything."""
    if not isinstance(answer, list) or len(answer) != count:
        raise StoreError(f"Redis answers {answer!r:.80}")
    return answer


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        # What follows "with args" quotes them, and a password may be among them.
        said = str(error).partition(", with args")[0]
        raise StoreError(f"Redis refused a command: {said}") from None
    except (RedisError, OSError) as error:
        raise StoreError(str(error) or type(error).__name__) from error
