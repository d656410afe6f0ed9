"""The wheel holds all that scoring needs, and nothing of the repository around it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "wheel", ".", *options], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_the_demo_model_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"pairscore"}
    assert "pairscore/demo/model/model.safetensors" in names
    assert "pairscore/py.typed" in names
    assert wheel.stat().st_size < 8_000_000


def test_installed_wheel_makes_and_scores_the_demo(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are this environment's; the package itself is the wheel's."""
    target = tmp_path / "site"
    options = ("--no-deps", "--quiet", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    packages = sysconfig.get_path("purelib")
    start = (
        f"import sys; sys.path[:0] = [{str(target)!r}]; sys.path.append({packages!r});"
        "from pairscore.__main__ import main; import pairscore;"
        "assert pairscore.__file__.startswith(sys.path[0]), pairscore.__file__; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    ended = subprocess.run(
        [sys.executable, "-c", start, "demo", "data", "--rows", "40", "--score"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "best 5" in ended.stdout
    assert (tmp_path / "data" / "challenge_scored.csv").exists()
