"""Installations that have less than this one: the packages of some extras, and no others."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import ROOT


def install(folder: Path, *extras: str) -> dict[str, str]:
    """Have `folder` hold what `pip install pairscore[EXTRAS]` brings, by links; an environment.

    It is that of a `PYTHON`, which finds nothing else.
    """
    folder.mkdir()
    for name in packages(*extras) - {"pairscore"}:
        for path in _contents(name):
            link = folder / path.name
            if not link.exists():
                link.symlink_to(path)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PAIRSCORE_", "COVERAGE"))}
    return clean | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def packages(*extras: str) -> set[str]:
    """The names of what `pip install pairscore[EXTRAS]` brings on this machine."""
    names: set[str] = set()
    _require("pairscore", frozenset(extras), names, set())
    return names


PYTHON = [sys.executable, "-S"]
"""What knows of no other installed packages."""


def _require(
    name: str, extras: frozenset[str], names: set[str], seen: set[tuple[str, frozenset[str]]]
) -> None:
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    names.add(name)
    for text in distribution(name).requires or ():
        needed = Requirement(text)
        marker = needed.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in extras or {""}):
            _require(canonicalize_name(needed.name), frozenset(needed.extras), names, seen)


def _contents(name: str) -> Iterator[Path]:
    """The folders and modules of a distribution, directly where all are."""
    found = distribution(name)
    for file in found.files or ():
        first = file.parts[0]
        if first not in {"..", "__pycache__"}:
            yield Path(str(found.locate_file(first)))
