"""API keys: finds the client whose secret is presented, and sees changes of the file of keys."""

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pairscore.errors import SettingsError
from producer.api.client import Client, Limits
from producer.api.key_file import (
    ID,
    KeyEntry,
    KeyFile,
    Signature,
    newest,
    read_keys,
    signature,
)

_SECRET: Final = re.compile(rf"ps_({ID})_[A-Za-z0-9_-]{{43}}", re.ASCII)
_LOOK_SECONDS: Final = 1.0
_NOBODY: Final = bytes(32)
_log = logging.getLogger(__name__)


def digest(secret: str) -> bytes:
    """SHA-256 of a secret."""
    # A slow hash protects what can be guessed, and nobody guesses 256 random bits.
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    expires: float | None
    client: Client


class Keyring:
    """The keys of a file, which is looked at again when it has changed, at most once a second.

    A file that cannot be used any more leaves the keys as they were, and is logged once. Looking is
    one `stat`, and a read of a small file where that differs: nothing that an event loop has to be
    spared. Belongs to one thread. What is presented is never kept, logged or shown.
    """

    def __init__(
        self,
        path: Path,
        *,
        defaults: Limits = Limits(),  # noqa: B008 (frozen)
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`defaults` are the limits that a client has where its key says nothing.

        Raises:
            SettingsError: the file cannot be used; one line.
        """
        self._path = path
        self._defaults = defaults
        self._wall = wall
        self._clock = clock
        file, self._seen = read_keys(path)
        self._complained_of: Signature | None = self._seen
        self._known = dict(_known(file, defaults))
        self._look_at = clock() + _LOOK_SECONDS

    def find(self, presented: str) -> Client | None:
        """Whose secret this is; None if it is nobody's, revoked or expired."""
        self._look()
        found = _SECRET.fullmatch(presented)
        if found is None:
            return None
        known = self._known.get(found[1])
        # Compared in any case, in constant time: how long this takes says nothing.
        same = hmac.compare_digest(digest(presented), known.digest if known else _NOBODY)
        if known is None or not same:
            return None
        expired = known.expires is not None and known.expires <= self._wall()
        return None if expired else known.client

    def __len__(self) -> int:
        """How many keys there are, expired ones included."""
        return len(self._known)

    def _look(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        seen = signature(self._path)
        if seen == self._seen:
            return
        try:
            file, self._seen = read_keys(self._path)
        except SettingsError as error:
            # Tried again all the same: what was wrong may have been this process.
            if seen != self._complained_of:
                _log.error("%s; the keys known so far stay in use", error)
            self._complained_of = seen
            return
        self._complained_of = self._seen
        self._known = dict(_known(file, self._defaults))
        _log.info("%d API keys are in use", len(self._known))


def _known(file: KeyFile, defaults: Limits) -> Iterator[tuple[str, _Known]]:
    newest_of = newest(file.keys)
    for key in file.keys:
        yield (
            key.id,
            _Known(
                digest=bytes.fromhex(key.sha256),
                expires=None if key.expires_at is None else key.expires_at.timestamp(),
                client=_client(key, newest_of[key.client], defaults),
            ),
        )


def _client(key: KeyEntry, latest: KeyEntry, defaults: Limits) -> Client:
    requests, rows, day = latest.requests_per_second, latest.rows_per_second, latest.rows_per_day
    return Client(
        name=key.client,
        key=key.id,
        limits=Limits(
            defaults.requests_per_second if requests is None else requests,
            defaults.rows_per_second if rows is None else rows,
            defaults.rows_per_day if day is None else day,
        ),
        all_jobs=latest.all_jobs,
    )
