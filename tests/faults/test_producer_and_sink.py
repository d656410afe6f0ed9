"""The producer and the sink are killed, and the sink's disk is full."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.disks import remount, small_disk
from tests.faults.data import write_csv
from tests.faults.fleet import fleet
from tests.faults.group import PARTITIONS
from tests.faults.reader import Scores, consumer
from tests.faults.stage import Stage
from tests.faults.supervisor import Command, Service

Tell = Callable[[object], None]


def test_producer_killed_while_it_publishes(stage: Stage, tell: Tell, tmp_path: Path) -> None:
    kills = stage.scale.of(3, 10)
    rows = [stage.rows[n % len(stage.rows)] for n in range(stage.scale.rows)]
    write_csv(rows, tmp_path / "rows.csv")
    with fleet(stage, "producer", {"producer__transaction_seconds": "0.2"}) as run:
        # Slow enough to be there for every SIGKILL, since it cannot be faster between two of them.
        rate = stage.scale.rows / (kills * 2.5)
        arguments = ("csv", str(tmp_path / "rows.csv"), "--job", "job", "--limit-rate", f"{rate}")
        producer = run.supervisor.start(
            "producer", Command("producer", lambda: arguments, run.environment)
        )
        for _ in range(kills):
            there = sum(run.ends(run.topics.pairs).values())
            run.supervisor.until(
                lambda: sum(run.ends(run.topics.pairs).values()) > there,  # noqa: B023 - called here
                stage.scale.seconds,
                "the producer publishes nothing",
            )
            run.pause(2.0)
            run.supervisor.kill(producer)
        run.supervisor.until(
            lambda: producer.exits[-1:] == [0], stage.scale.seconds, "not all is published"
        )
        tally = run.conclude("job", rows)
        with consumer(stage.kafka.bootstrap_servers) as reading:
            pairs = Scores(reading, run.topics.pairs, PARTITIONS)
            ends = run.ends(run.topics.pairs)
            run.supervisor.until(lambda: pairs.has_read(ends), 45.0, "pairs cannot be read")
            pairs.count("job")
        tell(f"{tally}; {kills} SIGKILLs of the producer, {len(pairs.records):,} rows on pairs")
        tally.check()
        assert pairs.times == Counter({("job", row): 1 for row in range(len(rows))})


def test_sink_killed_while_it_stores(stage: Stage, tell: Tell) -> None:
    kills = stage.scale.of(8, 50)
    with fleet(stage, "sink", {"sink__commit_interval": "0.1"}) as run:
        feed = run.feed()
        run.until_members(3)
        for _ in range(kills - 2):
            feed.publish(stage.scale.rows // kills)
            run.kill_sink()
        feed.complete(stage.scale.rows)
        feed.close()
        run.until_scored(feed.job, feed.published)
        for _ in range(2):  # when it writes the result, perhaps
            run.kill_sink()
        tally = run.settle(feed)
        tell(f"{tally}; {kills} SIGKILLs of the sink")
        tally.check()


def test_sink_whose_disk_is_full(stage: Stage, tell: Tell, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", f"{stage.scale.of(1, 6)}m") as disk,
        fleet(stage, "disk", {"results": str(disk / "results")}) as run,
    ):
        feed = run.feed()
        sink = run.sink
        feed.publish(stage.scale.rows)
        run.supervisor.until(
            lambda: bool(complaints(sink)), stage.scale.seconds, "the disk was large enough"
        )
        [complaint, *_] = complaints(sink)
        assert "PAIRSCORE_RESULTS" in complaint
        assert str(disk / "results") in complaint
        assert sink.readiness()[0] == 503
        run.until_scored(feed.job, feed.published)
        remount(disk, "size=200m")
        tally = run.settle(feed)
        tell(f"{tally}; {complaint}")
        tally.check()
        assert sink.exits == [0]


def complaints(sink: Service) -> list[str]:
    """What the sink logged as errors."""
    lines = (json.loads(line) for line in sink.log.read_text().splitlines())
    return [line["message"] for line in lines if line["level"] == "error"]
