"""Dashboards of Grafana: rows of panels, whose queries are made of metrics of the catalogue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from shared.telemetry.metrics import Metric

Unit: TypeAlias = Literal["bytes", "Bps", "cps", "none", "percentunit", "s"]
Sum: TypeAlias = Literal["sum", "max", "avg"]

TARGET_LABELS: Final = ("job", "instance")
"""What Prometheus adds to every series."""

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _ALL_WIDTH = 8, 8, 24


@dataclass(frozen=True, slots=True)
class Query:
    """An expression of PromQL, what its series are called, and the metrics that it is of."""

    expr: str
    legend: str
    metrics: tuple[Metric, ...]

    def over(self, other: "Query", *by: str) -> "Query":
        """The quotient of the two; `by` are the labels that only this one has."""
        ignoring = f"ignoring ({', '.join(by)}) group_left " if by else ""
        metrics = tuple(dict.fromkeys((*self.metrics, *other.metrics)))
        return Query(f"{self.expr} / {ignoring}{other.expr}", self.legend, metrics)

    def from_now(self) -> "Query":
        """Of a time in seconds since the epoch: how far it is away."""
        return Query(f"{self.expr} - time()", self.legend, self.metrics)

    def naming(self, label: str, name: str) -> "Query":
        """The same, where the series whose `label` is empty is called `name`."""
        expr = f'label_replace({self.expr}, "{label}", "{name}", "{label}", "")'
        return Query(expr, self.legend, self.metrics)


def rate(metric: Metric, *by: str, legend: str = "", **where: str) -> Query:
    """A counter's increase in a second.

    Args:
        metric: the counter.
        by: the labels that tell its series apart; the others are summed up.
        legend: what they are called; by default, these labels.
        where: the values that labels must have.

    Raises:
        ValueError: the metric is no counter, or has no such label or value.
    """
    if metric.kind != "counter":
        raise ValueError(f"{metric.name} is no counter")
    inner = f"rate({_series(metric, where)}[$__rate_interval])"
    return Query(_grouped("sum", metric, by, inner), legend or _legend(by), (metric,))


def last(metric: Metric, *by: str, how: Sum = "sum", legend: str = "") -> Query:
    """What a gauge is now, over all series that have the labels `by` in common.

    Raises:
        ValueError: the metric is no gauge, or has no such label.
    """
    if metric.kind != "gauge":
        raise ValueError(f"{metric.name} is no gauge")
    return Query(_grouped(how, metric, by, metric.name), legend or _legend(by), (metric,))


def quantiles(metric: Metric) -> tuple[Query, ...]:
    """What half of a histogram's values stay under, and 95 in 100.

    Raises:
        ValueError: the metric is no histogram.
    """
    if metric.kind != "histogram":
        raise ValueError(f"{metric.name} is no histogram")
    buckets = f"sum by (le) (rate({metric.name}_bucket[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({part}, {buckets})", f"p{part * 100:.0f}", (metric,))
        for part in (0.5, 0.95)
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart, or with `is_number` a number."""

    title: str
    unit: Unit
    queries: Sequence[Query]
    stacked: bool = False
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page; `uid` is in its address, and the name of its file."""

    uid: str
    title: str
    rows: Sequence[Row]

    @property
    def panels(self) -> Iterator[Panel]:
        """Those of all rows."""
        for row in self.rows:
            yield from row.panels

    def model(self) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["pairscore"],
            "editable": False,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "schemaVersion": 39,
            "templating": {"list": [_DATASOURCE]},
            "annotations": {"list": [_ALERTS]},
            "panels": list(_laid_out(self.rows)),
        }


_DATASOURCE: Final = {
    "name": "datasource",
    "label": "Prometheus",
    "type": "datasource",
    "query": "prometheus",
}
_ALERTS: Final = {
    "name": "Alerts",
    "datasource": _SOURCE,
    "enable": True,
    "expr": 'ALERTS{alertstate="firing"}',
    "iconColor": "red",
    "titleFormat": "{{alertname}}",
    "textFormat": "{{job}} {{instance}}",
}


def _laid_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _ALL_WIDTH, "h": 1},
            "panels": [],
        }
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            number += 1
            width, height = (_WIDTH // 2, _HEIGHT // 2) if panel.is_number else (_WIDTH, _HEIGHT)
            if x + width > _ALL_WIDTH:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": width, "h": height}
            yield {"id": number, "gridPos": place, **_chart(panel)}
            x += width
        y += height


def _chart(panel: Panel) -> dict[str, Any]:
    help_of = {metric.name: metric.help for query in panel.queries for metric in query.metrics}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if not panel.is_number:
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {"fillOpacity": 30 if panel.stacked else 0, "stacking": stacking}
        options = {"legend": {"placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": "\n\n".join(f"`{name}`: {text}" for name, text in help_of.items()),
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend or panel.title,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


def _series(metric: Metric, where: dict[str, str]) -> str:
    _must_have(metric, where)
    for label in metric.labels:
        if label.name in where and label.values and where[label.name] not in label.values:
            raise ValueError(f"{metric.name}: {label.name} is never {where[label.name]!r}")
    matchers = ", ".join(f'{name}="{value}"' for name, value in where.items())
    return f"{metric.name}{{{matchers}}}" if matchers else metric.name


def _grouped(how: Sum, metric: Metric, by: Sequence[str], inner: str) -> str:
    _must_have(metric, by)
    return f"{how} by ({', '.join(by)}) ({inner})" if by else f"{how}({inner})"


def _must_have(metric: Metric, labels: Sequence[str] | dict[str, str]) -> None:
    known = {*TARGET_LABELS, *(label.name for label in metric.labels)}
    if unknown := set(labels) - known:
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}")


def _legend(by: Sequence[str]) -> str:
    return " ".join(f"{{{{{name}}}}}" for name in by)
