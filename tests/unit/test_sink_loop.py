"""The loop stores what it takes, in batches, offers again what is refused, and says so."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from shared.settings import SinkOptions
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.metrics import Metrics
from sink.faults import RETRY_SECONDS, Persistent, StoreFault
from sink.intake import Batch, Intake, Place, Record, Stored
from sink.loop import Finished, Loop
from tests.sinking import plain_job
from tests.spooling import TOPICS, Taken


class Clock:
    """Seconds that pass when something waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Script:
    """Source and store: gives records as they are asked for, refuses as it is told to."""

    def __init__(self, records: Sequence[Record], clock: Clock, stop: StopSignal) -> None:
        self.records = list(records)
        self.clock = clock
        self.stop = stop
        self.held = False
        self.batches: list[Batch] = []
        self.told: list[Mapping[Place, int]] = []
        self.waits: list[float] = []
        self.refusals: list[str] = []
        self.refused = False
        self.finished: list[Finished | str] = []
        self.when_idle: Callable[[], None] = stop.ask
        self.lag: int | None = None

    def take(self, most: int, seconds: float) -> Sequence[Record]:
        self.waits.append(seconds)
        if self.held or not self.records:
            self.clock.seconds += seconds
            if not self.records:
                self.when_idle()
            return []
        taken, self.records = self.records[:most], self.records[most:]
        return taken

    def hold(self, still: bool) -> None:
        self.held = still

    def stored(self, next_offsets: Mapping[Place, int]) -> None:
        self.told.append(dict(next_offsets))

    def offsets(self) -> Mapping[Place, int]:
        return {}

    def store(self, batch: Batch) -> Stored:
        if self.refusals:
            self.refused = True
            raise StoreFault(self.refusals.pop(0))
        self.batches.append(batch)
        return Stored({"": len(batch.scores)}, 1, {})

    def finish_jobs(self) -> Finished:
        found = self.finished.pop(0) if self.finished else Finished()
        if isinstance(found, str):
            raise StoreFault(found)
        return found


class Setting:
    """A loop around a script."""

    def __init__(self, records: Sequence[Record], **options: float) -> None:
        self.clock = Clock()
        self.stop = StopSignal()
        self.health = Health(60.0, self.clock)
        self.metrics = Metrics("sink")
        self.script = Script(records, self.clock, self.stop)
        self.loop = Loop(
            self.script,
            Intake(TOPICS),
            self.script,
            options=SinkOptions.model_validate(options),
            stop=self.stop,
            health=self.health,
            metrics=self.metrics,
            clock=self.clock,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def records(tmp_path):
    job = plain_job("looped", 25, tmp_path)
    return [Taken(TOPICS.scores, 0, at, score.encode()) for at, score in enumerate(job.scores)]


def test_batches_are_of_as_many_rows_as_set_and_the_last_is_what_is_left(records):
    setting = Setting(records, commit_rows=10)
    setting.loop.run()
    assert [len(batch) for batch in setting.script.batches] == [10, 10, 5]
    assert [told[TOPICS.scores, 0] for told in setting.script.told] == [10, 20, 25]
    assert setting.value("pairscore_sink_rows_stored_total", error="") == 25
    assert setting.value("pairscore_sink_duplicates_total") == 3


def test_a_lone_row_waits_for_others_no_longer_than_set(records):
    setting = Setting(records[:1], commit_interval=0.2)
    seen: list[float] = []

    def idle() -> None:
        if setting.script.batches:
            seen.append(setting.clock.seconds)
            setting.stop.ask()

    setting.script.when_idle = idle
    setting.loop.run()
    assert seen == [pytest.approx(0.2 + 0.5)]  # of which 0.5 s are the idle loop's, afterwards


def test_few_long_messages_are_a_batch_too(records, monkeypatch):
    monkeypatch.setattr("sink.loop.BATCH_BYTES", 1_000)
    monkeypatch.setattr("sink.loop._TAKE", 1)
    setting = Setting(records)
    setting.loop.run()
    assert all(len(batch) < 6 for batch in setting.script.batches)
    assert sum(len(batch) for batch in setting.script.batches) == 25


def test_what_is_refused_is_offered_again_and_nothing_is_taken_meanwhile(records, caplog):
    caplog.set_level("INFO", "sink.faults")
    setting = Setting(records, commit_rows=10)
    script = setting.script
    script.refusals = ["the disk is full"] * 3
    why: list[str] = []
    rested = Script.take

    def take(most: int, seconds: float) -> Sequence[Record]:
        if script.held:
            why.append(setting.health.why)
            assert len(script.records) == 15
        return rested(script, most, seconds)

    script.take = take  # type: ignore[method-assign]
    setting.loop.run()
    assert [len(batch) for batch in script.batches] == [10, 10, 5]
    assert set(why[1:]) == {"the disk is full"}
    assert setting.health.is_ready
    assert setting.clock.seconds >= 3 * RETRY_SECONDS
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "the disk is full" in line][1:] == []
    assert any(line.startswith("going on after 9 s") for line in said)


def test_what_was_taken_is_offered_once_more_at_the_end(records):
    setting = Setting(records)
    setting.script.when_idle = lambda: setting.stop.ask() if setting.script.refused else None
    setting.script.refusals = ["no"]
    setting.loop.run()
    assert [len(batch) for batch in setting.script.batches] == [25]


def test_jobs_that_wait_are_come_back_to_at_once(records):
    setting = Setting(records[:3], commit_rows=1)
    setting.script.finished = [Finished(again=0.0), Finished(complete=2, again=0.05), Finished()]
    setting.loop.run()
    assert setting.script.waits == [0.5, 0.0, 0.05, 0.5]
    assert setting.value("pairscore_sink_jobs_complete_total") == 2


@pytest.mark.parametrize("found", [Finished(why="no room"), "no room"])
def test_a_job_that_cannot_be_finished_makes_the_sink_unready_and_stores_on(records, found):
    setting = Setting(records, commit_rows=10)
    setting.script.finished = [found, *[Finished(why="no room")] * 20]
    setting.loop.run()
    assert (setting.health.is_ready, setting.health.why) == (False, "no room")
    assert sum(len(batch) for batch in setting.script.batches) == 25


def test_lag_is_what_is_not_stored(records):
    setting = Setting(records[:7])
    setting.script.lag = 100
    lags: list[float | None] = []

    def idle() -> None:
        lags.append(setting.value("pairscore_sink_lag_records"))
        setting.stop.ask()

    setting.script.when_idle = idle
    setting.loop.run()
    assert lags == [107]


def test_a_fault_that_stays_is_told_now_and_then_and_anew_when_it_changes(caplog):
    clock = Clock()
    persistent = Persistent(clock)
    told = []
    for second in range(0, 60, 3):
        clock.seconds = second
        persistent.failed("full" if second < 45 else "gone")
        told.append(len(caplog.records))
        caplog.clear()
    assert [3 * i for i, count in enumerate(told) if count] == [0, 30, 45]
