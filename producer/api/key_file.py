"""The file of API keys: JSON with one object a key, which has the digest of its secret, never it.

A client may have several keys, which is how they are rotated. Its limits and its `all_jobs` are
those of its newest key in the file (by `created_at`; of two the later one), expired or not,
whichever key is presented.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pairscore.errors import SettingsError

SETTING: Final = "PAIRSCORE_API__KEYS"
ID: Final = "[a-z0-9]{4,32}"
_CLIENT: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LEAST_RATE: Final = 0.001
_MOST_RATE: Final = 1e6
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_MODEL: Final = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

Signature: TypeAlias = tuple[int, ...]
"""Differs where a file was changed, replaced, or given other rights."""


def _rate(value: float) -> float:
    if value and not _LEAST_RATE <= value <= _MOST_RATE:
        raise ValueError(f"must be 0 (any number) or from {_LEAST_RATE} to {_MOST_RATE:,.0f}")
    return value


def _name(value: str) -> str:
    if not _CLIENT.fullmatch(value):
        raise ValueError(
            "must be a letter or digit, then letters, digits, '.', '_' and '-', 64 at most in all"
        )
    return value


_Rate: TypeAlias = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_rate)]


class KeyEntry(BaseModel):
    """One key. `sha256` is of its whole secret, in hex; limits are None where it says nothing."""

    model_config = _MODEL

    id: str = Field(pattern=f"^{ID}$")
    client: Annotated[str, AfterValidator(_name)]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    requests_per_second: _Rate | None = None
    rows_per_second: _Rate | None = None
    rows_per_day: int | None = Field(default=None, ge=0, le=10**12)
    all_jobs: bool = False


class KeyFile(BaseModel):
    """All keys."""

    model_config = _MODEL

    v: Literal[1] = 1
    keys: tuple[KeyEntry, ...] = ()

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        seen: set[str] = set()
        for key in self.keys:
            if key.id in seen:
                raise ValueError(f"two keys have the id {key.id}")
            seen.add(key.id)
        return self

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return self.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


def newest(keys: Iterable[KeyEntry]) -> dict[str, KeyEntry]:
    """The newest key of each client, by the client's name."""
    found: dict[str, KeyEntry] = {}
    for key in keys:
        other = found.get(key.client)
        if other is None or key.created_at >= other.created_at:
            found[key.client] = key
    return found


def signature(path: Path) -> Signature | None:
    """What is compared to see whether a file has changed; None if it cannot be looked at."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def read_keys(path: Path) -> tuple[KeyFile, Signature]:
    """The keys of a file, and its signature as it was then.

    Raises:
        SettingsError: it is not there, not readable, writable for others, or malformed; one line,
            which quotes nothing of the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unusable(path, "is not a file", "name a file")
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_mode & _OTHERS_WRITE:
                raise _unusable(
                    path,
                    "others may write to it, and so give themselves keys",
                    f"chmod go-w {path}",
                )
            content = file.read()
    except FileNotFoundError:
        raise _unusable(
            path, "there is no such file", "make it with `python -m producer keys add CLIENT`"
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise _unusable(path, f"cannot be read: {why}", "let this user read it") from None
    try:
        return KeyFile.model_validate_json(content), _signature(found)
    except ValidationError as error:
        raise _unusable(
            path, f"is malformed: {explained(error)}", "mend it, or put back a copy of it"
        ) from None


def explained(error: ValidationError) -> str:
    """What is wrong first, in one line that quotes no value."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _signature(found: os.stat_result) -> Signature:
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _unusable(path: Path, what: str, remedy: str) -> SettingsError:
    return SettingsError(f"the file of API keys {path} (setting {SETTING}): {what}; {remedy}")
