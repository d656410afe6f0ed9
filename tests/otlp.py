"""A collector of traces, OTLP over HTTP, that keeps what it is sent."""

import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

Value = str | int | float

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
"""A `traceparent` that is sampled, for tests."""


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: Mapping[str, Value]
    began: float
    ended: float
    failed: str


def messages(spans: Iterable[Seen]) -> int:
    """How many messages spans are about, all together."""
    return sum(int(span.attributes["messaging.batch.message_count"]) for span in spans)


@dataclass
class Collector:
    """What came, and how often it is to answer 503 first."""

    endpoint: str
    spans: list[Seen] = field(default_factory=list)
    refusals: int = 0

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def below(self, span: Seen) -> list[Seen]:
        return [each for each in self.spans if (each.trace, each.parent) == (span.trace, span.id)]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = 503 if collector.refusals > 0 or self.path != "/v1/traces" else 200
            collector.refusals -= 1
            if code == 200:
                zipped = self.headers.get("Content-Encoding") == "gzip"
                collector.spans += read(gzip.decompress(body) if zipped else body)
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read(body: bytes) -> Iterator[Seen]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = plain(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                failed = span.status.code == Status.STATUS_CODE_ERROR
                yield Seen(
                    str(service),
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    plain(span.attributes),
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    span.status.message if failed else "",
                )


def plain(attributes: "list[KeyValue]") -> dict[str, Value]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }
