"""Writes the dashboards of deploy/monitoring/grafana from the catalogue of metrics: `make docs`.

With `--check` nothing is written: it fails if a file would change.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from scripts.panels import Dashboard, Panel, Query, Row, last, quantiles, rate
from shared.telemetry import metrics as m
from shared.telemetry.metrics import Label, Metric

FOLDER: Final = (
    Path(__file__).resolve().parent.parent / "deploy" / "monitoring" / "grafana" / "dashboards"
)

# What is not of the catalogue: of the process, and Prometheus' own.
CPU: Final = Metric("process_cpu_seconds_total", "counter", "CPU time of the process.")
MEMORY: Final = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the process.")
DESCRIPTORS: Final = Metric("process_open_fds", "gauge", "Open file descriptors of the process.")
UP: Final = Metric("up", "gauge", "Whether Prometheus had /metrics of it.")
ALERTS: Final = Metric(
    "ALERTS", "gauge", "Alerts, pending and firing.", (Label("alertname"), Label("alertstate"))
)
REQUIRED: Final = Metric(
    "pairscore_required_workers",
    "gauge",
    "Workers that a job with a deadline needs; recorded by rules/scaling.yml.",
    (Label("job"),),
)
OTHERS: Final = (CPU, MEMORY, DESCRIPTORS, UP, ALERTS, REQUIRED)


def _mean(seconds: Metric, number: Metric, *by: str, **where: str) -> Query:
    return rate(seconds, *by).over(rate(number, *by, **where))


def _hits(lookups: Metric) -> Query:
    return rate(lookups, "kind", result="hit").over(rate(lookups, "kind"))


FLEET: Final = Dashboard(
    "pairscore-fleet",
    "pairscore: the fleet",
    (
        Row(
            "Now",
            (
                Panel("Outcomes a second", "cps", [rate(m.WORKER_OUTCOMES)], is_number=True),
                Panel(
                    "Of these scores",
                    "percentunit",
                    [rate(m.WORKER_OUTCOMES, error="").over(rate(m.WORKER_OUTCOMES))],
                    is_number=True,
                ),
                Panel("Oldest unread", "s", [last(m.WORKER_OLDEST, how="max")], is_number=True),
                Panel("Not stored yet", "none", [last(m.SINK_LAG)], is_number=True),
                Panel("Partitions read", "none", [last(m.WORKER_ASSIGNED)], is_number=True),
                Panel(
                    "Records lost, a second",
                    "cps",
                    [rate(m.WORKER_LOST_PLACES)],
                    is_number=True,
                ),
            ),
        ),
        Row(
            "Rows",
            (
                Panel(
                    "Outcomes",
                    "cps",
                    [rate(m.WORKER_OUTCOMES, "error").naming("error", "score")],
                    stacked=True,
                ),
                Panel(
                    "Published, scored, stored",
                    "cps",
                    [
                        rate(m.PRODUCER_ROWS, legend="published"),
                        rate(m.WORKER_OUTCOMES, legend="outcomes"),
                        rate(m.SINK_ROWS, "job", legend="stored by {{job}}"),
                    ],
                ),
                Panel("From publishing to outcome", "s", quantiles(m.WORKER_ROW_SECONDS)),
                Panel(
                    "Share of each reason",
                    "percentunit",
                    [
                        rate(m.WORKER_OUTCOMES, "error")
                        .over(rate(m.WORKER_OUTCOMES), "error")
                        .naming("error", "score")
                    ],
                    stacked=True,
                ),
                Panel("Retries", "cps", [rate(m.WORKER_RETRIES, "tier", legend="{{tier}} s")]),
                Panel(
                    "Jobs",
                    "cps",
                    [
                        rate(m.PRODUCER_JOBS, legend="closed"),
                        rate(m.SINK_JOBS, "job", legend="complete at {{job}}"),
                    ],
                ),
            ),
        ),
        Row(
            "Lag",
            (
                Panel("Oldest unread", "s", [last(m.WORKER_OLDEST, "topic", how="max")]),
                Panel("Not stored yet", "none", [last(m.SINK_LAG, "job")]),
                Panel(
                    "Rows in work",
                    "none",
                    [
                        last(m.WORKER_IN_FLIGHT, legend="in the scorer"),
                        last(m.WORKER_UNCONFIRMED, legend="not committed"),
                    ],
                ),
            ),
        ),
        Row(
            "Deadlines",
            (
                Panel("Workers required", "none", [last(REQUIRED, "job")], stacked=True),
                Panel("Rows left", "none", [last(m.SINK_LEFT, "job_name", how="max")]),
                Panel("Time left", "s", [last(m.SINK_DEADLINE, "job_name", how="max").from_now()]),
                Panel(
                    "What a worker can do",
                    "cps",
                    [
                        rate(m.WORKER_BUSY_ROWS, legend="rows a second").over(
                            rate(m.WORKER_BUSY_SECONDS)
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Kafka",
            (
                Panel("Workers' transactions", "cps", [rate(m.WORKER_COMMITS, "result")]),
                Panel("Rebalances", "cps", [rate(m.WORKER_REBALANCES, "event")]),
                Panel("Partitions", "none", [last(m.WORKER_ASSIGNED, "instance")], stacked=True),
            ),
        ),
        Row(
            "What should not be",
            (
                Panel("Dead letters", "cps", [rate(m.WORKER_DEAD_LETTERS, "defect")]),
                Panel(
                    "Lost, twice, put aside",
                    "cps",
                    [
                        rate(m.WORKER_LOST_PLACES, "topic", legend="lost places of {{topic}}"),
                        rate(m.SINK_DUPLICATES, "job", legend="twice at {{job}}"),
                        rate(m.SINK_REJECTED, "defect", legend="put aside: {{defect}}"),
                    ],
                ),
                Panel("Alerts", "none", [last(ALERTS, "alertname", "alertstate")], stacked=True),
            ),
        ),
        Row(
            "Processes",
            (
                Panel("Ready", "none", [last(m.READY, "job")]),
                Panel("Memory", "bytes", [last(MEMORY, "job", "instance")]),
                Panel("CPU", "none", [rate(CPU, "job", "instance")]),
            ),
        ),
    ),
)

PARTS: Final = Dashboard(
    "pairscore-parts",
    "pairscore: workers, caches, hosts, sinks",
    (
        Row(
            "Workers",
            (
                Panel("Records taken", "cps", [rate(m.WORKER_RECORDS, "topic")], stacked=True),
                Panel("Outcomes", "cps", [rate(m.WORKER_OUTCOMES, "instance")], stacked=True),
                Panel("A transaction", "s", quantiles(m.WORKER_COMMIT_SECONDS)),
                Panel("Not committed", "bytes", [last(m.WORKER_UNCONFIRMED_BYTES, "instance")]),
                Panel("Paused partitions", "none", [last(m.WORKER_PAUSED, "instance")]),
                Panel("Outcomes dropped", "cps", [rate(m.WORKER_DROPPED, "instance")]),
                Panel(
                    "Models",
                    "none",
                    [
                        last(
                            m.WORKER_MODEL, "model", "backend", "device", "precision", "fingerprint"
                        )
                    ],
                    stacked=True,
                ),
                Panel("Versions", "none", [last(m.INFO, "job", "version")], stacked=True),
            ),
        ),
        Row(
            "Caches",
            (
                Panel("Known already", "percentunit", [_hits(m.WORKER_CACHE_LOOKUPS)]),
                Panel("Known to Redis", "percentunit", [_hits(m.WORKER_SHARED_CACHE_LOOKUPS)]),
                Panel("In memory", "bytes", [last(m.WORKER_CACHE_BYTES, "instance")]),
                Panel(
                    "Redis: a round trip",
                    "s",
                    [
                        _mean(
                            m.WORKER_SHARED_CACHE_SECONDS,
                            m.WORKER_SHARED_CACHE_CALLS,
                            "call",
                            result="answered",
                        )
                    ],
                ),
                Panel(
                    "Redis: round trips",
                    "cps",
                    [rate(m.WORKER_SHARED_CACHE_CALLS, "call", "result")],
                ),
                Panel(
                    "Redis: done without (2), tried (1)",
                    "none",
                    [last(m.WORKER_SHARED_CACHE_STATE, "instance", how="max")],
                ),
                Panel("Written to Redis", "Bps", [rate(m.WORKER_SHARED_CACHE_WRITTEN)]),
                Panel("Not written", "cps", [rate(m.WORKER_SHARED_CACHE_NOT_WRITTEN)]),
            ),
        ),
        Row(
            "Hosts",
            (
                Panel("Requests", "cps", [rate(m.WORKER_HOST_WAITS)]),
                Panel("A wait", "s", [_mean(m.WORKER_HOST_WAIT_SECONDS, m.WORKER_HOST_WAITS)]),
                Panel("Rows let go", "cps", [rate(m.WORKER_HOST_LET_GO, "why")]),
                Panel("Left alone upon request", "cps", [rate(m.WORKER_HOST_CLOSINGS)]),
                Panel(
                    "Redis: a round trip",
                    "s",
                    [_mean(m.WORKER_HOSTS_SECONDS, m.WORKER_HOSTS_CALLS, result="answered")],
                ),
                Panel("Redis: round trips", "cps", [rate(m.WORKER_HOSTS_CALLS, "result")]),
                Panel(
                    "Redis: done without (2), tried (1)",
                    "none",
                    [last(m.WORKER_HOSTS_STATE, "instance", how="max")],
                ),
                Panel(
                    "Workers that share hosts",
                    "none",
                    [last(m.WORKER_HOSTS_WORKERS, "instance", how="max")],
                ),
            ),
        ),
        Row(
            "Sinks and producers",
            (
                Panel(
                    "Stored",
                    "cps",
                    [rate(m.SINK_ROWS, "job", "error").naming("error", "score")],
                    stacked=True,
                ),
                Panel("Storing a batch", "s", quantiles(m.SINK_STORE_SECONDS)),
                Panel("Spool", "bytes", [last(m.SINK_SPOOL_BYTES, "instance")]),
                Panel("Producers' transactions", "cps", [rate(m.PRODUCER_TRANSACTIONS, "result")]),
            ),
        ),
        Row(
            "Processes",
            (
                Panel("Answers", "none", [last(UP, "job")]),
                Panel("Descriptors", "none", [last(DESCRIPTORS, "job", "instance")]),
            ),
        ),
    ),
)

DASHBOARDS: Final = (FLEET, PARTS)


def texts() -> Mapping[str, str]:
    """The files, by name."""
    return {
        f"{dashboard.uid.removeprefix('pairscore-')}.json": (
            json.dumps(dashboard.model(), indent=2, ensure_ascii=False) + "\n"
        )
        for dashboard in DASHBOARDS
    }


def stale() -> Iterator[str]:
    """Files that differ from the code."""
    made = texts()
    for name in sorted(made.keys() | {path.name for path in FOLDER.glob("*.json")}):
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != made.get(name):
            yield f"{name} of Grafana's dashboards differs from the code; run `make docs`"


def main() -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(description="Write Grafana's dashboards.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    if parser.parse_args().check:
        complaints = list(stale())
        sys.stderr.write("".join(f"dashboards: {complaint}\n" for complaint in complaints))
        return 1 if complaints else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
