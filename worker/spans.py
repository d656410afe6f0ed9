"""The spans of one transaction, for the batches of rows that it has outcomes of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, NamedTuple, Self

from shared.telemetry.traces import (
    MESSAGES,
    PUBLISH,
    Span,
    Tracer,
    sending,
)
from worker.ledger import Plan
from worker.publication import Kind, Publication

_BECAME: Final = ("scored", "failed", "retried")


class _Pair(NamedTuple):
    process: Span
    publish: Span


class BatchSpans:
    """While entered, the transaction is under way.

    For each batch, `process pairs` lasts from when the first of its rows was taken until they are
    committed, and in it `publish scores` as long as the transaction. Those of the other batches in
    the transaction are linked. Of very many, the largest have spans.
    """

    def __init__(self, tracer: Tracer, outcomes: Sequence[Publication]) -> None:
        self._outcomes = outcomes
        self._spans: dict[str, _Pair] = {}
        if tracer.on:
            self._begin(tracer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._spans:
            return
        why = "" if error is None else f"{type(error).__name__}: {error}"
        came = Counter(
            (each.trace.parent, _became(each)) for each in self._outcomes if each.trace is not None
        )
        for parent, spans in self._spans.items():
            figures = {f"pairscore.{word}": came[parent, word] for word in _BECAME}
            spans.publish.end(why, {MESSAGES: sum(figures.values())})
            spans.process.end(why, figures)

    @property
    def trace_ids(self) -> Sequence[str]:
        """Of the traces that have spans."""
        return [spans.process.trace_id for spans in self._spans.values()]

    def carried_by(self, plan: Plan[Publication]) -> Plan[Publication]:
        """The plan, with the headers that its messages are to carry."""
        if not self._spans:
            return plan
        return replace(plan, outcomes=tuple(self._carried_by(each) for each in plan.outcomes))

    def _carried_by(self, publication: Publication) -> Publication:
        spans = self._spans.get(publication.trace.parent) if publication.trace else None
        if spans is None:
            return publication
        return replace(publication, headers=(*publication.headers, *spans.publish.headers))

    def _begin(self, tracer: Tracer) -> None:
        since: dict[str, float] = {}
        sources: dict[str, set[str]] = {}
        targets: dict[str, set[str]] = {}
        parents: list[str] = []
        for each in self._outcomes:
            if (trace := each.trace) is not None:
                parents.append(trace.parent)
                since[trace.parent] = min(trace.since, since.get(trace.parent, trace.since))
                sources.setdefault(trace.parent, set()).add(trace.topic)
                targets.setdefault(trace.parent, set()).add(each.topic)
        begun = tracer.process("process pairs", sources.__getitem__, parents, since.__getitem__)
        for parent, process in begun.items():
            attributes = sending(targets[parent])
            publish = tracer.begin("publish scores", PUBLISH, process, attributes=attributes)
            if publish is not None:
                self._spans[parent] = _Pair(process, publish)


def _became(publication: Publication) -> str:
    if publication.kind is Kind.RETRY:
        return "retried"
    return "failed" if publication.label else "scored"
