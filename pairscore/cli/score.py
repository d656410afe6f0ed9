"""`pairscore score`: a plan and settings to a file, with progress and a closing summary."""

import json
import sys
import time

from rich.console import Console
from rich.table import Table

from pairscore.cli.progress import reporter
from pairscore.csv_file import Plan, Summary, run
from pairscore.pair import Reason
from pairscore.settings import Settings

DEMO_WARNING = (
    "the demo model only knows coloured shapes; for real images use another --model, "
    "such as openai/clip-vit-base-patch32"
)


def run_score(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Score what `plan` says; progress goes to stderr, the summary alone to stdout."""
    errors = Console(stderr=True, soft_wrap=True)
    for note in plan.notes:
        errors.out(note, highlight=False)
    if settings.model == "demo":
        errors.out(f"note: {DEMO_WARNING}", highlight=False)
    # Only now: loading what scores takes seconds that a mistake in a file name should not cost.
    from pairscore.scorer import Scorer

    with Scorer(settings) as scorer:
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
    if as_json:
        sys.stdout.write(json.dumps(as_dict(summary, scorer.fingerprint, cpu)) + "\n")
    else:
        Console(soft_wrap=True).print(table(summary))


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


def table(summary: Summary) -> Table:
    """The summary for people: rows in = scored + failed by reason."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column()
    grid.add_row("rows in", f"{summary.rows:,}", "")
    grid.add_row("scored", f"{summary.scored:,}", "")
    grid.add_row("failed", f"{summary.rows - summary.scored:,}", "")
    for reason, count in by_count(summary):
        grid.add_row(f"  {reason.value}", f"{count:,}", "")
    if summary.resumed_rows:
        grid.add_row("done before", f"{summary.resumed_rows:,}", "")
    grid.add_row("rows/s", f"{summary.rows_per_second:,.1f}", f"in {summary.seconds:,.1f} s")
    grid.add_row("result", "", str(summary.output))
    return grid
