"""One trace from who publishes rows to where their outcomes are stored, with real Kafka."""

import json
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.local import Kafka, Postgres
from tests.fetching import wait_until
from tests.otlp import PARENT, SPAN, TRACE, Collector, collecting, messages
from tests.postgres_sinks import database
from tests.producing import Place, place
from tests.serving import serving_api
from tests.whole_fleet import publish, running, wait_for_outcomes, write_rows
from tests.working import PASSING, SCORE, WITHIN, Fleet, Told, working

ROWS = 50
SINKS = ("pairscore-sink-csv", "pairscore-sink-postgres")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def fleet(kafka: Kafka, topic_prefix: str) -> Fleet:
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


@pytest.fixture
def there(kafka: Kafka, topic_prefix: str) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix)


def traced(collector: Collector) -> dict[str, object]:
    return {"port": 0, "otlp_endpoint": collector.endpoint, "traces_sampled": 0.0}


def all_are_stored(collector: Collector, sink: str, count: int) -> bool:
    return messages([s for s in collector.named("process scores") if s.service == sink]) == count


def test_a_batch_is_one_trace_from_the_producer_to_both_sinks(
    there: Place, collector: Collector, postgres_service: Postgres, tmp_path: Path
) -> None:
    source, results = tmp_path / "rows.csv", tmp_path / "results"
    write_rows(source, ROWS)
    with database(postgres_service.url) as url:
        environment = there.environment(
            PAIRSCORE_RESULTS=str(results),
            PAIRSCORE_POSTGRES_URL=url,
            PAIRSCORE_MODEL="demo",
            PAIRSCORE_PRODUCER__TRANSACTION_ROWS="20",
            PAIRSCORE_TELEMETRY__PORT="0",
            PAIRSCORE_TELEMETRY__OTLP_ENDPOINT=collector.endpoint,
            PAIRSCORE_TELEMETRY__TRACES_SAMPLED="1",
        )
        with running(tmp_path, lambda _: environment):
            publish(source, "traced", environment)
            wait_for_outcomes(results, url, "traced", source, ROWS)
            for sink in SINKS:
                wait_until(partial(all_are_stored, collector, sink, ROWS), within=WITHIN)

    batches = collector.named("publish pairs")
    assert sorted(messages([batch]) for batch in batches) == [10, 20, 20]
    assert {(span.service, span.parent, span.failed) for span in batches} == {
        ("pairscore-producer", "", "")
    }
    for batch in batches:
        worked = collector.below(batch)
        assert {(span.service, span.name) for span in worked} == {
            ("pairscore-worker", "process pairs")
        }
        assert messages(worked) == sum(int(s.attributes["pairscore.failed"]) for s in worked)
        assert messages(worked) == messages([batch])
        told = [span for each in worked for span in collector.below(each)]
        assert [span.name for span in told] == ["publish scores"] * len(worked)
        assert all(span.began >= batch.began for span in told)
        stored = [span for each in told for span in collector.below(each)]
        for sink in SINKS:
            assert messages([span for span in stored if span.service == sink]) == messages([batch])
        assert {span.name for span in stored} == {"process scores"}
    assert {span.trace for span in collector.spans} == {batch.trace for batch in batches}
    assert not [span for span in collector.spans if span.failed]


def test_batches_that_were_scored_together_are_linked(
    fleet: Fleet, collector: Collector, tmp_path: Path
) -> None:
    headers = {f"00-{number:032x}-{SPAN}-01" for number in (1, 2, 3)}
    kept = Told(lambda _: None)
    with working(fleet, kept, telemetry=traced(collector)):
        for row, header in enumerate(sorted(headers)):
            fleet.publish(range(row, row + 1), trace=header)
        fleet.publish(range(3, 4))
        wait_until(lambda: len(kept.kept) == 4, within=WITHIN)
        kept.finish(range(4))
        wait_until(lambda: fleet.rows() == [0, 1, 2, 3], within=WITHIN)
    together = collector.named("process pairs")
    assert sorted(span.trace for span in together) == sorted(each[3:35] for each in headers)
    for span in together:
        assert {trace for trace, _ in span.links} | {span.trace} == {h[3:35] for h in headers}


