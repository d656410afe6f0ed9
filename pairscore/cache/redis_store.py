"""Entries in Redis, with scripts for what would take two round trips."""

import uuid
from collections.abc import Sequence
from typing import Final

from pairscore.cache.codec import DIGEST, IMAGE_OF_URL, PREFIXES
from pairscore.cache.store import Answer, Contents, Item, Question, names_image
from pairscore.guard.redis_link import Command, RedisLink, Script, faults, listed

# Reads what URLs led to, and the images of those that led to one. MGET takes a key of another type
# for one that is not there.
_FOLLOW: Final = Script(f"""
local values, images = redis.call('MGET', unpack(KEYS)), {{}}
for _, value in ipairs(values) do
  if value and string.byte(value, 2) == {IMAGE_OF_URL[0]} then
    images[#images + 1] = ARGV[1] .. string.sub(value, {DIGEST.start + 1}, {DIGEST.stop})
  end
end
return {{values, #images > 0 and redis.call('MGET', unpack(images)) or images}}
""")
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
        """Read, in one round trip."""
        urls, captions = question.urls, question.captions
        commands: list[Command] = []
        if urls:
            commands.append(("EVALSHA", _FOLLOW.sha1, len(urls), *urls, self._images))
        if captions:
            commands.append(("MGET", *captions))
        answers = self._link.send(commands, _FOLLOW)
        found, images = listed(answers[0], 2) if urls else ([], [])
        known = listed(answers[-1], len(captions)) if captions else []
        values = _values(found, len(urls))
        named = iter(_values(images, sum(map(names_image, values))))
        pairs = [(each, next(named) if names_image(each) else None) for each in values]
        return Answer(pairs, _values(known, len(captions)))

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


def _values(answer: object, count: int) -> list[bytes | None]:
    return [each if isinstance(each, bytes) else None for each in listed(answer, count)]
