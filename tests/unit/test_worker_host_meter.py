"""What a worker's metrics say of hosts."""

from pairscore.fetch import FetchStats
from pairscore.fetch.stats import Hold
from pairscore.guard import CallStats, State
from pairscore.politeness.budgets import LocalBudgets
from pairscore.politeness.limits import Budget, HostLimits
from pairscore.politeness.shared import ASK, SharedBudgets
from shared.telemetry import metrics as catalogue
from shared.telemetry.metrics import Metrics
from tests.unit.test_worker_cache_meter import samples
from worker.host_meter import HostMeter

LOCAL = LocalBudgets(HostLimits(Budget(20.0, 8)), lease=20)


def test_labels_are_those_that_fetching_counts_by():
    [why] = catalogue.WORKER_HOST_LET_GO.labels
    assert why.values == tuple(each.value for each in Hold)


def test_waits_and_rows_that_were_let_go_are_counted_once_each():
    metrics, fetched = Metrics("worker"), FetchStats()
    meter = HostMeter(metrics, fetched, LOCAL)
    assert samples(metrics)["host_let_go_total", "closed"] == 0
    fetched.waits, fetched.wait_seconds, fetched.closings = 4, 2.5, 1
    fetched.let_go[Hold.CLOSED] += 3
    meter.show(10.0)
    meter.show(10.5)  # not yet again
    meter.show(12.0)
    found = samples(metrics)
    assert found["host_waits_total",] == 4
    assert found["host_wait_seconds_total",] == 2.5
    assert found["host_closings_total",] == 1
    assert found["host_let_go_total", "closed"] == 3
    assert found["host_let_go_total", "slow"] == 0
    assert found["hosts_workers",] == 1
    assert fetched.mean_wait == 2.5 / 4


class Asked(SharedBudgets):
    """Shared budgets that ask nobody."""

    def __init__(self) -> None:
        self.stats = CallStats()  # type: ignore[misc]
        self._local = LOCAL


def test_what_redis_answers_is_counted_and_whether_it_does():
    metrics, budgets = Metrics("worker"), Asked()
    meter = HostMeter(metrics, FetchStats(), budgets)
    budgets.stats.answered(ASK, 5, 0.25)
    budgets.stats.failed(ASK)
    budgets.stats.state = State.OPEN
    meter.show(1.0)
    found = samples(metrics)
    assert found["hosts_calls_total", "answered"] == 1
    assert found["hosts_calls_total", "failed"] == 1
    assert found["hosts_seconds_total",] == 0.25
    assert found["hosts_state",] == 2
