"""The commands that the README starts with, as processes."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PAIRSCORE_", "MAKE"))}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_make_demo_shows_what_came_out(tmp_path: Path) -> None:
    ended = make("demo", f"DIR={tmp_path / 'data'}")
    assert ended.returncode == 0, ended.stderr
    for words in ("rows in", "scored", "malformed_row", "rows/s", "result", "best 5", "worst 5"):
        assert words in ended.stdout
    assert len((tmp_path / "data" / "challenge_scored.csv").read_bytes().splitlines()) > 300


def test_make_score_needs_a_file_and_says_so() -> None:
    ended = make("score")
    assert ended.returncode == 2
    assert "make score CSV=" in ended.stderr


def test_make_alone_lists_the_targets() -> None:
    listed = make().stdout
    for target in ("setup", "demo", "score", "test", "check", "bench"):
        assert f"make {target}" in listed
