"""Jobs that nobody closes are closed, and old ones are forgotten; others are left alone."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from producer.api.housekeeping import Housekeeping
from producer.api.jobs import JobBook
from producer.faults import TakenOver
from producer.job import OwnJob
from producer.job_log import JobLog
from producer.pulse import Pulse
from producer.transactions import Transactions
from shared.messages import JobMessage, JobState, decode
from shared.shutdown import StopSignal
from shared.telemetry.health import Health
from tests.fetching import wait_until
from tests.working import WITHIN, Fleet

DAYS = 30


class House:
    """A fleet's jobs, and what sees to them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.book = JobBook()
        self.pulse = Pulse(StopSignal(), Health())
        self.crashes: list[BaseException] = []
        self.ended: list[str] = []
        self.states: dict[str, str] = {}

    def transactions(self, name: str) -> Transactions:
        return Transactions(
            self.fleet.connection, f"api.{name}", pulse=self.pulse, ended=lambda _: None
        )

    def say(self, job: str, days: float, state: str, source: str = "api") -> None:
        rows = {"rows": 7} if state == "closed" else {}
        message = OwnJob(
            job=job,
            source=source,
            rows_published=7,
            state=JobState(state),
            created_at=datetime.now(UTC) - timedelta(days=days),
            **rows,
        )
        self.book.know(message)
        self.fleet.producer.produce(self.fleet.topics.jobs, message.encode(), job.encode())
        self.fleet.producer.flush(WITHIN)

    def _end(self, job: str) -> bool:
        self.ended.append(job)
        return True

    def _stored(self, job: str) -> Any:
        """What the store has of a job."""
        state = self.states.get(job, "complete")
        return None if state == "unknown" else SimpleNamespace(state=state)

    def jobs(self) -> dict[str, JobState | None]:
        """What is said of each last."""
        found: dict[str, JobState | None] = {}
        for record in self.fleet.settled(self.fleet.topics.jobs):
            message = None if record.value() is None else decode(JobMessage, record.value())
            found[(record.key() or b"").decode()] = getattr(message, "state", None)
        return found

    def see_to(self, name: str = "me") -> Housekeeping:
        fleet = self.fleet
        log = JobLog(fleet.connection, fleet.admin, fleet.topics.jobs, self.pulse, OwnJob)
        made = Housekeeping(
            name,
            fleet.connection,
            self.book,
            SimpleNamespace(job=self._stored),
            topic=fleet.topics.jobs,
            log=log,
            pulse=self.pulse,
            make_transactions=self.transactions,
            end=self._end,
            days=DAYS,
            on_crash=self.crashes.append,
            first_seconds=0,
        )
        made.start()
        return made


@pytest.fixture
def house(kafka, topic_prefix) -> House:
    return House(Fleet(kafka.bootstrap_servers, topic_prefix))


def inline(name: str) -> str:
    return f"inline-{name}-20260131T123000-0123abcd"


def unkeyed(number: int) -> str:
    return f"api-20260131T123000-{number:012x}"


KEYED = f"api-{'0' * 32}"
BATCH = f"snowflake-{'0' * 32}-{'1' * 32}n"


def until_said(house: House, expected: dict[str, Any]) -> None:
    housekeeping = house.see_to()
    try:
        wait_until(lambda: house.jobs() == expected, within=WITHIN)
    finally:
        housekeeping.close()
    assert house.crashes == []


def test_jobs_of_who_never_came_back_are_closed(house):
    zombie = house.transactions("pod-1")
    zombie.start()
    house.say(inline("pod-1"), 2.1, "open")
    house.say(inline("pod-2"), 1.9, "open")
    house.say(inline("me"), 2.1, "open")
    house.say("a-csv", 2.1, "open", source="csv")
    house.say(KEYED, 2.1, "open")
    house.say(unkeyed(1), 2.1, "open")
    house.say(unkeyed(2), 1.9, "open")
    until_said(
        house,
        {
            inline("pod-1"): JobState.CLOSED,
            inline("pod-2"): JobState.OPEN,
            inline("me"): JobState.OPEN,
            "a-csv": JobState.OPEN,
            KEYED: JobState.OPEN,
            unkeyed(1): JobState.OPEN,
            unkeyed(2): JobState.OPEN,
        },
    )
    # Nobody was promised that one; it is for the service to end.
    assert house.ended == [unkeyed(1)]
    # It cannot add to what was closed.
    zombie.begin()
    zombie.add(house.fleet.topics.pairs, b"k", b"v")
    with pytest.raises(TakenOver):
        zombie.commit(lambda: False)
    assert house.fleet.settled(house.fleet.topics.pairs) == []


def test_nobody_is_ended_for_what_is_remembered_and_over(house):
    alive = house.transactions("pod-1")
    alive.start()
    house.say(inline("pod-1"), 2.1, "open")
    stale = house.book.find(inline("pod-1"), OwnJob)
    house.say(inline("pod-1"), 2.1, "closed")
    house.book.forget(inline("pod-1"))
    house.book.know(stale)  # as it was when this process was suspended
    house.say(unkeyed(1), 2.1, "open")
    housekeeping = house.see_to()
    wait_until(lambda: house.ended == [unkeyed(1)], within=WITHIN)
    housekeeping.close()
    alive.begin()
    alive.add(house.fleet.topics.pairs, b"k", b"v")
    alive.commit(lambda: False)


def test_old_jobs_of_apis_are_forgotten(house):
    names = {number: unkeyed(number) for number in range(5)}
    house.say(names[0], DAYS + 0.1, "closed")
    house.say(inline("x"), DAYS + 0.1, "closed")
    house.say(BATCH, DAYS + 0.1, "closed")
    house.say(names[1], DAYS - 0.1, "closed")
    house.say(names[2], DAYS + 0.1, "closed")
    house.say(names[3], DAYS + 0.1, "closed")
    house.say(KEYED, DAYS + 0.1, "closed")
    house.say("a-csv", DAYS + 0.1, "closed", source="csv")
    house.states |= {names[2]: "closed", names[3]: "unknown"}
    until_said(
        house,
        {
            names[0]: None,
            inline("x"): None,
            BATCH: None,
            names[1]: JobState.CLOSED,
            names[2]: JobState.CLOSED,  # some of its outcomes are not stored yet
            names[3]: None,
            KEYED: JobState.CLOSED,  # sent again, the key is not to begin another job
            "a-csv": JobState.CLOSED,
        },
    )
    assert sorted(house.book.names()) == sorted([names[1], names[2], KEYED, "a-csv"])
