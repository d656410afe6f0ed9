"""What an expression of PromQL names: enough of the language for those of deploy/monitoring."""

import re
from collections.abc import Iterator

from scripts.dashboards import OTHERS
from scripts.panels import TARGET_LABELS
from shared.telemetry.metrics import CATALOGUE, Metric

KNOWN = {metric.name: metric for metric in (*CATALOGUE, *OTHERS)} | {
    "process_start_time_seconds": Metric("process_start_time_seconds", "gauge", "")
}
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")
_NO_SERIES = re.compile(r'"(?:\\.|[^"\\])*"|\[[^\]]*\]|\boffset\s+\w+|\bgroup_left\b')
_SELECTOR = re.compile(r"(?<![\w:$.])([a-zA-Z_][\w:]*)\s*(\{[^}]*\})?(?!\s*\(|[\w:])")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:\\.|[^"\\])*)"')
_WORDS = {"and", "or", "unless", "bool"}
_ENDINGS = {"_bucket": {"le"}, "_sum": set[str](), "_count": set[str]()}


def faults(expr: str, recorded: set[str]) -> Iterator[str]:
    """What of an expression there is not: metrics, labels of them, values of these."""
    labels = set(TARGET_LABELS)
    for name, braces in selectors(expr):
        if name in recorded:
            continue
        metric, more = _metric(name)
        if metric is None:
            yield f"{name}: no such metric"
            continue
        has = {label.name: label.values for label in metric.labels}
        labels |= has.keys() | more
        for label, operator, value in _MATCHER.findall(braces):
            if label not in {*has, *TARGET_LABELS}:
                yield f"{name}: no label {label}"
            elif values := has.get(label):
                asked = value.split("|") if "~" in operator else [value]
                yield from (
                    f"{name}: {label} is never {v!r}" for v in asked if v not in {*values, ""}
                )
    for named in _GROUPING.findall(expr):
        for label in re.findall(r"\w+", named):
            if label not in labels:
                yield f"by {label}: of no metric of it"


def selectors(expr: str) -> Iterator[tuple[str, str]]:
    """The series that are selected: a name, and what stands in braces behind it."""
    plain = _GROUPING.sub("", expr)
    braces = iter(re.findall(r"\{[^}]*\}", plain))
    for name, found in _SELECTOR.findall(_NO_SERIES.sub("", re.sub(r"\{[^}]*\}", "{}", plain))):
        if name not in _WORDS:
            yield name, next(braces) if found else ""


def _metric(name: str) -> tuple[Metric | None, set[str]]:
    for ending, labels in _ENDINGS.items():
        whole = KNOWN.get(name.removesuffix(ending))
        if name.endswith(ending) and whole is not None and whole.kind == "histogram":
            return whole, labels
    metric = KNOWN.get(name)
    # A histogram has no series of its own name.
    return (None if metric is None or metric.kind == "histogram" else metric), set()
