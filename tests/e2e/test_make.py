"""The commands that the README starts with, as processes."""

import csv
import os
import subprocess
from collections import Counter
from pathlib import Path

from deploy import local
from tests.services import had

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


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_make_demo_takes_every_row_through_a_fleet(tmp_path: Path) -> None:
    with had(local.kafka(native=True)):
        pass
    folder = tmp_path / "data"
    ended = make("demo", f"DIR={folder}")
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    for words in (
        "Kafka: ",
        "2 workers with the demo model, and a sink",
        "rows in                       300",
        "best 5",
        "worst 5",
        f"each of the 300 rows is as {folder}/expected.csv says",
    ):
        assert words in ended.stdout
    expected = Counter(row["expected"] for row in read(folder / "expected.csv"))
    assert expected.total() == 300
    [result] = (folder / "results").glob("*/challenge_scored.csv")
    assert f"result                  {result}" in ended.stdout
    assert Counter(row["error"].partition(":")[0] for row in read(result)) == expected


def test_make_demo_local_shows_what_came_out(tmp_path: Path) -> None:
    ended = make("demo-local", f"DIR={tmp_path / 'data'}")
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
    for target in ("setup", "demo", "demo-local", "fleet", "score", "test", "faults", "check"):
        assert f"make {target} " in listed
