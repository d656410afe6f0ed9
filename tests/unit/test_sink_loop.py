"""The loop stores what it takes, in batches, offers again what is refused, and says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.settings import SinkOptions
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from shared.telemetry.metrics import Metrics
from shared.telemetry.traces import Tracer
from sink.faults import RETRY_SECONDS, Persistent, StoreFault
from sink.intake import Batch, Intake, Place, Record, Stored
from sink.loop import Due, Finished, Loop
from tests.sinking import plain_job
from tests.spooling import TOPICS, Taken

DEADLINE = datetime(2026, 1, 2, 6, tzinfo=UTC)


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
        self.due_jobs: list[list[Due] | str] = []
        self.asked: list[tuple[int, datetime]] = []

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

    def due(self, most: int, after: datetime) -> Sequence[Due]:
        self.asked.append((most, after))
        found = self.due_jobs.pop(0) if self.due_jobs else []
        if isinstance(found, str):
            raise StoreFault(found)
        return found

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
            tracer=Tracer(),
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
    assert setting.loop.run() == 0
    assert [len(batch) for batch in setting.script.batches] == [25]


def test_what_cannot_be_stored_at_the_end_is_counted(records):
    setting = Setting(records)
    setting.script.refusals = ["no"] * 9
    assert setting.loop.run() == 25
    assert setting.script.batches == []


def of_partition(partition: int, records: Sequence[Taken]) -> list[Record]:
    return [replace(record, of_partition=partition) for record in records]


def test_rows_in_hand_of_a_partition_that_is_gone_are_not_stored(records):
    setting = Setting([*of_partition(0, records[:10]), *of_partition(1, records[10:15])])
    script = setting.script

    def revoke() -> None:
        setting.loop.forget([(TOPICS.scores, 0)])
        script.when_idle = setting.stop.ask

    script.when_idle = revoke
    assert setting.loop.run() == 0
    (batch,) = script.batches
    assert {scored.partition for scored in batch.scores} == {1}
    assert batch.next_offsets == script.told[0] == {(TOPICS.scores, 1): 15}
    assert setting.value("pairscore_sink_rows_stored_total", error="") == 5


def test_a_row_that_comes_after_all_others_were_forgotten_waits_its_whole_time(records):
    setting = Setting(records[:1], commit_interval=2.0)
    script = setting.script
    times: list[float] = []

    def forget_then_give_one() -> None:
        setting.loop.forget([(TOPICS.scores, 0)])
        script.records = of_partition(1, records[1:2])
        script.when_idle = see
        times.append(setting.clock.seconds)

    def see() -> None:
        if script.batches:
            times.append(setting.clock.seconds)
            setting.stop.ask()

    def rest_half(most: int, seconds: float) -> Sequence[Record]:
        return Script.take(script, most, min(seconds, 1.0))

    script.take = rest_half  # type: ignore[method-assign]
    script.when_idle = forget_then_give_one
    setting.loop.run()
    assert [scored.partition for batch in script.batches for scored in batch.scores] == [1]
    forgotten, stored = times
    assert stored - forgotten == pytest.approx(2.0 + 0.5)  # the idle loop's, afterwards


def test_rows_that_were_refused_and_then_forgotten_are_not_offered_again(records):
    setting = Setting(of_partition(0, records[:10]), commit_rows=10)
    script = setting.script
    script.refusals = ["the database is away"]
    left = of_partition(1, records[10:])

    def revoke(most: int, seconds: float) -> Sequence[Record]:
        if script.held and left:
            setting.loop.forget([(TOPICS.scores, 0)])
            script.records = [*left]
            left.clear()
        return Script.take(script, most, seconds)

    script.take = revoke  # type: ignore[method-assign]
    script.when_idle = lambda: None if script.held else setting.stop.ask()
    assert setting.loop.run() == 0
    stored = [scored for batch in script.batches for scored in batch.scores]
    assert [scored.partition for scored in stored] == [1] * 15
    assert setting.health.is_ready


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


def test_jobs_with_a_deadline_are_told_of_while_they_are_not_complete():
    setting = Setting([])
    script = setting.script
    script.due_jobs = [
        [Due("nightly", 10, DEADLINE)],
        [Due("nightly", 8, DEADLINE)],
        "the database is away",
        [],
    ]
    told: dict[int, tuple[float | None, float | None]] = {}

    def idle() -> None:
        told[len(script.asked)] = (
            setting.value("pairscore_sink_job_rows_left", job_name="nightly"),
            setting.value("pairscore_sink_job_deadline_timestamp_seconds", job_name="nightly"),
        )
        if not script.due_jobs and setting.clock.seconds > 25:
            setting.stop.ask()

    script.when_idle = idle
    setting.loop.run()
    when = DEADLINE.timestamp()
    assert told == {
        0: (None, None),
        1: (10, when),
        2: (8, when),
        3: (8, when),
        4: (None, None),
        **{number: (None, None) for number in range(5, len(script.asked) + 1) if number in told},
    }
    assert 4 < len(script.asked) <= 7, "every 5 seconds"
    most, after = script.asked[0]
    assert most == 100
    assert timedelta(hours=23) < datetime.now(UTC) - after < timedelta(hours=25)
