"""The catalogue of metrics, and the counting of them."""

import re
import threading
import time
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pairscore import __version__
from pairscore.pair import Reason
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import CATALOGUE, Metric, Metrics

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"job", "url", "host", "caption", "row", "offset", "source", "path"}


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("pairscore_")
    }


def test_the_catalogue_has_every_metric_there_is_once():
    declared = [value for value in vars(catalogue).values() if isinstance(value, Metric)]
    assert sorted(metric.name for metric in declared) == sorted(m.name for m in CATALOGUE)
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_asks(metric):
    assert re.fullmatch(r"pairscore_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|millis|minutes|hours|kb|mb|percent)(_|$)", metric.name)
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_bytes"))
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert len(metric.buckets) > 3
    assert metric.help.endswith(".")
    assert "|" not in metric.help
    assert len(metric.help) <= 100


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_no_label_holds_what_comes_from_outside(metric):
    assert not {label.name for label in metric.labels} & OUTSIDE


@pytest.mark.parametrize("service", ["producer", "worker", "sink"])
def test_a_service_shows_its_own_metrics_and_those_of_all(service):
    found = {name for name, _ in samples(Metrics(service))}
    assert found
    prefixes = (f"pairscore_{service}_", "pairscore_info", "pairscore_ready")
    assert all(name.startswith(prefixes) for name in found)
    other = "pairscore_sink_" if service == "worker" else "pairscore_worker_"
    assert not any(name.startswith(other) for name in found)
    assert not any(name.endswith("_created") for name in found)


def test_every_reason_is_there_at_zero_from_the_start():
    found = samples(Metrics("worker"))
    for error in ("", *(reason.value for reason in Reason)):
        assert found["pairscore_worker_outcomes_total", (("error", error),)] == 0


def test_counting_shows():
    metrics = Metrics("worker")
    metrics.inc(catalogue.WORKER_OUTCOMES, 3, error="timeout")
    metrics.inc(catalogue.WORKER_OUTCOMES, error="timeout")
    metrics.inc(catalogue.WORKER_RETRIES, tier="60")
    metrics.set(catalogue.WORKER_IN_FLIGHT, 7)
    metrics.set(catalogue.WORKER_IN_FLIGHT, 5)
    metrics.observe(catalogue.WORKER_COMMIT_SECONDS, 0.2)
    found = samples(metrics)
    assert found["pairscore_worker_outcomes_total", (("error", "timeout"),)] == 4
    assert found["pairscore_worker_outcomes_total", (("error", ""),)] == 0
    assert found["pairscore_worker_retries_total", (("tier", "60"),)] == 1
    assert found["pairscore_worker_in_flight", ()] == 5
    assert found["pairscore_worker_commit_seconds_count", ()] == 1
    assert found["pairscore_worker_commit_seconds_bucket", (("le", "0.1"),)] == 0
    assert found["pairscore_worker_commit_seconds_bucket", (("le", "0.25"),)] == 1
    assert found["pairscore_info", (("version", __version__),)] == 1


def test_labels_may_come_in_any_order():
    metrics = Metrics("worker")
    labels = {"fingerprint": "f", "model": "m", "backend": "onnx", "device": "cpu"}
    metrics.set(catalogue.WORKER_MODEL, 1, **labels, precision="fp32")
    metrics.set(catalogue.WORKER_MODEL, 2, precision="fp32", **labels)
    values = [v for (name, _), v in samples(metrics).items() if name.endswith("model_info")]
    assert values == [2]


def test_two_sets_of_metrics_do_not_share():
    first, second = Metrics("sink"), Metrics("sink")
    first.inc(catalogue.SINK_DUPLICATES)
    assert samples(first)["pairscore_sink_duplicates_total", ()] == 1
    assert samples(second)["pairscore_sink_duplicates_total", ()] == 0


@pytest.mark.parametrize(
    ("metric", "labels", "error"),
    [
        (catalogue.SINK_DUPLICATES, {}, KeyError),
        (catalogue.WORKER_OUTCOMES, {"error": "a reason of tomorrow"}, KeyError),
        (catalogue.WORKER_OUTCOMES, {}, KeyError),
        (catalogue.WORKER_OUTCOMES, {"error": "", "job": "j"}, ValueError),
        (catalogue.WORKER_RETRIES, {}, ValueError),
        (catalogue.WORKER_IN_FLIGHT, {}, TypeError),
    ],
)
def test_what_the_catalogue_does_not_say_is_a_defect(metric, labels, error):
    with pytest.raises(error):
        Metrics("worker").inc(metric, **labels)


def test_nothing_is_lost_when_threads_count_at_once():
    metrics = Metrics("worker")

    def count() -> None:
        for _ in range(2_000):
            metrics.inc(catalogue.WORKER_OUTCOMES, error="")
            metrics.inc(catalogue.WORKER_RECORDS, topic="pairs")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(metrics)
    assert found["pairscore_worker_outcomes_total", (("error", ""),)] == 8_000
    assert found["pairscore_worker_records_total", (("topic", "pairs"),)] == 8_000


def test_counting_costs_a_worker_no_more_than_it_can_spare():
    metrics = Metrics("worker")
    began = time.thread_time()
    for _ in range(10_000):
        metrics.inc(catalogue.WORKER_OUTCOMES, error="")
    # About 1 us here; at 8,000 rows a second, 20 us would be a sixth of the loop's time.
    assert (time.thread_time() - began) / 10_000 < 20e-6


@pytest.mark.parametrize("metric", [m for m in CATALOGUE if m.service], ids=lambda m: m.name)
def test_its_service_counts_every_metric(metric):
    [name] = [name for name, value in vars(catalogue).items() if value is metric]
    sources = (ROOT / metric.service).glob("**/*.py")
    assert any(re.search(rf"\b{name}\b", source.read_text()) for source in sources)
