"""`pairscore score`: a plan and settings to a file, with progress and a closing summary."""

import json
import sys
import time
from typing import Final

from rich.console import Console

from pairscore import garbage
from pairscore.cache.stats import LookUpStats
from pairscore.cli.progress import reporter
from pairscore.csv_file import Plan, Summary, run
from pairscore.fetch import FetchStats
from pairscore.fetch.stats import Hold
from pairscore.pair import Reason
from pairscore.settings import FetchSettings, Settings

_NOTABLE_WAIT: Final = 2.0


def run_score(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Score what `plan` says; progress goes to stderr, the summary alone to stdout."""
    errors = Console(stderr=True, soft_wrap=True)
    for note in plan.notes:
        errors.out(note, highlight=False)
    # Only now: loading what scores takes seconds that a mistake in a file name should not cost.
    from pairscore.scorer import Scorer

    with Scorer(settings) as scorer:
        garbage.set_aside()
        model = scorer.model
        errors.out(
            f"model: {model.name} on {model.device}, {model.precision} through {model.backend} "
            f"({scorer.fingerprint})",
            highlight=False,
        )
        cpu = time.process_time()
        try:
            with reporter(errors, plan.rows) as progress:
                summary = run(
                    plan, scorer.score_pairs, fingerprint=scorer.fingerprint, progress=progress
                )
        except KeyboardInterrupt:
            errors.out("", highlight=False)
            errors.out(
                "what is done is kept; go on with the same command and --resume", highlight=False
            )
            raise
    cpu = time.process_time() - cpu
    blocked = summary.failed.get(Reason.BLOCKED_ADDRESS, 0)
    if blocked:
        line = f"{blocked:,} rows lead to addresses that are not public; --allow-net opens some"
        errors.out(line, highlight=False)
    closed = scorer.fetched.let_go[Hold.CLOSED]
    if closed:
        errors.out(
            f"{closed:,} rows were not asked for: their hosts want to be left alone for more than "
            f"{settings.fetch.retry_after_cap:g} s (PAIRSCORE_FETCH__RETRY_AFTER_CAP)",
            highlight=False,
        )
    if scorer.fetched.mean_wait > _NOTABLE_WAIT and not scorer.fetched.closings:
        errors.out(_waited(scorer.fetched, settings.fetch), highlight=False)
    if as_json:
        found = as_dict(summary, scorer.fingerprint, cpu)
        found |= {"cache": scorer.cache.figures(), "hosts": scorer.fetched.figures()}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(as_text(summary, scorer.cache.looked_up) + "\n")


def _waited(fetched: FetchStats, settings: FetchSettings) -> str:
    rate = f"{settings.rate:g} times a second" if settings.rate else "any number of times"
    return (
        f"rows waited for their hosts for {fetched.mean_wait:,.1f} s on average: a host is asked "
        f"{rate}, {settings.per_host} times at once; PAIRSCORE_FETCH__HOST_LIMITS="
        "images.example.org=200/32 asks one more often"
    )


def as_dict(summary: Summary, fingerprint: str, cpu_seconds: float) -> dict[str, object]:
    """The summary for programs: counts, seconds (without loading the model), paths as text."""
    return {
        "output": str(summary.output),
        "rows": summary.rows,
        "scored": summary.scored,
        "failed": {reason.value: count for reason, count in by_count(summary)},
        "resumed_rows": summary.resumed_rows,
        "seconds": round(summary.seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "rows_per_second": round(summary.rows_per_second, 2),
        "model": fingerprint,
        "input_sha256": summary.input_sha256,
        "output_sha256": summary.output_sha256,
    }


def by_count(summary: Summary) -> list[tuple[Reason, int]]:
    """The reasons there were and how many rows had each, the most frequent first."""
    return sorted(summary.failed.items(), key=lambda item: (-item[1], item[0].value))


def as_text(summary: Summary, looked_up: LookUpStats | None = None) -> str:
    """The summary for people: rows in = scored + failed by reason; what was known already."""
    counts = [("rows in", summary.rows), ("scored", summary.scored)]
    counts.append(("failed", summary.rows - summary.scored))
    counts += [(f"  {reason.value}", count) for reason, count in by_count(summary)]
    if summary.resumed_rows:
        counts.append(("done before", summary.resumed_rows))
    lines = [f"{what:<22}{count:>11,}" for what, count in counts]
    for kind, (hits, asked) in (looked_up.shares() if looked_up else {}).items():
        if hits:
            lines.append(f"{kind + 's known':<22}{hits:>11,}  of {asked:,}")
    rate = f"{summary.rows_per_second:,.1f}"
    lines.append(f"{'rows/s':<22}{rate:>11}  in {summary.seconds:,.1f} s")
    lines.append(f"{'result':<22}  {summary.output}")
    return "\n".join(lines)
