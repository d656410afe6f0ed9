"""Puts a cache together from the settings."""

from collections.abc import Callable
from functools import partial
from typing import Final

from pairscore.cache.cache import Cache
from pairscore.cache.codec import Keys
from pairscore.cache.lifetimes import Lifetimes
from pairscore.cache.shared import Place, SharedCache
from pairscore.cache.store import Keeper, Store
from pairscore.settings import CacheSettings, Settings

# A disk that is busy is worth waiting for longer than a Redis, which is asked so as to save time.
_DISK_SECONDS: Final = 2.0
_KEEPER_SECONDS: Final = 10.0


def open_cache(settings: Settings, *, fingerprint: str, dimensions: int) -> Cache:
    """The cache of a model with that fingerprint and that size of embeddings.

    In memory; also in a folder or, where there is none, in Redis, if the settings name one.

    Raises:
        EnvironmentFault: the folder cannot be used.
        SettingsError: the URL of Redis cannot be one.
    """
    keys = Keys(fingerprint, dimensions)
    place = _place(settings, keys.images)
    shared = None if place is None else SharedCache(place, keys, dimensions)
    return Cache(settings.cache.bytes, _lifetimes(settings.cache), shared)


def open_keeper(settings: Settings) -> Keeper | None:
    """What the settings name beside memory, as a whole.

    Raises:
        EnvironmentFault: the folder cannot be used.
        SettingsError: the URL of Redis cannot be one.
    """
    redis = settings.redis.model_copy(update={"timeout": _KEEPER_SECONDS})
    place = _place(settings.model_copy(update={"redis": redis}), b"")
    return None if place is None else place.make()


def _place(settings: Settings, images: bytes) -> Place | None:
    lasting = round(settings.cache.embedding)
    if settings.cache.folder is not None:
        from pairscore.cache.sqlite_store import SqliteStore

        make: Callable[[], Store] = partial(SqliteStore, settings.cache.folder, images=images)
        return Place("the cache's file", make, _DISK_SECONDS, lasting)
    if settings.redis.url is not None:
        from pairscore.cache.redis_store import RedisStore  # only who uses it pays for the import

        url, seconds = settings.redis.url.get_secret_value(), settings.redis.timeout
        make = partial(RedisStore, url, images=images, seconds=seconds)
        return Place("Redis", make, settings.redis.whole, lasting)
    return None


def _lifetimes(settings: CacheSettings) -> Lifetimes:
    return Lifetimes(
        least=settings.least,
        most=settings.most,
        absent=settings.absent,
        unknown_host=settings.unknown_host,
    )
