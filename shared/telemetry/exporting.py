"""Says when spans cannot be sent, and when they can again."""

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)


class Telling(SpanExporter):
    """An exporter that says once that it fails, rather than each time."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or drop them."""
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            _log.warning("traces cannot be sent to %s, and are dropped meanwhile", self._endpoint)
        elif self._failing and not failing:
            _log.info("traces are sent again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()
