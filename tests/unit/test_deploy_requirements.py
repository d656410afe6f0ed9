"""The lists of packages of the images: what the extras need, as constraints.txt pins it."""

import re
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.installations import packages

FOLDER = ROOT / "deploy" / "requirements"
NAME = re.compile(r"^([a-z0-9-]+)(?:\[[a-z]+\])?==", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    """Each package's lines, without the comments and the indentation of hashes."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if match := NAME.match(line):
            name = match[1]
        if line.strip():
            found[name] = found.get(name, "") + line.strip(" \\") + "\n"
    return found


@pytest.mark.parametrize("service", ["producer", "sink", "worker"])
def test_an_image_has_what_its_service_needs_as_it_is_pinned(service):
    listed = pins(FOLDER / f"{service}.txt")
    pinned = pins(ROOT / "constraints.txt")
    assert packages(service) - {"pairscore"} <= listed.keys()
    for name, lines in listed.items():
        version, *hashes = lines.splitlines()
        expected, *known = pinned[name].splitlines()
        assert version.partition(" ;")[0] == expected.partition(" ;")[0]
        assert set(hashes) == set(known), name


def test_no_image_but_the_workers_has_what_scores():
    for service in ("producer", "sink"):
        assert not pins(FOLDER / f"{service}.txt").keys() & {"numpy", "onnxruntime", "torch"}
    assert pins(FOLDER / "worker.txt").keys() >= {"numpy", "onnxruntime", "torch"}
