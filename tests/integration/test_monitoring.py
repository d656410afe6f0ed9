"""Prometheus with our rules watches a worker and a sink at work, and tells what they did."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy.local.ports import free_ports
from pairscore.pair import Failure, Pair, Reason
from scripts.dashboards import FLEET
from scripts.drawing import Window
from scripts.picture import asking, picture
from shared.messages import JobMessage, JobState
from shared.topics import Topics
from tests import commands
from tests.fetching import wait_until
from tests.monitoring import FOLDER, alerts, document, program
from tests.otlp import PARENT, collecting, messages
from tests.services import had
from tests.sinking import Place
from tests.working import SCORE, WITHIN, Fleet, Told, working

ROWS, GONE = 60, 7


class Prometheus:
    """One that runs, and what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            reply = session.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=WITHIN)
        reply.raise_for_status()
        return reply.json()["data"]

    def values(self, query: str, label: str = "") -> Mapping[str, float]:
        """An instant vector, by the value of one of its labels."""
        found = self.ask("query", query=query)["result"]
        return {each["metric"].get(label, ""): float(each["value"][1]) for each in found}

    def says(
        self, query: str, expected: Mapping[str, float], label: str = ""
    ) -> Callable[[], bool]:
        return lambda: self.values(query, label) == expected


@contextmanager
def watching(folder: Path, ports: Mapping[str, int]) -> Iterator[Prometheus]:
    """Prometheus with our rules and our names of jobs, where services have these ports."""
    [port] = free_ports(1)
    config = document(FOLDER / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    config["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]}
        for job, at in ports.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with had(program("prometheus")) as binary, (folder / "prometheus.log").open("w") as log:
        command = [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with commands.started(command, {}, stdout=log.fileno(), stderr=log.fileno()):
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            wait_until(lambda: _answers(prometheus), within=WITHIN)
            yield prometheus


def _answers(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.ask("status/buildinfo"))
    except requests.RequestException:
        return False


def test_prometheus_tells_what_a_fleet_did_and_has_nothing_to_alert(kafka, topic_prefix, tmp_path):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    store = Place(fleet.settings, tmp_path / "results")
    gone = Failure(Reason.HTTP_ERROR, "404", attempts=1)

    def answer(pair: Pair) -> Any:
        return gone if int(pair.url.split("/")[-1].removesuffix(".jpg")) < GONE else SCORE

    [port] = free_ports(1)
    with (
        collecting() as collector,
        working(fleet, Told(answer), telemetry={"port": port, "otlp_endpoint": collector.endpoint}),
        store.sink(PAIRSCORE_TELEMETRY__OTLP_ENDPOINT=collector.endpoint) as sink,
        watching(tmp_path, {"worker": port, "sink": sink.port}) as prometheus,
    ):
        wait_until(
            prometheus.says("pairscore_ready", {"worker": 1, "sink": 1}, "job"), within=WITHIN
        )
        fleet.publish(range(ROWS), trace=PARENT)
        expected = {"": ROWS - GONE, "http_error": GONE}
        for metric in ("pairscore_worker_outcomes_total", "pairscore_sink_rows_stored_total"):
            wait_until(
                prometheus.says(f"sum by (error) ({metric}) > 0", expected, "error"), within=WITHIN
            )
        topic = Topics.of(fleet.settings).pairs
        taken = f'sum(pairscore_worker_records_total{{topic="{topic}"}})'
        assert prometheus.values(taken) == {"": ROWS}
        partitions = len(fleet.topics.to_score) * fleet.settings.partitions
        wait_until(
            prometheus.says("pairscore:assigned_partitions:sum", {"": partitions}), within=WITHIN
        )
        # What is at rest is not behind: else alerts would come of it by and by.
        wait_until(prometheus.says("sum(pairscore_sink_lag_records)", {"": 0}), within=WITHIN)
        oldest = "max(pairscore_worker_oldest_unread_seconds)"
        wait_until(prometheus.says(oldest, {"": 0}), within=WITHIN)

        # The spans tell the same, each below the one that published what it is of.
        wait_until(lambda: messages(collector.named("process scores")) == ROWS, within=WITHIN)
        worked = collector.named("process pairs")
        assert {(span.trace, span.parent) for span in worked} == {tuple(PARENT.split("-")[1:3])}
        for name, count in (("scored", ROWS - GONE), ("failed", GONE)):
            assert sum(int(span.attributes[f"pairscore.{name}"]) for span in worked) == count
        told = [span for each in worked for span in collector.below(each)]
        stored = [span for each in told for span in collector.below(each)]
        assert (messages(told), messages(stored)) == (ROWS, ROWS)

        # Each rule has been evaluated since, and none comes to anything, not even by and by.
        since = datetime.now(UTC)

        def evaluated() -> bool:
            groups = prometheus.ask("rules")["groups"]
            return all(datetime.fromisoformat(each["lastEvaluation"]) > since for each in groups)

        wait_until(evaluated, within=WITHIN)
        loaded = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in loaded if rule["type"] == "alerting"} == alerts().keys()
        assert [rule["name"] for rule in loaded if rule["health"] != "ok"] == []
        assert prometheus.ask("alerts")["alerts"] == []

        end = time.time()
        window = Window(end - WITHIN, end, 1)
        drawn = picture(FLEET, asking(prometheus.url, window), window, scrape=1)
        assert f">{partitions}</text>" in drawn
        assert ">http_error  " in drawn


def test_prometheus_tells_what_a_deadline_takes(kafka, topic_prefix, tmp_path):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    store = Place(fleet.settings, tmp_path / "results")
    deadline = datetime.now(UTC) + timedelta(hours=1)
    job = JobMessage(
        job="j",
        source="j.csv",
        rows_published=ROWS,
        rows=ROWS,
        state=JobState.CLOSED,
        created_at=datetime.now(UTC),
        deadline=deadline,
    )
    with (
        store.sink() as sink,
        watching(tmp_path, {"sink": sink.port}) as prometheus,
    ):
        fleet.producer.produce(fleet.topics.jobs, key=b"j", value=job.encode())
        fleet.producer.flush(WITHIN)
        wait_until(prometheus.says("pairscore_required_workers", {"j": 1}, "job"), within=WITHIN)
        left = "pairscore_sink_job_rows_left"
        assert prometheus.values(left, "job_name") == {"j": ROWS}
        when = prometheus.values("pairscore_sink_job_deadline_timestamp_seconds", "job_name")
        assert when["j"] == pytest.approx(deadline.timestamp(), abs=0.001)
        told = Told(lambda _: SCORE)
        with working(fleet, told):
            fleet.publish(range(ROWS))
            wait_until(lambda: len(fleet.rows()) == ROWS, within=WITHIN)
        # What is complete is told of no more.
        wait_until(prometheus.says(left, {}, "job_name"), within=WITHIN)


def test_an_alert_comes_of_a_dead_letter(kafka, topic_prefix, tmp_path):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    [port] = free_ports(1)
    with (
        working(fleet, Told(), telemetry={"port": port}),
        watching(tmp_path, {"worker": port}) as prometheus,
    ):
        wait_until(prometheus.says("pairscore_ready", {"worker": 1}, "job"), within=WITHIN)
        fleet.publish_bytes(b"no message")
        firing = 'ALERTS{alertstate="firing"}'
        wait_until(prometheus.says(firing, {"PairscoreDeadLetters": 1}, "alertname"), within=WITHIN)
        found = prometheus.ask("alerts")["alerts"]
        (alert,) = [alert for alert in found if alert["state"] == "firing"]
        assert alert["labels"] == {
            "alertname": "PairscoreDeadLetters",
            "defect": "undecodable",
            "severity": "warning",
        }
        assert alert["annotations"]["summary"] == "Records that are no rows (undecodable)"
