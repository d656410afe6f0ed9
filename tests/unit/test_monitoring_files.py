"""Alerts and dashboards name what there is: metrics, labels, sections that say what to do."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from scripts import dashboards
from scripts.docs import anchors
from scripts.panels import last, quantiles, rate
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import CATALOGUE
from tests.commands import ROOT
from tests.documents import page
from tests.monitoring import FOLDER, alerts, document, rules
from tests.promql import KNOWN, faults, selectors

RECORDED = {rule["record"] for rule in rules() if "record" in rule}
LISTED = re.compile(r"^\| `(Pairscore\w+)` \|.*\| \[[^\]]*\]\(#([\w-]+)\) \|$", re.MULTILINE)
BY = re.compile(r"\bby \(([^)]*)\)")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_metrics_and_labels_that_there_are(rule):
    assert list(faults(rule["expr"], RECORDED)) == []
    assert list(selectors(rule["expr"])) != []


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("pairscore_worker_outcome_total > 0", "pairscore_worker_outcome_total: no such metric"),
        ("rate(pairscore_worker_row_seconds[5m])", "pairscore_worker_row_seconds: no such metric"),
        ("pairscore_sink_lag_records_bucket", "pairscore_sink_lag_records_bucket: no such metric"),
        ('up{jobs="x"} == 0 and 1 > 2', "up: no label jobs"),
        ("pairscore:nothing:sum", "pairscore:nothing:sum: no such metric"),
        (
            'pairscore_worker_outcomes_total{error=~"timeout|time"}',
            "pairscore_worker_outcomes_total: error is never 'time'",
        ),
        ("sum by (topics) (pairscore_worker_records_total)", "by topics: of no metric of it"),
    ],
)
def test_what_there_is_not_is_found(expr, fault):
    assert list(faults(expr, RECORDED)) == [fault]


def test_series_are_told_from_the_words_between_them():
    expr = (
        'sum by (job) (rate(a_total{x="b or c"}[5m])) > 6 * 3600 unless on (job) '
        "max_over_time(d[1h] offset 1h) or vector(0) and e:f:sum offset 2m == 20e9"
    )
    assert list(selectors(expr)) == [("a_total", '{x="b or c"}'), ("d", ""), ("e:f:sum", "")]


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_and_what_to_do(name):
    alert = alerts()[name]
    assert set(alert["labels"]) == {"severity"}
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    path, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in anchors(ROOT / path)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_what_an_alert_tells_has_only_labels_that_it_has(name):
    expr, said = alerts()[name]["expr"], str(alerts()[name]["annotations"])
    grouped = [set(re.findall(r"\w+", labels)) for labels in BY.findall(expr)]
    had = set.intersection(*grouped) if grouped else {"job", "instance"}
    if re.search(r"\bsum\(|\bcount\(|:sum\b|:ratio15m\b", expr) and not grouped:
        had = set()
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= had


def test_the_alerts_of_the_documentation_are_those_that_there_are():
    runbooks = {name: a["annotations"]["runbook"] for name, a in alerts().items()}
    listed = {
        name: f"docs/operations.md#{anchor}"
        for name, anchor in LISTED.findall(page("operations.md"))
    }
    assert listed == runbooks


def test_every_service_of_the_fleet_is_scraped_by_its_name_and_port():
    jobs = document(FOLDER / "prometheus.yml")["scrape_configs"]
    found = {job["job_name"]: job.get("dns_sd_configs") for job in jobs}
    del found["prometheus"]
    services = document(ROOT / "docker-compose.yml")["services"]
    exposing = {"pairscore-worker", "pairscore-sink", "pairscore-api"}
    running = {
        name
        for name, service in services.items()
        if service.get("image") in exposing
        and not service.get("profiles")
        and service.get("restart") != "no"
    }
    assert found.keys() == running
    for name, (discovery,) in found.items():
        assert name in discovery["names"]
        assert (discovery["type"], discovery["port"]) == ("A", 9464)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "PAIRSCORE_TELEMETRY__PORT=9464" in dockerfile


def test_every_metric_is_in_a_panel():
    shown = {
        metric.name
        for dashboard in dashboards.DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries
        for metric in query.metrics
    }
    assert {metric.name for metric in CATALOGUE} - shown == set()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("grafana/dashboards/*.json")), ids=str)
def test_a_dashboard_is_that_of_the_code_and_names_what_there_is(path):
    text = path.read_text(encoding="utf-8")
    assert text == dashboards.texts()[path.name]
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        for target in panel.get("targets", []):
            assert list(faults(target["expr"], set())) == [], panel["title"]


def test_panels_do_not_lie_upon_each_other():
    for dashboard in dashboards.DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard.model()["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells


def test_a_dashboard_that_was_changed_by_hand_or_is_of_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboards, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["dashboards.py"])
    assert dashboards.main() == 0
    assert list(dashboards.stale()) == []
    (tmp_path / "fleet.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    assert [line.split()[0] for line in dashboards.stale()] == ["fleet.json", "old.json"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: rate(catalogue.SINK_LAG),
        lambda: last(catalogue.SINK_ROWS),
        lambda: quantiles(catalogue.SINK_LAG),
        lambda: rate(catalogue.SINK_ROWS, "reason"),
        lambda: rate(catalogue.SINK_ROWS, error="404"),
    ],
)
def test_a_query_that_would_show_nothing_cannot_be_made(make):
    with pytest.raises(ValueError, match="pairscore_sink"):
        make()


def test_what_is_not_of_the_catalogue_is_of_the_process_or_of_prometheus():
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    of_the_process = {sample.name for family in registry.collect() for sample in family.samples}
    others = KNOWN.keys() - {metric.name for metric in CATALOGUE}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert others - of_the_process - recorded == {"up", "ALERTS"}


def test_grafana_is_told_where_the_dashboards_are():
    (provider,) = document(FOLDER / "grafana/provisioning/dashboards/pairscore.yml")["providers"]
    source, *_ = document(FOLDER / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (mounted,) = [
        volume
        for volume in document(ROOT / "docker-compose.yml")["services"]["grafana"]["volumes"]
        if volume.endswith(f":{provider['options']['path']}:ro")
    ]
    assert (ROOT / mounted.split(":")[0]).resolve() == FOLDER / "grafana" / "dashboards"
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    every = document(FOLDER / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == every


def _mounted() -> list[tuple[str, Path]]:
    return [
        (name, ROOT / volume.split(":")[0])
        for name, service in document(ROOT / "docker-compose.yml")["services"].items()
        for volume in service.get("volumes", ())
        if volume.startswith("./deploy/")
    ]


def test_every_file_that_a_container_is_given_is_there():
    assert len(_mounted()) >= 5
    assert [(name, str(path)) for name, path in _mounted() if not path.exists()] == []


def test_what_watches_is_on_this_machine_alone_and_bounded():
    services = document(ROOT / "docker-compose.yml")["services"]
    watching = {
        n: s for n, s in services.items() if {"observability", "logs"} & {*s.get("profiles", ())}
    }
    assert {
        "prometheus",
        "grafana",
        "jaeger",
        "otel-collector",
        "vector",
        "elasticsearch",
        "kibana",
    } <= (watching.keys())
    for name, service in watching.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\w+)?", service["image"]), name


def _fields_of_lines() -> Iterator[tuple[str, str]]:
    """The fields that calls of logging give to a line, with where they do."""
    packages = ("producer", "worker", "sink", "shared")
    for path in (file for package in packages for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if not ast.unparse(node.func).startswith(("_log.", "_access.")):
                continue
            for given in (each.value for each in node.keywords if each.arg == "extra"):
                for name in given.keys if isinstance(given, ast.Dict) else ():
                    if isinstance(name, ast.Constant):
                        yield str(name.value), f"{path}:{given.lineno}"


def test_every_field_of_a_line_can_be_searched():
    template = json.loads((ROOT / "deploy" / "monitoring" / "logs-template.json").read_text())
    there = template["template"]["mappings"]["properties"].keys()
    found = list(_fields_of_lines())
    assert len(found) > 20
    assert [(name, where) for name, where in found if name not in there] == []
