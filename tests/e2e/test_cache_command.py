"""`--cache` and `pairscore cache`: a file scored again costs nothing, and what is kept can go."""

import json
from pathlib import Path

import pytest

from tests.e2e.test_command import (
    LOOPBACK,
    cache,
    one_line,
    read,
    run,
    server,
    write_set,
)

__all__ = ["cache", "run", "server"]  # fixtures
ROWS = 30
IMAGES = 20


@pytest.fixture(params=["folder", "redis"])
def place(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("own_redis").url
    return str(tmp_path / "kept")


def test_a_file_that_is_scored_again_is_neither_downloaded_nor_embedded(
    run, server, tmp_path, place
):
    source = write_set(tmp_path, server, ROWS)
    # As long as it takes on a busy machine.
    options = (*LOOPBACK, "--cache", place, "--overwrite")
    first = run("score", source, *options, PAIRSCORE_REDIS__TIMEOUT="5")
    assert first.returncode == 0, first.stderr
    rows, hits = read(tmp_path / "challenge_scored.csv"), server.hits.total()
    assert hits == IMAGES
    again = run("score", source, *options, "--json", PAIRSCORE_REDIS__TIMEOUT="5")
    assert again.returncode == 0, again.stderr
    assert server.hits.total() == hits
    found = json.loads(again.stdout)["cache"]
    assert found["image"]["misses"] == found["caption"]["misses"] == found["url"]["misses"] == 0
    assert found["shared"]["errors"] == 0
    assert found["shared"]["hits"] >= IMAGES
    for row, other in zip(rows, read(tmp_path / "challenge_scored.csv"), strict=True):
        assert float(row["similarity"]) == pytest.approx(float(other["similarity"]), abs=1e-3)
    third = run("score", source, *options, PAIRSCORE_REDIS__TIMEOUT="5")
    lines = [line.split() for line in third.stdout.splitlines()]
    assert ["captions", "known", str(ROWS), "of", str(ROWS)] in lines


def test_what_is_kept_is_counted_and_forgotten(run, server, tmp_path, place):
    assert run("cache", "clear", "--cache", place).returncode == 0
    source = write_set(tmp_path, server, ROWS)
    assert run("score", source, *LOOPBACK, "--cache", place).returncode == 0
    shown = run("cache", "stats", "--cache", place, "--json")
    entries = {"url": IMAGES, "image": IMAGES, "caption": ROWS}
    assert json.loads(shown.stdout)["entries"] == entries
    assert json.loads(shown.stdout)["bytes"] > 0
    table = run("cache", "stats", "--cache", place).stdout
    assert ["captions", str(ROWS)] in [line.split() for line in table.splitlines()]
    cleared = run("cache", "clear", "--cache", place)
    assert cleared.stdout == f"{sum(entries.values())} entries are forgotten\n"
    shown = run("cache", "stats", "--cache", place, "--json")
    assert set(json.loads(shown.stdout)["entries"].values()) == {0}


def test_without_a_name_there_is_no_cache_to_look_at(run):
    for what in ("stats", "clear"):
        ended = run("cache", what)
        assert ended.returncode == 2
        assert "--cache" in one_line(ended.stderr)


@pytest.mark.parametrize(
    ("named", "code", "said"),
    [
        ("http://e.org", 2, "--cache: must be a URL such as redis://"),
        ("redis://user:secret@127.0.0.1:1/0", 3, "cannot be used"),
        ("redis://user:secret@127.0.0.1:99999/0", 2, "Port out of range"),
        ("file", 3, "cannot be used as a cache"),
    ],
)
def test_a_cache_that_cannot_be_had_is_said_in_one_line(run, tmp_path, named, code, said):
    (tmp_path / "file").touch()
    ended = run("cache", "stats", "--cache", named)
    assert ended.returncode == code
    assert said in one_line(ended.stderr)
    assert "secret" not in ended.stderr


def test_scoring_refuses_a_folder_that_cannot_be_used_and_goes_on_without_redis(
    run, server, tmp_path
):
    source = write_set(tmp_path, server, 3)
    Path(tmp_path / "file").touch()
    ended = run("score", source, *LOOPBACK, "--cache", "file")
    assert ended.returncode == 3
    assert "cannot be used as a cache" in one_line(ended.stderr)
    ended = run("score", source, *LOOPBACK, "--cache", "redis://127.0.0.1:1")
    assert ended.returncode == 0
    assert [row["error"] for row in read(tmp_path / "challenge_scored.csv")] == [""] * 3
