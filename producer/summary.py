"""The closing words of a command, for people: on stdout, and nothing else is."""

from producer.publication import Published
from shared.results import JobStatus


def of_publishing(published: Published) -> str:
    """What was published, when it is not waited for."""
    rows = "1 row" if published.rows == 1 else f"{published.rows:,} rows"
    if published.was_closed:
        what = f"job {published.job}: already published, {rows}"
    else:
        before = f", {published.start:,} of them before" if published.start else ""
        what = f"job {published.job}: {rows} published{before}"
    return f"{what}\nthe same command with --wait shows its outcomes come"


def of_job(status: JobStatus) -> str:
    """What came of a complete job: rows in = scored + failed by reason."""
    failed = sorted(status.failed.items(), key=lambda item: (-item[1], item[0].value))
    counts = [("rows in", status.done), ("scored", status.scored)]
    counts.append(("failed", status.done - status.scored))
    counts += [(f"  {reason.value}", count) for reason, count in failed]
    lines = [f"{what:<22}{count:>11,}" for what, count in counts]
    if (rate := status.rows_per_second) is not None:
        lines.append(f"{'rows/s':<22}{rate:>11,.1f}")
    lines.append(f"{'job':<22}  {status.job}")
    lines.append(f"{'result':<22}  {status.result or ''}")
    return "\n".join(lines)
