"""The spans of one transaction: how many, and what they say when it fails."""

import pytest

from shared.settings import KafkaSettings, TelemetrySettings
from shared.telemetry.traces import MOST_TRACES, tracing
from shared.topics import Topics
from tests.otlp import collecting
from worker.ledger import Plan
from worker.publication import Kind, Publication, Traced
from worker.spans import BatchSpans
from worker.transactions import Aborted

TOPICS = Topics.of(KafkaSettings())


def publication(trace: int, label: str = "", kind: Kind = Kind.SCORE) -> Publication:
    parent = f"00-{trace:032x}-{trace:016x}-01"
    return Publication(
        kind, label, TOPICS.scores, b"k", b"v", trace=Traced(parent, 1_000.0, TOPICS.pairs)
    )


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


def test_of_very_many_traces_the_largest_have_spans(collector):
    outcomes = [publication(trace) for trace in range(1, 2_001)] + [publication(7)]
    plan = Plan(tuple(outcomes), {(TOPICS.pairs, 0): 1})
    with tracing(TelemetrySettings(otlp_endpoint=collector.endpoint), "worker") as tracer:
        with BatchSpans(tracer, outcomes) as spans:
            carried = spans.carried_by(plan)
        assert len(spans.trace_ids) == MOST_TRACES
    assert spans.trace_ids[0] == f"{7:032x}"
    assert sum(bool(each.headers) for each in carried.outcomes) == MOST_TRACES + 1
    worked = collector.named("process pairs")
    assert len(worked) == MOST_TRACES
    assert {len(span.links) for span in worked} == {MOST_TRACES - 1}


def test_a_transaction_that_fails_says_so_in_all_of_its_spans(collector):
    outcomes = [
        publication(1),
        publication(1, "timeout"),
        publication(1, "5", Kind.RETRY),
        publication(2),
    ]
    with (
        tracing(TelemetrySettings(otlp_endpoint=collector.endpoint), "worker") as tracer,
        pytest.raises(Aborted),
        BatchSpans(tracer, outcomes),
    ):
        raise Aborted("no broker")
    assert {span.failed for span in collector.spans} == {"Aborted: no broker"}
    assert len(collector.spans) == 4
    [first] = [span for span in collector.named("process pairs") if span.trace == f"{1:032x}"]
    figures = [first.attributes[f"pairscore.{word}"] for word in ("scored", "failed", "retried")]
    assert figures == [1, 1, 1]
