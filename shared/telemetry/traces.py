"""Traces of batches of rows, from who publishes them to where their outcomes are stored.

One trace is one batch. `publish pairs` is its root, or what an API's request has below it; below
that is `process pairs` of each transaction of a worker that has rows of the batch, with `publish
scores` in it; below that `process scores` of each transaction of a sink. Messages carry the W3C
`traceparent` of the span that published them, as a header; one without is in no trace, and costs
nothing. Names and attributes are those of OpenTelemetry's conventions for messaging.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Protocol, TypeAlias

from opentelemetry import trace as otel
from opentelemetry.context import Context

from pairscore import __version__
from shared.settings import TelemetrySettings
from shared.shutdown import try_to_close

HEADER: Final = "traceparent"
"""Of messages, and of requests over HTTP."""

MOST_TRACES: Final = 32
"""Of one transaction have spans, each linked to the others; further ones end there."""

Value: TypeAlias = str | int | float
Headers: TypeAlias = list[tuple[str, str | bytes | None]]

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_CHARS: Final = 55
_LONGEST: Final = 256
_NS: Final = 1_000_000_000
_CLOSE_SECONDS: Final = 1.0
_EXPORT_SECONDS: Final = 5.0
_DELAY_MS: Final = 1_000

PUBLISH: Final = otel.SpanKind.PRODUCER
PROCESS: Final = otel.SpanKind.CONSUMER
SERVE: Final = otel.SpanKind.SERVER


MESSAGES: Final = "messaging.batch.message_count"
"""The attribute that says how many messages a span is about."""


def sending(topics: Collection[str]) -> dict[str, Value]:
    """What a span says that publishes, beside how many `MESSAGES`."""
    return _messaging("send", topics)


def _messaging(operation: str, topics: Collection[str]) -> dict[str, Value]:
    said: dict[str, Value] = {"messaging.system": "kafka", "messaging.operation.type": operation}
    # A span has one destination, or does not say: OpenTelemetry's conventions have no list.
    if len(topics) == 1:
        said["messaging.destination.name"] = next(iter(topics))
    return said


class Span:
    """A span that is kept, until its `end`."""

    def __init__(self, span: otel.Span) -> None:
        self.own = span
        found = span.get_span_context()
        self.trace_id = f"{found.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{found.span_id:016x}-{found.trace_flags:02x}"

    @property
    def headers(self) -> Headers:
        """Those of a message that it publishes."""
        return [(HEADER, self.traceparent)]

    def end(self, why: str = "", attributes: Mapping[str, Value] | None = None) -> None:
        """End it now; `why` it failed, if it did."""
        self.own.set_attributes(attributes or {})
        if why:
            self.own.set_status(otel.StatusCode.ERROR, why)
        self.own.end()


class Tracer:
    """Begins spans; one that is off begins none."""

    def __init__(self, own: otel.Tracer | None = None) -> None:
        self._own = own

    @property
    def on(self) -> bool:
        """Whether there is anywhere to send spans to."""
        return self._own is not None

    def begin(
        self,
        name: str,
        kind: otel.SpanKind,
        parent: str | Span | None = None,
        *,
        since: float | None = None,
        links: Sequence[otel.Link] = (),
        attributes: Mapping[str, Value] | None = None,
    ) -> Span | None:
        """A span below `parent`, or the root of a trace; None where that is not sampled.

        Args:
            name: of what is done.
            kind: `PUBLISH`, `PROCESS` or `SERVE`.
            parent: a span of this process, or the `traceparent` of one of another.
            since: when it began, in seconds since the epoch; now where that is None.
            links: to spans of other traces that it is about too.
            attributes: by their names in OpenTelemetry's conventions.
        """
        if self._own is None:
            return None
        context = Context()
        if parent is not None:
            above = parent.own if isinstance(parent, Span) else _remote(parent)
            if above is None:
                return None
            context = otel.set_span_in_context(above, context)
        span = self._own.start_span(
            name,
            context,
            kind,
            dict(attributes or {}),
            links,
            None if since is None else int(since * _NS),
        )
        return Span(span) if span.is_recording() else None

    def process(
        self,
        name: str,
        topics: Callable[[str], Collection[str]],
        parents: Iterable[str | None],
        since: Callable[[str], float],
    ) -> dict[str, Span]:
        """A span for each trace that messages of a batch are in, by their `traceparent`.

        Each is linked to the others; of very many, the `MOST_TRACES` with the most messages have
        one.

        Args:
            name: of what is done.
            topics: where the messages of a `traceparent` come from.
            parents: the `traceparent` of each message, None where it is in no trace.
            since: when the first one of a `traceparent` was taken, in seconds since the epoch.
        """
        if not self.on:
            return {}
        messages = by_parent(parents)
        links = links_to(messages)
        spans = {
            parent: self.begin(
                name,
                PROCESS,
                parent,
                since=since(parent),
                links=others(parent, links),
                attributes={**_messaging("process", topics(parent)), MESSAGES: count},
            )
            for parent, count in messages.items()
        }
        return {parent: span for parent, span in spans.items() if span is not None}

    @contextmanager
    def serving(self, name: str, traceparent: str | None) -> Iterator[Span | None]:
        """A span of a request, of the client's trace if it is in one, which is `current` inside."""
        with ExitStack() as stack:
            inside = traceparent if traceparent and _PARENT.fullmatch(traceparent) else None
            span = self.begin(name, SERVE, inside)
            if span is not None:
                stack.enter_context(
                    otel.use_span(span.own, end_on_exit=True, record_exception=False)
                )
            yield span


