"""Workers are killed, ended, and made to hang, while rows come."""

import signal
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from tests.faults.data import Feed, patient
from tests.faults.fleet import TERM_SECONDS, Fleet, fleet
from tests.faults.stage import Stage
from tests.faults.supervisor import Service
from tests.faults.worker_main import Point

Tell = Callable[[object], None]

_MOST_DELAY: Final = 1.0


def test_workers_killed_at_random_moments(stage: Stage, tell: Tell) -> None:
    kills = stage.scale.of(5, 30)
    with fleet(stage, "killed") as run:
        feed = run.feed()
        for _ in range(kills):
            victim = run.victim()
            feed.publish(stage.scale.rows // (kills + 1))
            run.pause(_MOST_DELAY)
            run.supervisor.kill(victim)
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; {kills} SIGKILLs")
        tally.check()
        assert run.supervisor.exits() == {-signal.SIGKILL: kills, 0: 4}


def test_workers_asked_to_end_while_rows_come(stage: Stage, tell: Tell) -> None:
    ends = stage.scale.of(4, 20)
    with fleet(stage, "ended") as run:
        feed = run.feed()
        run.until_members(3)
        slowest = 0.0
        for _ in range(ends):
            worker = run.victim()
            feed.publish(stage.scale.rows // (ends + 1))
            run.pause(_MOST_DELAY)
            slowest = max(slowest, run.supervisor.end(worker, TERM_SECONDS))
            run.supervisor.start_again(worker)
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; {ends} SIGTERMs, each exit 0, the slowest after {slowest:.1f} s")
        tally.check()
        assert set(run.supervisor.exits()) == {0}


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_workers_hang_and_go_on_as_zombies(stage: Stage, tell: Tell, protocol: str) -> None:
    settings = {"kafka__group_protocol": protocol}
    with fleet(stage, f"zombies-{protocol}", settings) as run:
        feed = run.feed()
        run.until_members(3)
        rounds = stage.scale.of(1, 3)
        for _ in range(rounds):
            victim = run.victim()
            feed.publish(stage.scale.rows // (rounds + 1))
            run.pause(_MOST_DELAY / 2)
            victim.send(signal.SIGSTOP)
            run.supervisor.until(lambda: victim.stopped, 10.0, "SIGSTOP does not stop")  # noqa: B023
            feed.publish(stage.scale.rows // (2 * rounds + 2))
            outlast(run, 2)
            victim.send(signal.SIGCONT)
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; {rounds} times SIGSTOP and SIGCONT")
        tally.check()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_workers_hang_inside_of_transactions(stage: Stage, tell: Tell, protocol: str) -> None:
    settings = {"kafka__group_protocol": protocol}
    points = [Point.BEFORE_SEND_OFFSETS, Point.BEFORE_COMMIT]
    if stage.scale.long:
        points = list(Point)
    with fleet(stage, f"hung-{protocol}", settings, workers=1) as run:
        feed = run.feed()
        for two in zip(points[::2], points[1::2], strict=True):
            struck = [run.start_worker(iter([fate("STOP", run, point)])) for point in two]
            run.until_members(3)
            trickle(run, feed, struck_of(struck))
            outlast(run, 1)
            for worker in struck:
                worker.send(signal.SIGCONT)
            run.until_members(3)
            for worker in struck:
                run.supervisor.end(worker, TERM_SECONDS)
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; SIGSTOP at {', '.join(points)}")
        tally.check()


def test_workers_killed_at_every_point_of_a_transaction(stage: Stage, tell: Tell) -> None:
    with fleet(stage, "points", workers=0) as run:
        feed = run.feed()
        points = list(Point) * stage.scale.of(1, 3)
        run.random.shuffle(points)
        fates = iter([fate("KILL", run, point) for point in points])
        for _ in range(3):
            run.start_worker(fates)
        trickle(run, feed, lambda: run.supervisor.exits()[-signal.SIGKILL] == len(points))
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        tell(f"{tally}; SIGKILL at {len(points)} points: {', '.join(points)}")
        tally.check()
        assert run.supervisor.exits() == {-signal.SIGKILL: len(points), 0: 4}


def test_workers_killed_while_urgent_rows_overtake_slow_ones(stage: Stage, tell: Tell) -> None:
    ordinary = [row for row in stage.rows if row.expected is None]
    late = patient(f"{stage.patience}/late/1", stage.scale.rows // 10, ordinary)
    rows = [*late, *(ordinary[n % len(ordinary)] for n in range(9 * len(late)))]
    with fleet(stage, "ahead", workers=0) as run:
        run.random.shuffle(rows)
        feed = run.feed(rows=rows, urgent=True)
        points = list(Point) * stage.scale.of(1, 3)
        run.random.shuffle(points)
        fates = iter([fate("KILL", run, point) for point in points])
        for _ in range(3):
            run.start_worker(fates)
        ahead = 0

        def enough() -> bool:
            nonlocal ahead
            ahead += run.group.is_ahead()
            return run.supervisor.exits()[-signal.SIGKILL] == len(points)

        trickle(run, feed, enough)
        feed.complete(len(rows))
        tally = run.settle(feed)
        tell(f"{tally}; SIGKILL at {len(points)} points, {ahead} times seen ahead")
        tally.check()
        assert ahead


def fate(number: str, run: Fleet, point: Point) -> Sequence[str]:
    """Arguments of a worker that is to be struck in one of its first transactions."""
    return (number, point, str(run.random.randint(1, 4)))


def struck_of(workers: Sequence[Service]) -> Callable[[], bool]:
    return lambda: all(worker.stopped for worker in workers)


def trickle(run: Fleet, feed: Feed, enough: Callable[[], bool]) -> None:
    """Publish a few rows at a time until something has come about.

    Raises:
        AssertionError: it has not, after as many rows as the scenario has.
    """
    most = feed.published + run.stage.scale.rows
    while not enough():
        assert feed.published < most, f"not every worker was struck\n{run.supervisor.report()}"
        feed.publish(5)
        run.supervisor.pause(0.1)


def outlast(run: Fleet, members: int) -> None:
    """Wait until Kafka has given the others up, and in the long form for a minute."""
    run.until_members(members)
    if run.stage.scale.long:
        run.supervisor.pause(60.0)
