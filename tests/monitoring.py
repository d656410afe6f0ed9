"""What deploy/monitoring has, read as the programs read it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.local import Unavailable
from tests.commands import ROOT

FOLDER = ROOT / "deploy" / "monitoring"


def document(path: Path) -> Any:
    """A file of YAML."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """The rules of all files, alerts and others."""
    return [
        rule
        for path in sorted((FOLDER / "rules").glob("*.yml"))
        for group in document(path)["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    found = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert len(found) == sum("alert" in rule for rule in rules())
    return found


@contextmanager
def program(name: str) -> Iterator[str]:
    """Where one of Prometheus' programs is.

    Raises:
        Unavailable: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed (Debian: apt install prometheus)")
    yield found
