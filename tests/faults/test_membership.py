"""Workers come and go, by both protocols of Kafka's groups."""

from collections.abc import Callable
from typing import Final, Literal

import pytest

from pairscore.pair import Reason
from tests.faults.data import Row
from tests.faults.fleet import TERM_SECONDS, fleet
from tests.faults.group import PARTITIONS
from tests.faults.stage import Stage

Tell = Callable[[object], None]
Protocol = Literal["consumer", "classic"]

_MOST_DELAY: Final = 1.5
_FEWEST, _MOST = 2, 5
_PARKED_SECONDS: Final = 8


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_workers_join_and_leave_while_rows_come(
    stage: Stage, tell: Tell, protocol: Protocol
) -> None:
    changes = stage.scale.of(6, 50)
    # A window that is soon full: partitions that are given away are often paused ones.
    settings = {"kafka__group_protocol": protocol, "window": "60"}
    with fleet(stage, f"membership-{protocol}", settings) as run:
        feed = run.feed()
        joins = 0
        for _ in range(changes):
            feed.publish(stage.scale.rows // (changes + 1))
            run.pause(_MOST_DELAY)
            count = len(run.workers)
            if count < _MOST and (count <= _FEWEST or run.random.random() < 0.5):
                run.start_worker()
                joins += 1
            else:
                run.supervisor.end(run.victim(), TERM_SECONDS)
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; {joins} joins, {changes - joins} leaves")
        tally.check()
        assert set(run.supervisor.exits()) == {0}


def test_partitions_come_back_while_rows_of_theirs_wait(stage: Stage, tell: Tell) -> None:
    """A partition of a retry tier is paused while its head is not due, and given away like that."""
    protocols: list[Protocol] = ["consumer", "classic"]
    failing = [
        Row((f"r{n}", f"{stage.pictures}/status/500/{n}.jpg", "a circle", ""), Reason.HTTP_ERROR)
        for n in range(4 * PARTITIONS)
    ]
    for protocol in protocols[: stage.scale.of(1, 2)]:
        settings = {
            "kafka__group_protocol": protocol,
            "kafka__retry_delays": str(_PARKED_SECONDS),
            "fetch__attempts": "2",
        }
        with fleet(stage, f"parked-{protocol}", settings, workers=1) as run:
            run.until_members(1)
            feed = run.feed(rows=failing)
            feed.publish(len(failing))
            feed.flush()
            waiting = f"parked-{protocol}.pairs.retry.{_PARKED_SECONDS}s"
            run.supervisor.until(
                lambda: {topic for topic, _ in run.group.lags()} == {waiting},  # noqa: B023 - called here
                30.0,
                "not all rows are waiting",
                run.group.explain,
            )
            other = run.start_worker()
            run.until_members(2)
            run.supervisor.end(other, TERM_SECONDS)
            tally = run.settle(feed)
            tell(f"{tally}; {protocol}")
            tally.check()
            assert {value["attempts"] for value in run.scores.found.values()} == {2}
