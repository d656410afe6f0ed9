"""Entries in Redis, with a script for what is to be done at once."""

import uuid
from collections.abc import Sequence
from typing import Final

from pairscore.cache.codec import PREFIXES
from pairscore.cache.store import Answer, Contents, Item, Question, follow
from pairscore.guard.redis_link import Command, RedisLink, Script, faults, listed

# Who cannot say that an image is its own, because there is no room for that, embeds it all the
# same; so does who has said so before.
_CLAIM: Final = Script("""
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
""")

_SCANNED: Final = 1_000


class RedisStore:
    """One connection to a Redis, opened when it is needed."""

    def __init__(self, url: str, *, images: bytes, seconds: float) -> None:
        """`images` is what keys of images begin with; `seconds` what each answer may take.

        Raises:
            SettingsError: `url` cannot be one of a Redis.
        """
        self._images = images
        self._name = uuid.uuid4().bytes  # of who claims an image
        self._link = RedisLink(url, seconds=seconds)

    def look_up(self, question: Question) -> Answer:
        """Read, in two round trips.

        A script that follows a URL to its image saves one, and takes Redis twice the time: it
        copies every value.
        """
        return follow(question, self._images, self._values)

    def claim(self, images: Sequence[tuple[bytes, bytes]], seconds: float) -> list[bytes | bool]:
        """Claim, in one round trip."""
        keys = [key for pair in images for key in pair]
        command: Command = (
            "EVALSHA",
            _CLAIM.sha1,
            len(keys),
            *keys,
            round(seconds * 1000),
            self._name,
        )
        (found,) = self._link.send([command], _CLAIM)
        claimed = listed(found, len(images))
        return [each if isinstance(each, bytes) else bool(each) for each in claimed]

    def put(self, items: Sequence[Item]) -> None:
        """Write, in one round trip."""
        self._link.send(
            [
                ("DEL", key) if value is None else ("SET", key, value, "EX", seconds)
                for key, value, seconds in items
            ]
        )

    def ping(self) -> None:
        """See whether it answers."""
        self._link.ping()

    def contents(self) -> Contents:
        """Count, by going through all keys, and say what Redis says of its memory."""
        entries = dict.fromkeys(PREFIXES, 0)
        with faults():
            for key in self._link.client.scan_iter(b"pairscore:*", count=_SCANNED):
                for kind, prefix in PREFIXES.items():
                    entries[kind] += key.startswith(prefix)
            memory, stats = self._link.client.info("memory"), self._link.client.info("stats")
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
        with faults():
            some: list[bytes] = []
            for key in self._link.client.scan_iter(b"pairscore:*", count=_SCANNED):
                some.append(key)
                if len(some) == _SCANNED:
                    gone += self._unlink(some)
                    some = []
            return gone + self._unlink(some)

    def _unlink(self, keys: Sequence[bytes]) -> int:
        if keys:
            self._link.client.unlink(*keys)
        return sum(key.startswith(tuple(PREFIXES.values())) for key in keys)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        [answer] = self._link.send([("MGET", *keys)])
        return [v if isinstance(v, bytes) else None for v in listed(answer, len(keys))]
