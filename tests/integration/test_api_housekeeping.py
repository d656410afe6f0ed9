"""Jobs that nobody closes are closed, and old ones are forgotten; others are left alone."""

from datetime import UTC, datetime, timedelta
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
            topic=fleet.topics.jobs,
            log=log,
            pulse=self.pulse,
            make_transactions=self.transactions,
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


def until_said(house: House, expected: dict[str, Any]) -> None:
    housekeeping = house.see_to()
    try:
        wait_until(lambda: house.jobs() == expected, within=WITHIN)
    finally:
        housekeeping.close()
    assert house.crashes == []


def test_inline_jobs_of_who_never_came_back_are_closed(house):
    zombie = house.transactions("pod-1")
    zombie.start()
    house.say(inline("pod-1"), 2.1, "open")
    house.say(inline("pod-2"), 1.9, "open")
    house.say(inline("me"), 2.1, "open")
    house.say("a-csv", 2.1, "open", source="csv")
    house.say("api-1", 2.1, "open")
    until_said(
        house,
        {
            inline("pod-1"): JobState.CLOSED,
            inline("pod-2"): JobState.OPEN,
            inline("me"): JobState.OPEN,
            "a-csv": JobState.OPEN,
            "api-1": JobState.OPEN,
        },
    )
    # It cannot add to what was closed.
    zombie.begin()
    zombie.add(house.fleet.topics.pairs, b"k", b"v")
    with pytest.raises(TakenOver):
        zombie.commit(lambda: False)
    assert house.fleet.settled(house.fleet.topics.pairs) == []


def test_old_jobs_of_apis_are_forgotten(house):
    house.say("api-old", DAYS + 0.1, "closed")
    house.say(inline("x"), DAYS + 0.1, "closed")
    house.say("api-young", DAYS - 0.1, "closed")
    house.say("api-open", DAYS + 0.1, "open")
    house.say("a-csv", DAYS + 0.1, "closed", source="csv")
    until_said(
        house,
        {
            "api-old": None,
            inline("x"): None,
            "api-young": JobState.CLOSED,
            "api-open": JobState.OPEN,
            "a-csv": JobState.CLOSED,
        },
    )
    assert sorted(house.book.names()) == ["a-csv", "api-open", "api-young"]