def test_a_retry_goes_on_in_the_trace_of_its_row(fleet: Fleet, collector: Collector) -> None:
    tried: list[str] = []

    def answer(pair: object) -> object:
        tried.append("")
        return PASSING if len(tried) == 1 else SCORE

    with working(fleet, Told(answer), telemetry=traced(collector)):  # type: ignore[arg-type]
        fleet.publish(range(1), trace=PARENT)
        wait_until(lambda: fleet.rows() == [0], within=WITHIN)
    first, second = sorted(collector.named("process pairs"), key=lambda span: span.began)
    assert (first.trace, first.parent) == (TRACE, SPAN)
    assert first.attributes["pairscore.retried"] == 1
    [told] = collector.below(first)
    assert (second.trace, second.parent) == (TRACE, told.id)
    assert second.attributes["pairscore.scored"] == 1
    [scored] = collector.below(second)
    tier = fleet.topics.retries[0].topic
    topics = [
        span.attributes["messaging.destination.name"] for span in (first, told, second, scored)
    ]
    assert topics == [fleet.topics.pairs, tier, tier, fleet.topics.scores]


def test_a_request_is_the_beginning_of_its_rows_trace_and_may_be_in_a_clients(
    fleet: Fleet, collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"pairs": [{"url": "http://e.org/0.jpg", "caption": "a"}] * 2}
    telemetry = traced(collector)
    with (
        serving_api(fleet.settings, tmp_path, telemetry=telemetry) as api,
        working(fleet, Told(), telemetry=telemetry),
    ):
        assert api.post("/v1/scores", body, headers={"traceparent": PARENT}).ok
        assert api.post("/v1/scores", body).ok
        job = api.post("/v1/jobs", body, headers={"traceparent": PARENT}).json()
        wait_until(lambda: len(fleet.rows()) == 6, within=WITHIN)
    assert job["rows"] == 2
    assert {span.trace for span in collector.spans} == {TRACE}, "that without is not sampled"
    [inline] = collector.named("POST /v1/scores")
    assert (inline.service, inline.parent) == ("pairscore-api", SPAN)
    assert inline.attributes["http.response.status_code"] == 200
    for request in (inline, *collector.named("POST /v1/jobs")):
        [published] = collector.below(request)
        assert (published.name, messages([published])) == ("publish pairs", 2)
        assert messages(collector.below(published)) == 2
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in said if line.get("trace_id") == TRACE] == [
        "POST /v1/scores 200",
        "POST /v1/jobs 202",
    ]


def test_a_large_upload_is_traces_of_its_own_that_lead_back_to_the_request(
    fleet: Fleet, collector: Collector, tmp_path: Path
) -> None:
    lines = "".join(f'{{"url": "http://e.org/{row}.jpg", "caption": "a"}}\n' for row in range(5))
    telemetry = {**traced(collector), "traces_sampled": 1.0}
    producer = {"transaction_rows": 3}
    headers = {"traceparent": PARENT, "content-type": "application/x-ndjson"}
    with serving_api(fleet.settings, tmp_path, telemetry=telemetry, producer=producer) as api:
        assert api.post("/v1/jobs", data=lines.encode(), headers=headers).status_code == 202
    [request] = collector.named("POST /v1/jobs")
    batches = collector.named("publish pairs")
    assert sorted(messages([batch]) for batch in batches) == [2, 3]
    assert {batch.links for batch in batches} == {((TRACE, request.id),)}
    assert TRACE not in {batch.trace for batch in batches}


def test_a_job_is_done_whatever_became_of_the_collector(fleet: Fleet, collector: Collector) -> None:
    collector.refusals = 1_000_000
    name = uuid.uuid4().hex
    with working(fleet, Told(), telemetry=traced(collector)):
        fleet.publish(range(20), job=name, trace=PARENT)
        wait_until(lambda: fleet.rows() == list(range(20)), within=WITHIN)
    assert collector.refusals < 1_000_000, "it was asked"
    assert not collector.spans
