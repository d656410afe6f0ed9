"""`pairscore score` and hosts: how often they are asked, what that costs, what robots.txt says."""

import json

from tests.e2e.test_command import LOOPBACK, cache, one_line, read, run, server, write_set

__all__ = ["cache", "run", "server"]  # fixtures
ROWS = 15


def test_who_waits_for_a_host_is_told_what_would_change_that(run, server, tmp_path):
    source = write_set(tmp_path, server, ROWS)
    limits = {"PAIRSCORE_FETCH__HOST_LIMITS": "127.0.0.1=2/1"}
    done = run("score", source, *LOOPBACK, "--json", **limits)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seconds"] >= (server.hits.total() - 1) / 2
    assert found["hosts"]["mean_wait_seconds"] > 2
    assert "PAIRSCORE_FETCH__HOST_LIMITS=images.example.org=200/32" in done.stderr
    fast = run("score", source, *LOOPBACK, "--overwrite")
    assert "PAIRSCORE_FETCH__HOST_LIMITS" not in fast.stderr


def test_a_limit_that_is_none_is_one_line_that_says_how_one_looks(run, server, tmp_path):
    source = write_set(tmp_path, server, 1)
    done = run("score", source, PAIRSCORE_FETCH__HOST_LIMITS="example.org:fast")
    assert done.returncode == 2
    line = one_line(done.stderr)
    assert "PAIRSCORE_FETCH__HOST_LIMITS" in line
    assert "*.example.org=50/16" in line


def test_rows_that_robots_txt_forbids_say_so_where_that_is_heeded(run, server, tmp_path):
    server.add("/robots.txt", b"User-agent: pairscore\nDisallow: /\n")
    source = write_set(tmp_path, server, ROWS)
    done = run("score", source, *LOOPBACK, PAIRSCORE_FETCH__ROBOTS="respect")
    rows = read(tmp_path / "challenge_scored.csv")
    assert {row["error"] for row in rows} == {"disallowed: robots.txt"}
    assert done.returncode == 0, done.stderr
    assert server.hits.total() == server.hits["/robots.txt"] == 1
