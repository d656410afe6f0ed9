"""`python -m sink status`: the jobs of a store as a table, as one job's counts, or as JSON."""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from pairscore.errors import InputError
from shared.results import JobStatus, Results, open_results
from shared.settings import StoreSettings
from sink.table import table

_HEAD: Final = (
    *("JOB", "STATE", "ROWS", "PUBLISHED", "SCORED", "FAILED", "MISSING", "ROWS/S"),
    "RESULT",
)
_LEFT: Final = {"JOB", "STATE", "RESULT"}
_SPARE: Final = ("RESULT", "ROWS/S", "PUBLISHED")


def show_status(
    settings: StoreSettings, job: str | None, *, as_json: bool, width: int | None = None
) -> str:
    """What is stored, all jobs or one, as text that ends with a line end.

    A table leaves out what can be done without to be no wider than `width` characters.

    Raises:
        InputError: there is no such job.
        EnvironmentFault: the store cannot be read.
    """
    with closing(open_results(settings)) as results:
        if job is None:
            found = results.jobs()
            text = _json_of_all(results, found) if as_json else _table(results, found, width)
        else:
            status = results.job(job)
            if status is None:
                raise InputError(
                    f"there is no job {job!r} in {results.where}; `python -m sink status` lists "
                    "those that there are"
                )
            text = json.dumps(as_dict(status)) if as_json else describe(status)
    return f"{text}\n"


def as_dict(status: JobStatus) -> dict[str, Any]:
    """One job for programs."""
    rate = status.rows_per_second
    return {
        "job": status.job,
        "source": status.source,
        "state": status.state,
        "rows": status.rows,
        "rows_published": status.rows_published,
        "scored": status.scored,
        "failed": {reason.value: rows for reason, rows in _by_count(status)},
        "missing": missing(status),
        "rows_per_second": None if rate is None else round(rate, 2),
        "models": dict(status.models),
        "result": status.result,
        "created_at": status.created_at.isoformat(),
        "updated_at": status.updated_at.isoformat(),
    }


def missing(status: JobStatus) -> int:
    """Rows that the job has, as far as that is known, and that are not stored."""
    return max(0, (status.rows_published if status.rows is None else status.rows) - status.done)


def describe(status: JobStatus) -> str:
    """One job for people: rows in = scored + failed by reason + missing."""
    counts: list[tuple[str, str]] = [
        ("rows in", "not known yet" if status.rows is None else f"{status.rows:,}"),
        ("published", f"{status.rows_published:,}"),
        ("scored", f"{status.scored:,}"),
        ("failed", f"{status.done - status.scored:,}"),
        *((f"  {reason.value}", f"{rows:,}") for reason, rows in _by_count(status)),
        ("missing", f"{missing(status):,}"),
        ("rows/s", _rate(status)),
    ]
    lines = [f"job {status.job}: {_state(status)}"]
    lines += [f"{what:<22}{value:>14}" for what, value in counts]
    if status.source:
        lines.append(f"{'source':<24}{status.source}")
    lines += [f"{'model':<24}{name} ({rows:,} rows)" for name, rows in status.models.items()]
    lines += [
        f"{'begun':<24}{_time(status.created_at)}",
        f"{'last stored':<24}{_time(status.updated_at)}",
        f"{'result':<24}{status.result or 'not yet'}",
    ]
    return "\n".join(lines)


def _state(status: JobStatus) -> str:
    left = missing(status)
    if status.state == "open":
        return "open, rows are still being published"
    if status.state == "closed" and left:
        return f"closed, {left:,} {'outcome is' if left == 1 else 'outcomes are'} still to come"
    if status.state == "closed":
        return "closed, every outcome is stored, the result is about to be written"
    return status.state


def _time(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _by_count(status: JobStatus) -> list[tuple[Any, int]]:
    return sorted(status.failed.items(), key=lambda item: (-item[1], item[0].value))


def _json_of_all(results: Results, found: Sequence[JobStatus]) -> str:
    return json.dumps(
        {
            "store": results.where,
            "jobs": [as_dict(status) for status in found],
            "duplicates": results.duplicates(),
            "rejected": results.rejected(),
        }
    )


def _table(results: Results, found: Sequence[JobStatus], width: int | None) -> str:
    if found:
        lines, gone = table(_HEAD, [*map(_cells, found)], left=_LEFT, width=width, spare=_SPARE)
        if gone:
            lines.append(f"no room for {', '.join(gone)}: `python -m sink status JOB` shows them")
    else:
        lines = [f"no jobs in {results.where}: no sink has stored anything there yet"]
    if rejected := results.rejected():
        lines.append(f"{rejected:,} records were no messages of ours and are kept aside")
    if duplicates := results.duplicates():
        lines.append(f"{duplicates:,} outcomes came again for rows that had one and were left out")
    return "\n".join(lines)


def _cells(status: JobStatus) -> tuple[str, ...]:
    return (
        status.job,
        status.state,
        "?" if status.rows is None else f"{status.rows:,}",
        f"{status.rows_published:,}",
        f"{status.scored:,}",
        f"{status.done - status.scored:,}",
        f"{missing(status):,}",
        _rate(status),
        status.result or "",
    )


def _rate(status: JobStatus) -> str:
    rate = status.rows_per_second
    return "?" if rate is None else f"{rate:,.1f}"
