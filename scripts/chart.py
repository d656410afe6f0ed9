"""Checks the chart in deploy/kubernetes with helm and against Kubernetes' schemas: `make check`.

Once for each file of values in its folder ci/. Where there is no helm it says so and passes; not in
CI. `render` is what tests look at.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import jsonschema
import kubernetes_validate
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "deploy" / "kubernetes"
NO_HELM: Final = "no helm; `make check` has it built where there is Go 1.26, or install helm 3"
VERSIONS: Final = ("1.29", "1.37")
"""The oldest Kubernetes that the chart is for (Chart.yaml), and the newest one known here."""

_SECONDS: Final = 60.0

Manifest: TypeAlias = dict[str, Any]


class HelmError(Exception):
    """Helm refuses the chart, or its values; the text says why."""


@cache
def helm() -> str | None:
    """The program: the one that is installed, or that scripts/helm has built."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("helm") or shutil.which("helm", path=beside)


def run_helm(*arguments: str) -> str:
    """What helm says on its standard output.

    Raises:
        HelmError: it refuses, or is not there.
    """
    program = helm()
    if program is None:
        raise HelmError(NO_HELM)
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise HelmError((done.stdout + done.stderr).strip())
    return done.stdout


def render(*arguments: str, version: str = VERSIONS[-1]) -> list[Manifest]:
    """The manifests that the chart makes of values (`--values FILE`, `--set NAME=VALUE`).

    Raises:
        HelmError: the values are refused.
    """
    text = run_helm("template", "pairscore", str(CHART), "--kube-version", version, *arguments)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def name_of(manifest: Manifest) -> str:
    """Its name; or what the name begins with, where Kubernetes is to find the rest of it."""
    metadata = manifest["metadata"]
    name: str = metadata["name"] if "name" in metadata else metadata["generateName"]
    return name


def complaints(manifest: Manifest, version: str) -> Iterator[str]:
    """What a manifest has that Kubernetes, or who defines its kind, would refuse."""
    name = f"{manifest['kind']} {name_of(manifest)}"
    group, _, api = manifest["apiVersion"].partition("/")
    own = CHART / "ci" / "schemas" / f"{group}-{api}-{manifest['kind']}.json"
    try:
        if own.exists():
            jsonschema.validate(manifest, json.loads(own.read_text(encoding="utf-8")))
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        yield f"{name}: {error.json_path}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield f"{name}: {error.message}"


def check(values: Path) -> Iterator[str]:
    """What is wrong with the chart, as these values have it."""
    given = ("--values", str(values))
    # Helm's lint wants names; the producer's Job has a generateName, which helm does not install.
    lint = ("--strict", "--quiet", "--set", "producer.enabled=false", *given)
    try:
        run_helm("lint", str(CHART), "--kube-version", VERSIONS[-1], *lint)
        for version in VERSIONS:
            for manifest in render(*given, version=version):
                for complaint in complaints(manifest, version):
                    yield f"Kubernetes {version}: {complaint}"
    except HelmError as error:
        yield str(error)


def main() -> int:
    """Check; the exit code."""
    if helm() is None:
        sys.stderr.write(f"chart: not checked: {NO_HELM}\n")
        return 1 if os.environ.get("CI") else 0
    found = [
        f"chart: {values.name}: {complaint}\n"
        for values in sorted((CHART / "ci").glob("*.yaml"))
        for complaint in check(values)
    ]
    sys.stderr.writelines(found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
