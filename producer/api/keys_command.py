"""What `python -m producer keys` does: adds keys to their file, lists them, and revokes them.

The file is replaced whole, so that an API that is reading it sees the old one or the new one.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from filelock import FileLock, Timeout
from pydantic import ValidationError

from pairscore.csv_file.output import sync_folder
from pairscore.errors import EnvironmentFault, InputError
from producer.api.key_file import KeyEntry, KeyFile, explained, newest, read_keys
from producer.api.keys import digest

_LOCK_SECONDS: Final = 10.0
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 5
_RIGHTS: Final = 0o600


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to be added; what is None is as with the newest key that its client has."""

    client: str
    days: int | None = None
    """For how long it is good; None is for ever."""

    requests_per_second: float | None = None
    rows_per_second: float | None = None
    rows_per_day: int | None = None
    all_jobs: bool | None = None


def add_key(path: Path, wanted: Wanted, now: datetime | None = None) -> str:
    """Add a key, in a new file where there is none; its secret, which is nowhere else.

    Raises:
        InputError: the client's name or a limit is none that can be had.
        SettingsError: the file cannot be used.
        EnvironmentFault: the file cannot be written.
    """
    now = now or datetime.now(UTC)
    with _changing(path) as place:
        keys = read_keys(place)[0].keys if place.exists() else ()
        taken = {key.id for key in keys}
        while (name := secrets.token_hex(_ID_BYTES)) in taken:
            pass
        secret = f"ps_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        entry = _entry(name, secret, wanted, newest(keys).get(wanted.client), now)
        _write(place, KeyFile(keys=(*keys, entry)))
    return secret


def list_keys(path: Path, now: datetime | None = None) -> list[str]:
    """A table of the keys, as lines; the limits are those of their clients.

    Raises:
        SettingsError: the file cannot be used.
    """
    now = now or datetime.now(UTC)
    keys = read_keys(path)[0].keys
    newest_of = newest(keys)
    rows = [
        ("ID", "CLIENT", "CREATED", "EXPIRES", "REQUESTS/S", "ROWS/S", "ROWS/DAY", "JOBS"),
        *(_row(key, newest_of[key.client], now) for key in keys),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def revoke_key(path: Path, name: str) -> KeyEntry:
    """Take a key out of the file, by its id; what it was.

    Raises:
        InputError: there is no such key.
        SettingsError: the file cannot be used.
        EnvironmentFault: the file cannot be written.
    """
    with _changing(path) as place:
        keys = read_keys(place)[0].keys
        revoked = next((key for key in keys if key.id == name), None)
        if revoked is None:
            # A secret given by mistake is not shown.
            raise InputError(f"{path}: no key has this id; `python -m producer keys list` has all")
        _write(place, KeyFile(keys=tuple(key for key in keys if key is not revoked)))
    return revoked


def _entry(
    name: str, secret: str, wanted: Wanted, former: KeyEntry | None, now: datetime
) -> KeyEntry:
    given = {
        "requests_per_second": wanted.requests_per_second,
        "rows_per_second": wanted.rows_per_second,
        "rows_per_day": wanted.rows_per_day,
        "all_jobs": wanted.all_jobs,
    }
    if former is not None:
        given = {
            field: getattr(former, field) if value is None else value
            for field, value in given.items()
        }
    now = now.replace(microsecond=0)
    values = {
        "id": name,
        "client": wanted.client,
        "sha256": digest(secret).hex(),
        "created_at": now,
        "expires_at": None if wanted.days is None else now + timedelta(days=wanted.days),
        **{field: value for field, value in given.items() if value is not None},
    }
    try:
        return KeyEntry.model_validate(values)
    except ValidationError as error:
        raise InputError(f"no key was added: {explained(error)}") from None


def _row(key: KeyEntry, latest: KeyEntry, now: datetime) -> tuple[str, ...]:
    expires = "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d}"
    if key.expires_at is not None and key.expires_at <= now:
        expires += " (expired)"
    return (
        key.id,
        key.client,
        f"{key.created_at:%Y-%m-%d}",
        expires,
        _limit(latest.requests_per_second),
        _limit(latest.rows_per_second),
        _limit(latest.rows_per_day),
        "all" if latest.all_jobs else "own",
    )


def _limit(value: float | None) -> str:
    if value is None:
        return "default"
    return f"{value:,g}" if value else "any"


@contextmanager
def _changing(path: Path) -> Iterator[Path]:
    """Keep others from changing the file; gives where it is, by whatever links.

    Raises:
        EnvironmentFault: the folder cannot be written, or another change does not end.
    """
    place = path.resolve()
    beside = place.with_name(f"{place.name}.lock")
    try:
        beside.touch(_RIGHTS)  # FileLock takes a folder that refuses new files for another's lock
        with FileLock(beside, timeout=_LOCK_SECONDS):
            yield place
    except Timeout:
        raise EnvironmentFault(
            f"{path}: another command is changing it; try again when it has ended"
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: cannot be written: {error.strerror or error}; choose a folder that can"
        ) from None


def _write(place: Path, keys: KeyFile) -> None:
    handle, name = mkstemp(prefix=f".{place.name}.", dir=place.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(keys.to_bytes())
            file.flush()
            _as_before(file.fileno(), place)
            os.fsync(file.fileno())
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def _as_before(handle: int, place: Path) -> None:
    # An API that runs as another user reads the file by its group, or owns it.
    with suppress(FileNotFoundError):
        before = place.stat()
        with suppress(PermissionError):
            os.fchown(handle, before.st_uid, before.st_gid)
        os.fchmod(handle, before.st_mode & 0o777)
