"""What a worker tells of hosts: how rows waited for them, and who says how often they are asked."""

from collections.abc import Iterator

from pairscore.fetch import FetchStats
from pairscore.fetch.stats import Hold
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.shared import ASK, SharedBudgets
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import Metrics
from worker.totals import Count, Totals


class HostMeter:
    """Belongs to one thread."""

    def __init__(
        self, metrics: Metrics, fetched: FetchStats, budgets: LocalBudgets | SharedBudgets
    ) -> None:
        self._metrics = metrics
        self._fetched = fetched
        self._budgets = budgets
        self._totals = Totals(metrics)

    def show(self, now: float) -> None:
        """Bring the metrics up to date, once a second; `now` is seconds."""
        if not self._totals.are_due(now):
            return
        self._totals.advance(_of_fetching(self._fetched))
        self._metrics.set(catalogue.WORKER_HOSTS_WORKERS, self._budgets.workers)
        if isinstance(self._budgets, SharedBudgets):
            self._metrics.set(catalogue.WORKER_HOSTS_STATE, self._budgets.stats.state)
            self._totals.advance(_of_asking(self._budgets))


def _of_fetching(fetched: FetchStats) -> Iterator[Count]:
    yield catalogue.WORKER_HOST_WAITS, {}, fetched.waits
    yield catalogue.WORKER_HOST_WAIT_SECONDS, {}, fetched.wait_seconds
    yield catalogue.WORKER_HOST_CLOSINGS, {}, fetched.closings
    for hold in Hold:
        yield catalogue.WORKER_HOST_LET_GO, {"why": hold.value}, fetched.let_go[hold]


def _of_asking(budgets: SharedBudgets) -> Iterator[Count]:
    calls, stats = catalogue.WORKER_HOSTS_CALLS, budgets.stats
    yield calls, {"result": "answered"}, stats.calls[ASK]
    yield calls, {"result": "failed"}, stats.errors[ASK]
    yield catalogue.WORKER_HOSTS_SECONDS, {}, stats.seconds[ASK]
