"""Every metric, declared once; docs/reference.md lists them from here.

Names begin with `pairscore_` and the service, units are base units, and no label holds what comes
from outside: a URL and a host never are one, and a job only where few are told of, for a while.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import Metric as Family

from pairscore import __version__
from pairscore.pair import Reason
from shared.messages import Defect

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Service: TypeAlias = Literal["producer", "worker", "sink"]
_Made: TypeAlias = Counter | Gauge | Histogram
_Kind = TypeVar("_Kind", Counter, Gauge, Histogram)

_BRIEF: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


@dataclass(frozen=True, slots=True)
class Label:
    """A label; `values` are all that it can have, or none where settings decide them."""

    name: str
    values: tuple[str, ...] = ()


# By identity: a metric is a key wherever it is counted.
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `buckets` are the upper bounds of a histogram's, in its unit."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def service(self) -> str:
        """The service that has it; empty where all do."""
        word = self.name.split("_")[1]
        return word if word in {"producer", "worker", "sink"} else ""


_ERROR: Final = Label("error", ("", *(reason.value for reason in Reason)))
_DEFECT: Final = Label("defect", tuple(defect.value for defect in Defect))
_RESULT: Final = Label("result", ("committed", "aborted"))
_TOPIC: Final = Label("topic")
_CACHED: Final = Label("kind", ("url", "image", "caption"))
_FOUND: Final = Label("result", ("hit", "miss"))
_JOB: Final = Label("job_name")
_CALL: Final = Label("call", ("look_up", "claim", "put"))

INFO: Final = Metric(
    "pairscore_info", "gauge", "Always 1; says what is running.", (Label("version"),)
)
READY: Final = Metric("pairscore_ready", "gauge", "Whether /readyz answers 200: 1 or 0.")

PRODUCER_ROWS: Final = Metric(
    "pairscore_producer_rows_published_total", "counter", "Rows published, in committed ones."
)
PRODUCER_TRANSACTIONS: Final = Metric(
    "pairscore_producer_transactions_total", "counter", "Transactions ended.", (_RESULT,)
)
PRODUCER_JOBS: Final = Metric(
    "pairscore_producer_jobs_total", "counter", "Jobs closed: all their rows are published."
)

WORKER_OUTCOMES: Final = Metric(
    "pairscore_worker_outcomes_total",
    "counter",
    "Outcomes published, by reason; an empty `error` is a score.",
    (_ERROR,),
)
WORKER_RETRIES: Final = Metric(
    "pairscore_worker_retries_total",
    "counter",
    "Rows published to a retry tier, by its delay in seconds.",
    (Label("tier"),),
)
WORKER_DEAD_LETTERS: Final = Metric(
    "pairscore_worker_dead_letters_total",
    "counter",
    "Records published to the dead-letter topic, by what was wrong with them.",
    (_DEFECT,),
)
WORKER_RECORDS: Final = Metric(
    "pairscore_worker_records_total", "counter", "Records taken, by topic.", (_TOPIC,)
)
WORKER_OLDEST: Final = Metric(
    "pairscore_worker_oldest_unread_seconds",
    "gauge",
    "Age of the record taken last, of the partition that is furthest behind; 0 where all is read.",
    (_TOPIC,),
)
WORKER_COMMITS: Final = Metric(
    "pairscore_worker_commits_total", "counter", "Transactions ended.", (_RESULT,)
)
WORKER_COMMIT_SECONDS: Final = Metric(
    "pairscore_worker_commit_seconds",
    "histogram",
    "A transaction that committed, from its beginning to its end.",
    buckets=_BRIEF,
)
WORKER_ROW_SECONDS: Final = Metric(
    "pairscore_worker_row_seconds",
    "histogram",
    "A row, from its first publishing to its outcome, retries included.",
    buckets=_LONG,
)
WORKER_IN_FLIGHT: Final = Metric(
    "pairscore_worker_in_flight", "gauge", "Rows that are in the scorer."
)
WORKER_UNCONFIRMED: Final = Metric(
    "pairscore_worker_unconfirmed", "gauge", "Rows taken whose outcome is not committed yet."
)
WORKER_UNCONFIRMED_BYTES: Final = Metric(
    "pairscore_worker_unconfirmed_bytes", "gauge", "Size of their messages."
)
WORKER_PAUSED: Final = Metric(
    "pairscore_worker_paused_partitions",
    "gauge",
    "Partitions that are not read now: the window is full, or a retry is not due.",
)
WORKER_ASSIGNED: Final = Metric(
    "pairscore_worker_assigned_partitions", "gauge", "Partitions that this worker has."
)
WORKER_REBALANCES: Final = Metric(
    "pairscore_worker_rebalances_total",
    "counter",
    "Times that partitions came or went.",
    (Label("event", ("assigned", "revoked", "lost")),),
)
WORKER_DROPPED: Final = Metric(
    "pairscore_worker_dropped_outcomes_total",
    "counter",
    "Outcomes dropped because their partition had gone; its new owner has the rows.",
)
WORKER_BUSY_SECONDS: Final = Metric(
    "pairscore_worker_busy_seconds_total",
    "counter",
    "Time in which more rows were there than the scorer takes at once.",
)
WORKER_BUSY_ROWS: Final = Metric(
    "pairscore_worker_busy_rows_total",
    "counter",
    "Rows that came out of it in that time; by the seconds it is what this worker can do.",
)
WORKER_LOST_PLACES: Final = Metric(
    "pairscore_worker_lost_places_total",
    "counter",
    "Partitions where Kafka no longer had what was to be read next; the log says what is missing.",
    (_TOPIC,),
)
WORKER_MODEL: Final = Metric(
    "pairscore_worker_model_info",
    "gauge",
    "Always 1; says what scores are made with.",
    tuple(Label(name) for name in ("fingerprint", "model", "backend", "device", "precision")),
)

WORKER_CACHE_BYTES: Final = Metric(
    "pairscore_worker_cache_bytes", "gauge", "What is remembered in memory."
)
WORKER_CACHE_LOOKUPS: Final = Metric(
    "pairscore_worker_cache_lookups_total",
    "counter",
    "Things that were needed: known already, here or to others, or not.",
    (_CACHED, _FOUND),
)
WORKER_SHARED_CACHE_LOOKUPS: Final = Metric(
    "pairscore_worker_shared_cache_lookups_total",
    "counter",
    "Keys that Redis was asked for, because they were not known here, and that it answered for.",
    (_CACHED, _FOUND),
)
WORKER_SHARED_CACHE_CALLS: Final = Metric(
    "pairscore_worker_shared_cache_calls_total",
    "counter",
    "Round trips to Redis; `failed` are late ones too.",
    (_CALL, Label("result", ("answered", "failed"))),
)
WORKER_SHARED_CACHE_SECONDS: Final = Metric(
    "pairscore_worker_shared_cache_seconds_total",
    "counter",
    "Time that answered round trips took; by their number it is the latency.",
    (_CALL,),
)
WORKER_SHARED_CACHE_WRITTEN: Final = Metric(
    "pairscore_worker_shared_cache_written_bytes_total", "counter", "Entries written to Redis."
)
WORKER_SHARED_CACHE_NOT_WRITTEN: Final = Metric(
    "pairscore_worker_shared_cache_not_written_total",
    "counter",
    "Entries that Redis did not take, or that there was no room to keep for it.",
)
WORKER_SHARED_CACHE_STATE: Final = Metric(
    "pairscore_worker_shared_cache_state",
    "gauge",
    "0: Redis is asked; 1: it is about to be tried again; 2: it is done without.",
)

WORKER_HOST_WAITS: Final = Metric(
    "pairscore_worker_host_waits_total", "counter", "Requests that began."
)
WORKER_HOST_WAIT_SECONDS: Final = Metric(
    "pairscore_worker_host_wait_seconds_total",
    "counter",
    "How long they waited for their hosts, which are asked as often as they may be.",
)
WORKER_HOST_CLOSINGS: Final = Metric(
    "pairscore_worker_host_closings_total",
    "counter",
    "Answers 429 and 503 that say for how long the host is to be left alone.",
)
WORKER_HOST_LET_GO: Final = Metric(
    "pairscore_worker_host_let_go_total",
    "counter",
    "Rows that were not asked for: their host has too many, wants to be left alone, does not "
    "answer.",
    (Label("why", ("slow", "closed", "unreachable")),),
)
WORKER_HOSTS_CALLS: Final = Metric(
    "pairscore_worker_hosts_calls_total",
    "counter",
    "Round trips to Redis about how often hosts may be asked; `failed` are late ones too.",
    (Label("result", ("answered", "failed")),),
)
WORKER_HOSTS_SECONDS: Final = Metric(
    "pairscore_worker_hosts_seconds_total",
    "counter",
    "Time that answered round trips took; by their number it is the latency.",
)
WORKER_HOSTS_STATE: Final = Metric(
    "pairscore_worker_hosts_state",
    "gauge",
    "0: Redis is asked; 1: it is about to be tried again; 2: each worker keeps to its share.",
)
WORKER_HOSTS_WORKERS: Final = Metric(
    "pairscore_worker_hosts_workers",
    "gauge",
    "Workers that share Redis, when that was last known.",
)

SINK_ROWS: Final = Metric(
    "pairscore_sink_rows_stored_total",
    "counter",
    "Outcomes stored, by reason; an empty `error` is a score.",
    (_ERROR,),
)
SINK_DUPLICATES: Final = Metric(
    "pairscore_sink_duplicates_total", "counter", "Outcomes of rows that had one; not stored."
)
SINK_REJECTED: Final = Metric(
    "pairscore_sink_rejected_total",
    "counter",
    "Records that are no message of ours, by what was wrong with them.",
    (_DEFECT,),
)
SINK_LAG: Final = Metric(
    "pairscore_sink_lag_records", "gauge", "Records of `scores` that are not stored yet."
)
SINK_JOBS: Final = Metric(
    "pairscore_sink_jobs_complete_total", "counter", "Jobs whose rows all came to be stored."
)
SINK_STORE_SECONDS: Final = Metric(
    "pairscore_sink_store_seconds",
    "histogram",
    "Storing a batch of records, in one transaction.",
    buckets=_BRIEF,
)
SINK_LEFT: Final = Metric(
    "pairscore_sink_job_rows_left",
    "gauge",
    "Rows that are not stored yet, of the 100 jobs that have the soonest deadlines.",
    (_JOB,),
)
SINK_DEADLINE: Final = Metric(
    "pairscore_sink_job_deadline_timestamp_seconds",
    "gauge",
    "When all of a job is wanted, in seconds since the epoch; of the same jobs.",
    (_JOB,),
)
SINK_SPOOL_BYTES: Final = Metric(
    "pairscore_sink_spool_bytes", "gauge", "Size of the CSV sink's spool on disk."
)

CATALOGUE: Final = (
    INFO,
    READY,
    PRODUCER_ROWS,
    PRODUCER_TRANSACTIONS,
    PRODUCER_JOBS,
    WORKER_OUTCOMES,
    WORKER_RETRIES,
    WORKER_DEAD_LETTERS,
    WORKER_RECORDS,
    WORKER_OLDEST,
    WORKER_COMMITS,
    WORKER_COMMIT_SECONDS,
    WORKER_ROW_SECONDS,
    WORKER_IN_FLIGHT,
    WORKER_UNCONFIRMED,
    WORKER_UNCONFIRMED_BYTES,
    WORKER_PAUSED,
    WORKER_ASSIGNED,
    WORKER_REBALANCES,
    WORKER_DROPPED,
    WORKER_BUSY_SECONDS,
    WORKER_BUSY_ROWS,
    WORKER_LOST_PLACES,
    WORKER_MODEL,
    WORKER_CACHE_BYTES,
    WORKER_CACHE_LOOKUPS,
    WORKER_SHARED_CACHE_LOOKUPS,
    WORKER_SHARED_CACHE_CALLS,
    WORKER_SHARED_CACHE_SECONDS,
    WORKER_SHARED_CACHE_WRITTEN,
    WORKER_SHARED_CACHE_NOT_WRITTEN,
    WORKER_SHARED_CACHE_STATE,
    WORKER_HOST_WAITS,
    WORKER_HOST_WAIT_SECONDS,
    WORKER_HOST_CLOSINGS,
    WORKER_HOST_LET_GO,
    WORKER_HOSTS_CALLS,
    WORKER_HOSTS_SECONDS,
    WORKER_HOSTS_STATE,
    WORKER_HOSTS_WORKERS,
    SINK_ROWS,
    SINK_DUPLICATES,
    SINK_REJECTED,
    SINK_LAG,
    SINK_JOBS,
    SINK_LEFT,
    SINK_DEADLINE,
    SINK_STORE_SECONDS,
    SINK_SPOOL_BYTES,
)


class Metrics:
    """The metrics of the services named, or of all where none is; safe to use from any thread.

    A metric whose labels have a closed list of values is there with all of them, at 0, from the
    start, so that a rate over the first event is right. Using a metric of another service, or a
    value that is not on the list, is a defect: KeyError.
    """

    def __init__(self, *services: Service) -> None:
        self.registry = _Registry()
        ProcessCollector(registry=self.registry)
        self._made: dict[Metric, _Made] = {}
        self._children: dict[tuple[Metric, frozenset[tuple[str, str]]], _Made] = {}
        for metric in CATALOGUE:
            if not services or metric.service in {"", *services}:
                self._add(metric)
        self.set(INFO, 1, version=__version__)

    def inc(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        self._child(Counter, metric, labels).inc(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Give a gauge its value."""
        self._child(Gauge, metric, labels).set(value)

    def set_all(self, metric: Metric, values: Mapping[str, float]) -> None:
        """Give a gauge of one label these values, and no others."""
        made = self._made[metric]
        if not isinstance(made, Gauge):
            raise TypeError(f"{metric.name} is no gauge")
        made.clear()
        for label, value in values.items():
            made.labels(label).set(value)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Count a value in a histogram."""
        self._child(Histogram, metric, labels).observe(value)

    def _add(self, metric: Metric) -> None:
        names = [label.name for label in metric.labels]
        self._made[metric] = made = _make(metric, names, self.registry)
        if names:
            # None, where a label's values are not known.
            for values in product(*(label.values for label in metric.labels)):
                made.labels(*values)

    def _child(self, kind: type[_Kind], metric: Metric, labels: dict[str, str]) -> _Kind:
        key = (metric, frozenset(labels.items()))
        child = self._children.get(key)
        if child is None:
            made = self._made[metric]
            for label in metric.labels:
                if label.values and labels[label.name] not in label.values:
                    raise KeyError(f"{metric.name}: {label.name}={labels[label.name]!r}")
            child = self._children[key] = made.labels(**labels) if metric.labels else made
        if not isinstance(child, kind):
            raise TypeError(f"{metric.name} is no {kind.__name__.lower()}")
        return child


class _Registry(CollectorRegistry):
    """Leaves out when each series began, which nothing here asks and doubles their number."""

    def collect(self) -> Iterator[Family]:
        for family in super().collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def _make(metric: Metric, labels: list[str], registry: CollectorRegistry) -> _Made:
    if metric.kind == "histogram":
        return Histogram(
            metric.name, metric.help, labels, registry=registry, buckets=metric.buckets
        )
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, metric.help, labels, registry=registry)
