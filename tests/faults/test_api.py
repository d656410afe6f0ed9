"""The API is killed under load, and held up by many who are slow: what it promises is kept."""

import asyncio
import json
import resource
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
import requests

from deploy.local.ports import free_ports
from tests.faults.data import Row
from tests.faults.fleet import fleet
from tests.faults.stage import Stage
from tests.faults.supervisor import Command

Tell = Callable[[object], None]
_PATIENCE = 90.0
_LATE = 60.0


@dataclass
class Client:
    """Asks all the time; keeps what it was promised."""

    url: str
    rows: Sequence[Row]
    stopping: threading.Event
    jobs: dict[str, int] = field(default_factory=dict)
    """Rows of each job that a 202 was given for."""
    answered: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = field(default_factory=list)
    """Pairs and outcomes of each in-line request that was answered in full."""
    refused: Counter[int] = field(default_factory=Counter)
    broken: int = 0

    def run(self, ask: Callable[[int], None]) -> None:
        """Ask until told to stop; a connection that breaks is what this is about."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                ask(number)
            except requests.RequestException:
                self.broken += 1
                self.stopping.wait(0.2)

    def pairs(self, number: int, count: int) -> list[dict[str, Any]]:
        some = [self.rows[(number * count + index) % len(self.rows)] for index in range(count)]
        return [{"url": row.url, "caption": row.caption} for row in some]

    def small(self, number: int) -> None:
        """A small job, of whose fate a broken connection leaves the client in the dark."""
        pairs = self.pairs(number, 5)
        self._post_job({"json": {"pairs": pairs}}, len(pairs))

    def keyed(self, number: int) -> None:
        """A job that is sent again, with its key, until it is taken."""
        pairs = self.pairs(number, 40)
        body = "".join(json.dumps(pair) + "\n" for pair in pairs).encode()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": uuid.uuid4().hex}
        while not self.stopping.is_set():
            try:
                if self._post_job({"data": body, "headers": headers}, len(pairs)):
                    return
            except requests.RequestException:
                self.broken += 1
            self.stopping.wait(0.2)

    def inline(self, number: int) -> None:
        """Waits for outcomes."""
        pairs = self.pairs(number, 3)
        reply = requests.post(
            f"{self.url}/v1/scores", json={"pairs": pairs, "timeout": 20}, timeout=_LATE
        )
        if reply.status_code != HTTPStatus.OK:
            self.refused[reply.status_code] += 1
        elif "pending" not in reply.json():
            self.answered.append((pairs, reply.json()["outcomes"]))

    def _post_job(self, what: dict[str, Any], rows: int) -> bool:
        reply = requests.post(f"{self.url}/v1/jobs", timeout=_LATE, **what)
        if reply.status_code == HTTPStatus.ACCEPTED:
            self.jobs[reply.json()["job"]] = rows
            return True
        self.refused[reply.status_code] += 1
        self.stopping.wait(0.2)
        return False


def test_api_killed_under_load(stage: Stage, tell: Tell) -> None:
    kills = stage.scale.of(6, 20)
    [port] = free_ports(1)
    settings = {"api__port": str(port), "api__id": "api", "api__inline_rows": "200"}
    with fleet(stage, "api", settings, workers=2) as run:
        api = run.supervisor.start("api", Command("producer", lambda: ("api",), run.environment))
        run.until_members(2)
        stopping = threading.Event()
        clients = [Client(f"http://127.0.0.1:{port}", stage.rows, stopping) for _ in range(4)]
        kinds = [clients[0].small, clients[1].keyed, clients[2].inline, clients[3].inline]
        threads = [
            threading.Thread(target=client.run, args=(kind,), daemon=True)
            for client, kind in zip(clients, kinds, strict=True)
        ]
        for thread in threads:
            thread.start()

        def answers() -> int:
            return sum(len(client.jobs) + len(client.answered) for client in clients)

        for _ in range(kills):
            there = answers()
            run.supervisor.until(
                lambda: answers() > there + 5,  # noqa: B023 - called here
                stage.scale.seconds,
                "the API answers nothing",
            )
            run.pause(1.0)
            run.supervisor.kill(api)
        there = answers()
        run.supervisor.until(
            lambda: answers() > there + 5, stage.scale.seconds, "the API answers nothing"
        )
        stopping.set()
        for thread in threads:
            thread.join(_PATIENCE)
        promised = {name: rows for client in clients for name, rows in client.jobs.items()}
        assert promised
        last = list(promised)[-1]
        run.until_scored(last, promised[last])
        run.supervisor.until(
            lambda: all(run.scores.count(job) >= rows for job, rows in promised.items()),
            stage.scale.seconds,
            "rows that were promised have no outcome",
            run.group.explain,
        )
        run.supervisor.until(run.group.is_read, _PATIENCE, "rows are left", run.group.explain)
        run.supervisor.end(api, 40.0)
        for worker in run.workers:
            run.supervisor.end(worker, 25.0)
        ends = run.ends(run.topics.scores)
        run.supervisor.until(lambda: run.scores.has_read(ends), 45.0, "scores cannot be read")
        run.scores.count(last)
        inline = sum(len(client.answered) for client in clients)
        refused = sum((client.refused for client in clients), Counter())
        lost = {
            job: found for job, rows in promised.items() if (found := run.scores.lost(job, rows))
        }
        beyond = {
            job: found for job, rows in promised.items() if (found := run.scores.beyond(job, rows))
        }
        twice = {row: times for row, times in run.scores.times.items() if times > 1}
        tell(
            f"{kills} SIGKILLs of the API: {len(promised):,} jobs with {sum(promised.values()):,} "
            f"rows promised, {inline:,} in-line requests answered, "
            f"{sum(client.broken for client in clients):,} broken off, {sum(refused.values()):,} "
            f"refused: lost {len(lost)}, duplicated {len(twice)}"
        )
        assert not lost
        assert not beyond
        assert not twice
        # What was said in line is what is on `scores`.
        known = {
            (value["url"], value["caption"]): value.get("similarity", value.get("error"))
            for value in run.scores.found.values()
        }
        for client in clients:
            for pairs, outcomes in client.answered:
                for pair, outcome in zip(pairs, outcomes, strict=True):
                    said = outcome.get("similarity", outcome.get("error"))
                    assert said == pytest.approx(known[pair["url"], pair["caption"]], abs=1e-3)
        assert set(refused) <= {HTTPStatus.SERVICE_UNAVAILABLE}


SLOW = 10_000


async def _dawdle(port: int, stopping: threading.Event, opened: list[int]) -> None:
    """Open `SLOW` connections and send a byte on each every second; those hung up on come again."""
    waiting = asyncio.Semaphore(200)

    async def one(number: int) -> None:
        head = f"POST /v1/scores HTTP/1.1\r\nHost: x\r\nX-Slow: {'a' * 10_000}\r\n\r\n".encode()
        while not stopping.is_set():
            try:
                async with waiting:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                opened[number] += 1
                for byte in head:
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(1.0)
                    if stopping.is_set():
                        break
                writer.close()
            except OSError:
                await asyncio.sleep(0.5)

    await asyncio.gather(*(one(number) for number in range(SLOW)))


def test_those_who_send_a_byte_a_second_stop_no_others(stage: Stage, tell: Tell) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    [port] = free_ports(1)
    with fleet(stage, "slow", {"api__port": str(port), "api__id": "api"}, workers=1) as run:
        run.supervisor.start("api", Command("producer", lambda: ("api",), run.environment))
        run.until_members(1)
        client = Client(f"http://127.0.0.1:{port}", stage.rows, threading.Event())

        def ask() -> float:
            began = time.monotonic()
            client.inline(len(client.answered))
            return time.monotonic() - began

        def works() -> bool:
            try:
                ask()
            except requests.RequestException:
                return False
            return bool(client.answered)

        run.supervisor.until(works, stage.scale.seconds, "the API answers nothing")
        alone = sorted(ask() for _ in range(20))
        stopping, opened = threading.Event(), [0] * SLOW
        dawdling = threading.Thread(
            target=lambda: asyncio.run(_dawdle(port, stopping, opened)), daemon=True
        )
        dawdling.start()
        run.supervisor.until(lambda: all(opened), _PATIENCE, "not all connections are open")
        before = len(client.answered)
        beside = sorted(ask() for _ in range(20))
        stopping.set()
        dawdling.join(_PATIENCE)
        tell(
            f"in line, median of 20: alone {1e3 * alone[10]:.0f} ms, beside {SLOW:,} connections "
            f"that send a byte a second {1e3 * beside[10]:.0f} ms; {sum(opened):,} were opened"
        )
        assert len(client.answered) - before == 20
        assert not client.refused
        assert beside[-1] < 20.0
