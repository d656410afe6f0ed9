"""Draws the dashboard of the fleet from what a Prometheus has: docs/pictures/dashboard.svg.

For where there is no Grafana to take a picture of: `python -m scripts.picture http://127.0.0.1:9090
fleet.svg --minutes 15`. Panels, places and queries are those of scripts/dashboards.py.
"""

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import requests

from scripts.dashboards import FLEET
from scripts.drawing import Series, Window, draw
from scripts.panels import Dashboard, Panel, Query

Ask: TypeAlias = Callable[[str], Sequence[Mapping[str, Any]]]
"""An expression to the result of Prometheus' query_range, over the window."""

NOTE: Final = "Drawn by scripts/picture.py from the answers of Prometheus, not by Grafana."

_POINTS: Final = 120
_SECONDS: Final = 30.0
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")


def picture(dashboard: Dashboard, ask: Ask, window: Window, scrape: float) -> str:
    """The dashboard as an SVG.

    Args:
        dashboard: which.
        ask: what Prometheus says.
        window: of what time.
        scrape: how often it asks the services, in seconds: rates are over four times as long,
            at least, as in Grafana (`$__rate_interval`).
    """
    over = f"{max(4 * scrape, window.step + scrape):.0f}s"

    def told(panel: Panel) -> list[Series]:
        return [
            _series(found, query, panel, window)
            for query in panel.queries
            for found in ask(query.expr.replace("$__rate_interval", over))
        ]

    return draw(dashboard, told, window, NOTE)


def _series(found: Mapping[str, Any], query: Query, panel: Panel, window: Window) -> Series:
    labels: Mapping[str, str] = found["metric"]
    name = _LABEL.sub(lambda label: labels.get(label[1], ""), query.legend or panel.title)
    # Prometheus leaves out the times at which there was nothing.
    at = {
        round((float(seconds) - window.start) / window.step): float(value)
        for seconds, value in found["values"]
    }
    values = [at.get(place) for place in range(window.points)]
    return Series(name, [v if v is not None and math.isfinite(v) else None for v in values])


def asking(url: str, window: Window) -> Ask:
    """Of the Prometheus at `url`; raises requests.RequestException where it does not answer."""

    def ask(expr: str) -> Sequence[Mapping[str, Any]]:
        asked = {"query": expr, "start": window.start, "end": window.end, "step": window.step}
        with requests.Session() as session:
            session.trust_env = False
            reply = session.post(f"{url}/api/v1/query_range", data=asked, timeout=_SECONDS)
        reply.raise_for_status()
        result: Sequence[Mapping[str, Any]] = reply.json()["data"]["result"]
        return result

    return ask


def main() -> int:
    """Draw; the exit code."""
    options = _parser().parse_args()
    seconds = 60 * options.minutes
    end = options.until.timestamp() if options.until else time.time()
    window = Window(end - seconds, end, seconds / _POINTS)
    try:
        made = picture(FLEET, asking(options.prometheus, window), window, options.scrape_seconds)
    except requests.RequestException as error:
        sys.stderr.write(f"picture: {error}\n")
        return 1
    options.output.write_text(made, encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw the dashboard of the fleet as an SVG.")
    parser.add_argument("prometheus", metavar="URL", help="where Prometheus is")
    parser.add_argument("output", metavar="SVG", type=Path, help="the file that is written")
    parser.add_argument("--minutes", type=float, default=15.0, help="how much of it (15)")
    parser.add_argument("--until", type=_time, help="its end, as 2026-12-24T06:00, in UTC (now)")
    parser.add_argument(
        "--scrape-seconds",
        type=float,
        default=15.0,
        help="how often Prometheus asks the services (15)",
    )
    return parser


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