def current() -> str | None:
    """The `traceparent` of the request that is served here, if it is in a trace."""
    span = otel.get_current_span()
    return Span(span).traceparent if span.is_recording() else None


class Carrier(Protocol):
    """A message; `confluent_kafka.Message` is one."""

    def headers(self) -> Any: ...  # noqa: ANN401, D102


def parent_of(message: Carrier) -> str | None:
    """The `traceparent` of a message that is in a trace that is sampled; never raises.

    Whatever its headers are, they are to cost no row, and no memory but for a `traceparent`.
    """
    try:
        headers = message.headers() or ()
    except (SystemError, UnicodeError):  # a name that is no text
        return None
    for name, value in headers:
        if name == HEADER and value is not None and len(value) <= _LONGEST:
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            return None if _remote(text) is None else text[:_CHARS]
    return None


def by_parent(parents: Iterable[str | None]) -> dict[str, int]:
    """How many messages of a batch are of each trace, of the `MOST_TRACES` that have the most."""
    counted = Counter(parent for parent in parents if parent is not None)
    return dict(counted.most_common(MOST_TRACES))


def links_to(parents: Iterable[str]) -> dict[str, otel.Link]:
    """Links to spans, by their `traceparent`."""
    found = {parent: _remote(parent) for parent in parents}
    return {
        parent: otel.Link(span.get_span_context())
        for parent, span in found.items()
        if span is not None
    }


def others(parent: str, links: Mapping[str, otel.Link]) -> list[otel.Link]:
    """All but one: what its span is linked to."""
    return [link for each, link in links.items() if each != parent]


@contextmanager
def tracing(settings: TelemetrySettings, service: str, name: str = "") -> Iterator[Tracer]:
    """A tracer while the block runs, which sends by OTLP over HTTP; off without an endpoint.

    Spans that a collector does not take in time are dropped: nothing ever waits for it, but for at
    most `_CLOSE_SECONDS` at the end. What else OpenTelemetry's exporter can be told (certificates,
    headers, attributes of the resource) is in its own variables, `OTEL_*`.
    """
    if settings.otlp_endpoint is None:
        yield Tracer()
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from shared.telemetry.exporting import Telling

    # It would say each time that it tries again, and why; `Telling` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    resource = {"service.name": f"pairscore-{service}", "service.version": __version__}
    if name:
        resource["service.instance.id"] = name
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.traces_sampled)),
        resource=Resource.create(resource),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint + "/v1/traces", timeout=_EXPORT_SECONDS
    )
    telling = Telling(exporter, settings.otlp_endpoint)
    provider.add_span_processor(BatchSpanProcessor(telling, schedule_delay_millis=_DELAY_MS))
    try:
        yield Tracer(provider.get_tracer("pairscore", __version__))
    finally:
        try_to_close(provider.shutdown, "traces", _CLOSE_SECONDS)
        exporter.shutdown()  # it tries again no more


def _remote(traceparent: str) -> otel.NonRecordingSpan | None:
    """The span of another process; None where it is not sampled, or none at all."""
    found = _PARENT.fullmatch(traceparent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    context = otel.SpanContext(
        int(found[2], 16),
        int(found[3], 16),
        is_remote=True,
        trace_flags=otel.TraceFlags(int(found[4], 16)),
    )
    is_good = context.is_valid and context.trace_flags.sampled
    return otel.NonRecordingSpan(context) if is_good else None
