"""`pairscore doctor`: what is installed, what this machine can do, what would be used and why."""

import json
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import pycurl

from pairscore import __version__
from pairscore.clip import Capabilities, cache_folder, choose, find_local, probe
from pairscore.errors import PairscoreError
from pairscore.settings import Settings

_PACKAGES: Final = ("torch", "transformers", "onnxruntime", "pillow", "simplejpeg", "numpy")
_NOTABLE: Final = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Sections of (what, finding), and the dead end that scoring would come to, if any."""

    sections: dict[str, dict[str, str]]
    dead_end: PairscoreError | None


def run_doctor(settings: Settings, *, as_json: bool) -> None:
    """Print the diagnosis.

    Raises:
        PairscoreError: with these settings nothing could be scored; after the rest is printed.
    """
    found = diagnose(settings)
    if as_json:
        problem = str(found.dead_end) if found.dead_end else None
        sys.stdout.write(json.dumps({**found.sections, "problem": problem}) + "\n")
    else:
        for section, findings in found.sections.items():
            sys.stdout.write(f"{section}\n")
            for what, finding in findings.items():
                sys.stdout.write(f"  {what:<16}{finding}\n")
    if found.dead_end is not None:
        raise found.dead_end


def diagnose(settings: Settings) -> Diagnosis:
    """Look around; nothing is downloaded, loaded or written."""
    capabilities = probe()
    sections = {"versions": _versions(), "machine": _machine(capabilities)}
    try:
        sections["model"] = _model(settings)
        choice = choose(settings, capabilities)
    except PairscoreError as error:
        return Diagnosis(sections, error)
    chosen = zip(("device", "precision", "backend"), choice.why, strict=True)
    sections["what would be used"] = {what: why.removeprefix(f"{what} ") for what, why in chosen}
    return Diagnosis(sections, None)


def _versions() -> dict[str, str]:
    own = {"pairscore": __version__, "python": platform.python_version()}
    others = {package: _version(package) for package in _PACKAGES}
    curl = pycurl.version_info()
    protocols = "HTTP/2" if curl[4] & pycurl.VERSION_HTTP2 else "HTTP/1.1 only"
    return {**own, **others, "libcurl": f"{curl[1]} ({curl[5]}, {protocols})"}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _machine(capabilities: Capabilities) -> dict[str, str]:
    flags = [flag for flag in _NOTABLE if flag in capabilities.cpu_flags]
    return {
        "system": f"{platform.system()} on {capabilities.machine}",
        "cores": str(capabilities.cores),
        "CPU extensions": ", ".join(flags) or "none that matter here",
        "CUDA GPU": "yes" if capabilities.cuda else "no",
        "Apple GPU": "yes" if capabilities.mps else "no",
    }


def _model(settings: Settings) -> dict[str, str]:
    folder = find_local(settings.model)
    exports = cache_folder(settings.cache_dir)
    return {
        "name": settings.model,
        "files": str(folder) if folder else "not on this machine; would be downloaded when scoring",
        "exports": f"{exports} ({_size(exports)})",
    }


def _size(folder: Path) -> str:
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{total / 1e6:,.0f} MB" if total else "empty"
