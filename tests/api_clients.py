"""Keys, clients and clocks for tests of who may call the API, and how much."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from producer.api.client import Client, Limits
from producer.api.keys import digest

EPOCH = 1_764_000_000.0


class Clock:
    """Seconds, which pass when a test says so."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def a_client(name: str = "", **limits: Any) -> Client:
    """One of those limits, whom no other test knows."""
    return Client(name or f"c{secrets.token_hex(8)}", "k1", Limits(**limits))


def a_key(client: str = "acme", **values: Any) -> tuple[str, dict[str, Any]]:
    """A secret, and its entry in the file."""
    name = values.pop("id", secrets.token_hex(5))
    secret = f"ps_{name}_{secrets.token_urlsafe(32)}"
    entry = {
        "id": name,
        "client": client,
        "sha256": digest(secret).hex(),
        "created_at": moment(EPOCH),
        **values,
    }
    return secret, entry


def write_keys(path: Path, *entries: dict[str, Any], mode: int = 0o600) -> None:
    """Put a file of keys in place of whatever is there."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"v": 1, "keys": entries}))
    draft.chmod(mode)
    draft.replace(path)


def moment(seconds: float) -> str:
    """A time as the file has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
