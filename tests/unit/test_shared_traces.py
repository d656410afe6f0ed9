"""Spans: which are made, what carries them, and that nothing waits for who collects them."""

import socket
import threading
import time
from functools import partial
from typing import Any

import pytest

from pairscore.errors import SettingsError
from shared.settings import ProducerSettings, TelemetrySettings, read_service_settings
from shared.telemetry.traces import (
    HEADER,
    MOST_TRACES,
    PROCESS,
    PUBLISH,
    Span,
    Tracer,
    by_parent,
    current,
    links_to,
    others,
    parent_of,
    tracing,
)
from tests.fetching import wait_until
from tests.otlp import PARENT, SPAN, TRACE, Collector, collecting


@pytest.fixture
def collector():
    with collecting() as collector:
        yield collector


def begun(tracer: Tracer, *arguments: Any, **options: Any) -> Span:
    span = tracer.begin(*arguments, **options)
    assert span is not None
    return span


def fewer(collector: Collector, refusals: int) -> bool:
    return collector.refusals < refusals


def settings_of(endpoint, sampled=1.0):
    return TelemetrySettings(otlp_endpoint=endpoint, traces_sampled=sampled)


def test_without_endpoint_there_are_no_spans():
    with tracing(TelemetrySettings(), "worker") as tracer:
        assert not tracer.on
        assert tracer.begin("publish pairs", PUBLISH) is None
        assert tracer.begin("process pairs", PROCESS, PARENT) is None


def test_a_span_goes_on_where_the_message_came_from(collector):
    with tracing(settings_of(collector.endpoint), "worker", "one") as tracer:
        about = {"messaging.system": "kafka"}
        outer = begun(tracer, "process pairs", PROCESS, PARENT, since=1_000.0, attributes=about)
        inner = begun(tracer, "publish scores", PUBLISH, outer)
        [(name, value)] = inner.headers
        inner.end()
        outer.end("Aborted: no broker", {"pairscore.scored": 3})
    [process] = collector.named("process pairs")
    [publish] = collector.named("publish scores")
    assert (process.service, process.trace, process.parent) == ("pairscore-worker", TRACE, SPAN)
    assert process.began == 1_000.0
    assert process.failed == "Aborted: no broker"
    assert process.attributes == {"messaging.system": "kafka", "pairscore.scored": 3}
    assert collector.below(process) == [publish]
    assert (name, value) == (HEADER, f"00-{TRACE}-{publish.id}-01")
    assert parent_of(Carried([("other", b"x"), (name, str(value).encode())])) == value


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        "",
        "nonsense",
    ],
)
def test_what_is_not_sampled_or_no_traceparent_begins_nothing(collector, header):
    with tracing(settings_of(collector.endpoint), "worker") as tracer:
        assert tracer.begin("process pairs", PROCESS, header) is None


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known(collector):
    with tracing(settings_of(collector.endpoint), "worker") as tracer:
        assert tracer.begin("process pairs", PROCESS, f"01-{TRACE}-{SPAN}-01-more") is not None


def test_so_many_are_sampled_as_was_set(collector):
    with tracing(settings_of(collector.endpoint, 0.2), "producer") as tracer:
        kept = sum(tracer.begin("publish pairs", PUBLISH) is not None for _ in range(2_000))
    assert 300 < kept < 500
    with tracing(settings_of(collector.endpoint, 0.0), "producer") as tracer:
        assert tracer.begin("publish pairs", PUBLISH) is None
        # What another has begun to follow is followed to its end.
        assert tracer.begin("process pairs", PROCESS, PARENT) is not None


def test_links_lead_to_the_other_batches_of_a_transaction(collector):
    other = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    links = links_to([*other, "nonsense", PARENT])
    with tracing(settings_of(collector.endpoint), "worker") as tracer:
        begun(tracer, "process pairs", PROCESS, PARENT, links=others(PARENT, links)).end()
    [span] = collector.named("process pairs")
    assert span.links == (("0" * 31 + "1", "0" * 15 + "1"), ("0" * 31 + "2", "0" * 15 + "2"))


