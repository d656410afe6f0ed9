"""Kafka goes away, in part and as a whole, and comes back."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Literal

import pytest

from deploy import local
from tests.faults.fleet import Fleet, fleet
from tests.faults.group import PARTITIONS
from tests.faults.stage import Stage
from tests.services import had

Tell = Callable[[object], None]

_CAUGHT_UP_SECONDS: Final = 90.0
_ASK_SECONDS: Final = 5.0
_AFTER_OUTAGES: Final = frozenset({0, 3, 70})
"""A worker that librdkafka still holds up in a transaction ends in time, though not in order."""


@pytest.fixture(scope="module")
def one() -> Iterator[local.NativeKafka]:
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def three() -> Iterator[local.NativeKafka]:
    with had(local.kafka(3, native=True)) as kafka:
        yield kafka


@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_broker_that_cannot_be_reached(
    stage: Stage, one: local.NativeKafka, tell: Tell, how: Literal["hangs", "is gone"]
) -> None:
    seconds = stage.scale.of(7, 40)
    with fleet(replace(stage, kafka=one), f"broker-{how.replace(' ', '-')}") as run:
        feed = run.feed()
        run.until_members(3)
        feed.publish(stage.scale.rows // 2)
        run.pause(0.5)
        one.pause(1) if how == "hangs" else one.kill(1)
        feed.complete(stage.scale.rows)
        run.supervisor.pause(seconds)
        one.resume(1) if how == "hangs" else one.start(1)
        tally = run.settle(feed, codes=_AFTER_OUTAGES)
        tell(f"{tally}; {seconds} s, exits {dict(run.supervisor.exits())}")
        tally.check()


def test_each_of_three_brokers_is_restarted_hard(
    stage: Stage, three: local.NativeKafka, tell: Tell
) -> None:
    rounds = stage.scale.of(1, 3)
    nodes = three.nodes * rounds
    share = stage.scale.rows // (2 * len(nodes) + 1)
    with fleet(replace(stage, kafka=three), "brokers") as run:
        feed = run.feed()
        run.until_members(3)
        for node in nodes:
            feed.publish(share)
            run.pause(1.0)
            three.kill(node)
            feed.publish(share)
            run.pause(stage.scale.of(2, 20))
            three.start(node)
            run.supervisor.until(
                lambda: is_whole(run), _CAUGHT_UP_SECONDS, "brokers have not caught up"
            )
        feed.complete(stage.scale.rows)
        tally = run.settle(feed, codes=_AFTER_OUTAGES)
        tell(f"{tally}; {len(nodes)} SIGKILLs, exits {dict(run.supervisor.exits())}")
        tally.check()


def is_whole(run: Fleet) -> bool:
    """Whether every partition of the fleet has all its copies, so that one may be lost again."""
    topics = run.admin.list_topics(timeout=_ASK_SECONDS).topics
    return all(
        len(topics[name].partitions) in {1, PARTITIONS}
        and all(len(each.isrs) == 3 for each in topics[name].partitions.values())
        for name in run.topics.all
    )
