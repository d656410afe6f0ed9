"""Records that are no rows, and rows of slow and failing hosts, among the others."""

import json
import signal
from collections.abc import Callable
from typing import Final, cast

from confluent_kafka import Message

from shared.messages import VERSION
from tests.faults.data import Feed, patient
from tests.faults.fleet import fleet
from tests.faults.group import PARTITIONS
from tests.faults.reader import Reader, consumer
from tests.faults.stage import Stage

Tell = Callable[[object], None]

_MAX_BYTES: Final = 10_000
_STRANGE: Final[dict[str, list[bytes | None]]] = {
    "undecodable": [b"\xff\xfe not JSON", b"", None, b'{"v": 1, "job": '],
    "unknown_version": [json.dumps({"v": VERSION + 1, "job": "job", "row": 0}).encode()],
    "invalid": [b"[]", json.dumps({"v": VERSION, "job": "job", "row": -1}).encode()],
    "oversized": [json.dumps({"v": VERSION, "job": "x" * 2 * _MAX_BYTES}).encode()],
}


def test_records_that_are_no_rows_go_to_the_dead_letter_topic(stage: Stage, tell: Tell) -> None:
    kills = stage.scale.of(2, 10)
    with fleet(stage, "strange", {"kafka__max_message_bytes": str(_MAX_BYTES)}) as run:
        feed = run.feed()
        strange = [(reason, value) for reason in _STRANGE for value in _STRANGE[reason]]
        strange *= stage.scale.of(3, 25)
        run.random.shuffle(strange)
        put: dict[tuple[int, int], tuple[str, bytes | None]] = {}
        for number, (reason, value) in enumerate(strange):
            feed.publish(stage.scale.rows // (len(strange) + 1))
            place = feed.put_now(run.topics.pairs, f"key {number}".encode(), value)
            put[place] = (reason, value)
            if number % (len(strange) // kills) == 0:
                run.pause(1.0)
                run.supervisor.kill(run.victim())
        feed.complete(stage.scale.rows)
        tally = run.settle(feed)
        with consumer(stage.kafka.bootstrap_servers) as reading:
            letters = Reader(reading, run.topics.dead_letters, PARTITIONS)
            ends = run.ends(run.topics.dead_letters)
            run.supervisor.until(lambda: letters.has_read(ends), 30.0, "letters are not readable")
        tell(f"{tally}; {len(letters.records)} dead letters of {len(put)}, {kills} SIGKILLs")
        tally.check()
        assert len(letters.records) == len(put)
        found = {}
        for letter in letters.records:
            headers = texts(letter)
            assert headers["pairscore.topic"] == run.topics.pairs
            assert headers["pairscore.worker"].startswith("worker-")
            place = (int(headers["pairscore.partition"]), int(headers["pairscore.offset"]))
            found[place] = (headers["pairscore.reason"], letter.value())
        assert found == put
        assert run.supervisor.exits()[-signal.SIGKILL] >= kills


def test_hosts_that_are_slow_or_fail_at_first(stage: Stage, tell: Tell) -> None:
    share = stage.scale.rows // 100
    seconds = stage.scale.of(3, 10)
    ordinary = [row for row in stage.rows if row.expected is None]
    late = patient(f"{stage.patience}/late/{seconds}", share, ordinary)
    failing = patient(f"{stage.patience}/twice", share, ordinary)
    rest = [ordinary[n % len(ordinary)] for n in range(stage.scale.rows - 2 * share)]
    rows = [*late, *failing, *rest]
    with fleet(stage, "patience") as run:
        run.random.shuffle(rows)
        run.until_members(3)  # a row that moves to another worker is asked for again, uncounted
        feed: Feed = run.feed(rows=rows)
        feed.publish(len(rows))
        tally = run.settle(feed)
        attempts = {
            url: value["attempts"]
            for value in run.scores.found.values()
            if (url := value["url"]).startswith(stage.patience)
        }
        tell(f"{tally}; {share} URLs of {seconds} s, {share} that answer 503 twice")
        tally.check()
        assert attempts == {row.url: 1 for row in late} | {row.url: 3 for row in failing}


def texts(letter: Message) -> dict[str, str]:
    """The headers of a record."""
    headers = cast("list[tuple[str, bytes]]", letter.headers())
    return {name: text.decode() for name, text in headers}