def test_messages_are_counted_by_the_trace_they_are_in_of_the_largest():
    assert by_parent([None, PARENT, "x", None, PARENT]) == {PARENT: 2, "x": 1}
    many = [f"{number}" for number in range(1_000)]
    assert len(by_parent([*many, "500", "x", "x"])) == MOST_TRACES
    assert list(by_parent([*many, "500", "x", "x", "x"]))[:2] == ["x", "500"]


class Carried:
    """A message with headers, or one whose headers the client cannot read."""

    def __init__(self, headers: object) -> None:
        self._headers = headers

    def headers(self) -> object:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        # What confluent-kafka makes of a name that is no UTF-8.
        SystemError("returned a result with an exception set"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        [(HEADER, None)],
        [(HEADER, b"\xff" * 55)],
        [(HEADER, PARENT.replace("-01", "-00").encode())],
        [(HEADER, b"01" + PARENT[2:].encode() + b"-" + b"x" * 1_000_000)],
        [("Traceparent", PARENT.encode())],
    ],
    ids=["none", "no list", "no name", "no text", "no value", "bytes", "unsampled", "long", "case"],
)
def test_whatever_headers_a_message_has_it_is_read(headers):
    assert parent_of(Carried(headers)) is None


def test_no_more_of_a_header_is_kept_than_there_is_to_know():
    longer = f"01{PARENT[2:]}-more"
    assert parent_of(Carried([(HEADER, longer.encode())])) == longer[:55]


def test_a_collector_that_is_away_is_told_of_once(collector, caplog):
    collector.refusals = 1_000_000
    caplog.set_level("INFO")
    with tracing(settings_of(collector.endpoint), "x") as tracer:
        for _ in range(2):
            begun(tracer, "publish pairs", PUBLISH).end()
            wait_until(partial(fewer, collector, collector.refusals))
        collector.refusals = 0
        begun(tracer, "publish pairs", PUBLISH).end()
        wait_until(lambda: bool(collector.spans), within=20)
    said = [record.getMessage() for record in caplog.records]
    assert all("dropped" in line or "again" in line for line in said), said
    assert len(said) <= 2


def test_a_request_is_a_span_that_is_current_while_it_is_served(collector):
    with tracing(settings_of(collector.endpoint), "api") as tracer:
        with tracer.serving("GET", "nonsense") as root:
            assert root is not None
            assert current() == root.traceparent
        with tracer.serving("GET", PARENT) as inside:
            assert inside is not None
            assert inside.trace_id == TRACE
        with tracer.serving("GET", f"00-{TRACE}-{SPAN}-00") as unsampled:
            assert unsampled is None
            assert current() is None
    assert {span.parent for span in collector.named("GET")} == {"", SPAN}


def test_nothing_waits_for_a_collector_that_does_not_answer(caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with tracing(settings_of(f"http://127.0.0.1:{silent.getsockname()[1]}"), "x") as tracer:
            for _ in range(5_000):
                begun(tracer, "publish pairs", PUBLISH).end()
            assert time.monotonic() - began < 2.0
        assert time.monotonic() - began < 6.0
        wait_until(lambda: not any("Otel" in each.name for each in threading.enumerate()))


def test_what_a_collector_refuses_at_first_is_sent_again(collector):
    collector.refusals = 1
    with tracing(settings_of(collector.endpoint), "x") as tracer:
        begun(tracer, "publish pairs", PUBLISH).end()
        wait_until(lambda: bool(collector.spans))
    assert [span.name for span in collector.spans] == ["publish pairs"]


def test_an_endpoint_that_is_no_url_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("PAIRSCORE_TELEMETRY__OTLP_ENDPOINT", "otel-collector:4317")
    with pytest.raises(SettingsError, match=r"OTLP_ENDPOINT.*http://otel-collector:4318") as error:
        read_service_settings(ProducerSettings)
    assert "\n" not in str(error.value)


def test_an_empty_endpoint_is_none():
    assert not Tracer().on
    assert TelemetrySettings(otlp_endpoint="").otlp_endpoint is None
