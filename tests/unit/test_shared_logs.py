"""Logs: one line a record, whatever is in it, with all that the call gave."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.logs import JsonFormatter, TextFormatter

SECONDS = 20.0

LOGGING = """
import logging, sys, warnings
from shared.settings import TelemetrySettings
from shared.telemetry.logs import configure_logging
logging.basicConfig(level="DEBUG", format="not so: %(message)s")
settings = TelemetrySettings(**dict(pair.split("=") for pair in sys.argv[1:]))
for _ in range(2):
    configure_logging(settings, "sink")
log = logging.getLogger("sink.loop")
log.debug("debug")
log.info("stored %d rows", 3, extra={"job": "j"})
warnings.warn("old")
"""


class Colour(StrEnum):
    RED = "red"


def record(message: str = "hello", **extra) -> logging.LogRecord:
    log = logging.getLogger("worker.loop")
    return log.makeRecord(log.name, logging.INFO, "file.py", 1, message, (), None, extra=extra)


def as_json(given: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter("worker").format(given)
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


def as_text(given: logging.LogRecord) -> str:
    return TextFormatter("worker").format(given)


def failed(how: Exception) -> logging.LogRecord:
    try:
        raise how
    except type(how):
        log = logging.getLogger("worker.loop")
        return log.makeRecord(log.name, logging.ERROR, "file.py", 1, "oh", (), sys.exc_info())


def run(*options: str) -> list[str]:
    command = [sys.executable, "-c", LOGGING, *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=True
    ).stderr.splitlines()


def test_a_line_says_when_what_and_who():
    given = record("a %s")
    found = as_json(given)
    when = datetime.fromisoformat(found.pop("ts"))
    assert abs(when - datetime.fromtimestamp(given.created, UTC)).total_seconds() < 0.001
    assert found == {
        "level": "info",
        "service": "worker",
        "logger": "worker.loop",
        "message": "a %s",
    }


def test_everything_that_the_call_gave_is_a_field():
    found = as_json(record(job="j", rows=3, partition=0, ok=True, why=None, part=0.5))
    assert {name: found[name] for name in ("job", "rows", "partition", "ok", "why", "part")} == {
        "job": "j",
        "rows": 3,
        "partition": 0,
        "ok": True,
        "why": None,
        "part": 0.5,
    }


def test_what_json_has_no_word_for_is_told_anyway():
    found = as_json(
        record(
            nan=float("nan"),
            deep=[float("inf"), {1: {float("-inf")}}],
            colour=Colour.RED,
            error=ValueError("x"),
            half="\ud800",
            raw=b"\xff",
        )
    )
    assert found["nan"] == "nan"
    assert found["deep"] == ["inf", {"1": ["-inf"]}]
    assert found["colour"] == "red"
    assert found["error"] == "x"
    assert found["half"] == "\ud800"
    assert found["raw"] == "b'\\xff'"


def test_a_field_of_the_call_replaces_none_of_ours():
    found = as_json(record(service="other", level="none", ts=0, logger="x"))
    assert (found["service"], found["level"], found["logger"]) == (
        "worker",
        "info",
        "worker.loop",
    )
    assert found["ts"] != 0


def test_an_exception_is_one_field():
    found = as_json(failed(RuntimeError("two\nlines")))
    assert found["message"] == "oh"
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("RuntimeError: two\nlines")


@given(st.text(), st.text())
def test_no_text_makes_a_second_line(message, value):
    given_record = record(message.replace("%", "%%"), field=value)
    assert as_json(given_record)["field"] == value
    assert as_text(given_record).isprintable()


def test_text_is_for_people():
    line = as_text(record("stored", job="j", rows=3, why="no room", none=""))
    time, rest = line.split(" ", 1)
    assert len(time) == len("12:30:15")
    assert rest == "info     worker: stored job=j rows=3 why='no room' none=''"


def test_text_gives_the_terminal_no_orders():
    line = as_text(record("\x1b[2J\r\nfake line", url="\x1b]0;title\x07"))
    assert line.isprintable()
    assert "\\x1b[2J\\r\\nfake line" in line


def test_text_shows_tracebacks_and_stacks_below():
    assert as_text(failed(RuntimeError("x"))).endswith("\nRuntimeError: x")
    lines = as_text(record("stalled", stacks="thread a:\n  b", rows=1)).splitlines()
    assert lines[0].endswith("stalled rows=1")
    assert lines[1:] == ["thread a:", "  b"]


def test_lines_go_to_stderr_once_and_warnings_of_python_with_them():
    first, second = map(json.loads, run("log_format=json"))
    assert (first["message"], first["job"], first["service"]) == ("stored 3 rows", "j", "sink")
    assert second["logger"] == "py.warnings"
    assert "UserWarning: old" in second["message"]


def test_lines_go_where_stderr_is_at_the_moment():
    script = (
        LOGGING
        + """
import io
sys.stderr = io.StringIO()
log.info("into the bar")
sys.stdout.write(sys.stderr.getvalue())
"""
    )
    command = [sys.executable, "-c", script, "log_format=text"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert shown.stdout.endswith("sink: into the bar\n")
    assert "into the bar" not in shown.stderr


def test_the_level_is_the_settings():
    assert len(run("log_format=json", "log_level=debug")) == 3
    assert len(run("log_format=json", "log_level=warning")) == 1


def test_text_can_be_asked_for():
    assert run("log_format=text")[0].endswith("info     sink: stored 3 rows job=j")


def test_a_terminal_gets_text_and_a_pipe_json():
    assert run("log_format=auto")[0].startswith("{")
    ours, its = pty.openpty()
    with io.FileIO(ours) as terminal:
        command = [sys.executable, "-c", LOGGING, "log_format=auto"]
        subprocess.run(command, stderr=its, timeout=SECONDS, check=True)
        os.close(its)
        shown = terminal.read(4096) or b""
    assert b"info     sink: stored 3 rows job=j\r\n" in shown
