"""Logs on stderr: one JSON object a line, or text for people where that is a terminal."""

import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from shared.settings import TelemetrySettings

_OF_EVERY_RECORD: Final = frozenset(
    logging.LogRecord("", 0, "", 0, "", None, None).__dict__.keys()
    | {"message", "asctime", "taskName"}
)
_MULTILINE: Final = frozenset({"stacks"})


def configure_logging(settings: TelemetrySettings, service: str) -> None:
    """Send the process's logs to stderr, warnings of Python included, in place of where they went.

    A line has `ts` (UTC, RFC 3339), `level`, `service`, `logger`, `message`, everything that the
    call gave as `extra`, and `exception` where there is one.
    """
    handler = _StderrHandler()
    handler.setFormatter(_formatter(settings, service, sys.stderr))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def row_ranges(rows: Iterable[tuple[str, int]]) -> Mapping[str, str]:
    """The first and the last row of each job, such as `3-917`, of jobs' names and rows."""
    ranges: dict[str, tuple[int, int]] = {}
    for job, row in rows:
        first, last = ranges.get(job, (row, row))
        ranges[job] = min(first, row), max(last, row)
    return {job: f"{first}-{last}" for job, (first, last) in ranges.items()}


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a progress bar puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _formatter(settings: TelemetrySettings, service: str, stream: TextIO) -> logging.Formatter:
    text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    return TextFormatter(service) if text else JsonFormatter(service)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII, whatever is in it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, object] = {
            "ts": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extra(record):
            fields.setdefault(name, _plain(value))
        if (trace := _exception(self, record)) is not None:
            fields["exception"] = trace
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """A line for people; only tracebacks and stacks take more than one."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        given = dict(_extra(record))
        below = [str(given.pop(name)) for name in sorted(_MULTILINE & given.keys())]
        if (trace := _exception(self, record)) is not None:
            below.append(trace)
        shown = "".join(f" {name}={_shown(value)}" for name, value in given.items())
        head = (
            f"{_time(record).astimezone():%H:%M:%S} {record.levelname.lower():<8}"
            f" {self._service}: {_printable(record.getMessage())}{shown}"
        )
        return "\n".join([head, *below])


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    for name, value in record.__dict__.items():
        if name not in _OF_EVERY_RECORD:
            yield name, value


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    if record.exc_info and record.exc_info[0] is not None:
        return formatter.formatException(record.exc_info)
    return record.exc_text or None


def _plain(value: object) -> object:
    """The same without what JSON has no word for: infinities, NaN, keys that are no strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _shown(value: object) -> str:
    text = str(value)
    return _printable(text) if text and " " not in text else repr(text)


def _printable(text: str) -> str:
    # What came from outside may hold line breaks, or orders for the terminal.
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
