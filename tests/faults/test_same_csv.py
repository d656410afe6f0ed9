"""The fleet's CSV file is the one that `pairscore score` writes, whatever was killed meanwhile."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pairscore.demo.dataset import Dataset
from tests.comparing import compare, read
from tests.faults.data import rows_of
from tests.faults.fleet import Fleet, fleet
from tests.faults.stage import Stage
from tests.faults.supervisor import Command

Tell = Callable[[object], None]

_SETTINGS: Final = {
    # The demo's silent servers are given up sooner than by default.
    "fetch__timeout": "3",
    "producer__transaction_seconds": "0.2",
    "sink__commit_interval": "0.1",
}


def test_same_file_as_without_a_fleet(stage: Stage, dataset: Dataset, tell: Tell) -> None:
    rows = rows_of(dataset)
    rounds = stage.scale.of(2, 10)
    with fleet(stage, "same", _SETTINGS) as run:
        alone = score_alone(run, dataset.csv)
        rate = len(rows) / (rounds * stage.scale.of(4, 10))
        arguments = ("csv", str(dataset.csv), "--job", "job", "--limit-rate", f"{rate}")
        producer = run.supervisor.start(
            "producer", Command("producer", lambda: arguments, run.environment)
        )
        for _ in range(rounds):
            for victim in (producer, run.victim()):
                run.supervisor.pause(run.random.uniform(0.3, 1.3))
                run.supervisor.kill(victim)
            run.kill_sink()
        tally = run.conclude("job", rows)
        [result] = (run.results / "job").glob("*.csv")
        assert result.name == "challenge_scored.csv"
        kills = run.supervisor.exits()[-signal.SIGKILL]
        worst = compare(read(alone), read(result))
        tell(f"{tally}; {kills} SIGKILLs; similarities within {worst:.4f}")
        tally.check()


def score_alone(run: Fleet, source: Path) -> Path:
    """What `pairscore score` writes."""
    result = run.stage.folder / "alone.csv"
    arguments = ("score", str(source), "--output", str(result))
    environment = {
        name: value
        for name, value in run.environment.items()
        if name.startswith(("PAIRSCORE_FETCH", "PAIRSCORE_MODEL", "PAIRSCORE_CACHE"))
        or not name.startswith("PAIRSCORE_")
    }
    command = Command("pairscore", lambda: arguments, environment, preloaded=True)
    alone = run.supervisor.start("alone", command)
    run.supervisor.until(lambda: alone.exits == [0], run.stage.scale.seconds, "no file to compare")
    return result
