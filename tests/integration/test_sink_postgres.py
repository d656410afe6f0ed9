"""The Postgres sink against real Kafka and PostgreSQL, as processes: every row once."""

import json
import os
import random
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from pydantic import SecretStr

from deploy import local
from deploy.local.ports import free_ports
from shared.results.postgres import PostgresResults
from shared.watchdog import EXIT_STALLED
from tests.fetching import wait_until
from tests.postgres_sinks import Sinks, ask, database, hang, sinks, url_of
from tests.services import had
from tests.sinking import DEADLINE, MODEL, ODD, Place, Sink, job_of, place, plain_job


@pytest.fixture
def where(kafka, topic_prefix, tmp_path) -> Place:
    return place(kafka.bootstrap_servers, topic_prefix, tmp_path)


@pytest.fixture
def url(postgres_service) -> Iterator[str]:
    with database(postgres_service.url) as found:
        yield found


@pytest.fixture
def fleet(where, url, tmp_path) -> Iterator[Sinks]:
    with sinks(where, url, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def own_server() -> Iterator[local.NativePostgres]:
    """A server of the module's own, which may be stopped."""
    with had(local.postgres(native=True)) as server:
        yield server


def get(sink: Sink, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def rows_of(fleet: Sinks, job: str) -> set[int]:
    return {outcome.row for outcome in fleet.outcomes(job, 1000)}


def duplicates(url: str) -> int:
    with closing(PostgresResults(SecretStr(url))) as results:
        return results.duplicates()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_every_row_of_a_file_becomes_a_row_of_the_table(where, url, tmp_path, protocol):
    source = tmp_path / "odd.csv"
    source.write_bytes(ODD)
    jobs = [job_of(source, "odd"), plain_job("plain", 500, tmp_path / "in")]
    scores = [score for job in jobs for score in job.scores]
    # Rows come in any order, before and after what is said of their job.
    scores = random.Random(1).sample(scores, len(scores))
    closed = [job.closed for job in jobs]
    where.publish([*scores[:50], jobs[0].begun, *scores[50:90], *closed, *scores[90:]], at_once=60)
    with sinks(where, url, tmp_path, PAIRSCORE_KAFKA__GROUP_PROTOCOL=protocol) as fleet:
        sink = fleet.start()
        fleet.finish("odd", "plain")
        wait_until(lambda: get(sink, "/readyz")[0] == 200, within=DEADLINE)
        metrics = get(sink, "/metrics")[1]
        assert sink.terminate() == 0
        for job in jobs:
            fleet.assert_exact(job)
        status = fleet.status("plain")
    assert status is not None
    assert status.models == {MODEL: 500}
    assert "pairscore_sink_jobs_complete_total 2.0" in metrics
    assert "pairscore_sink_duplicates_total 0.0" in metrics
    assert duplicates(url) == 0


def test_status_shows_what_is_in_the_database(where, fleet, url, tmp_path):
    job = plain_job("shown", 70, tmp_path / "in")
    where.publish([*job.scores, *job.scores[:3], job.closed])
    fleet.start()
    fleet.finish("shown")
    wait_until(lambda: duplicates(url) == 3, within=DEADLINE)
    table = where.run("status", PAIRSCORE_POSTGRES_URL=url)
    assert table.returncode == 0
    assert "postgres: pairscore.scores where job = 'shown'" in table.stdout
    assert "3 outcomes came again" in table.stdout
    found = json.loads(where.run("status", "shown", "--json", PAIRSCORE_POSTGRES_URL=url).stdout)
    assert (found["state"], found["rows"], found["scored"]) == ("complete", 70, 60)
    assert found["failed"] == {"http_error": 10}


def test_a_sink_goes_on_where_the_last_one_ended(where, fleet, url, tmp_path):
    job = plain_job("on", 300, tmp_path / "in")
    where.publish([job.begun, *job.scores[:100]])
    first = fleet.start()
    wait_until(lambda: (s := fleet.status("on")) is not None and s.done == 100, within=DEADLINE)
    assert first.terminate() == 0
    where.publish([*job.scores[100:], job.closed])
    fleet.start()
    fleet.finish("on")
    fleet.assert_exact(job)
    assert duplicates(url) == 0, "read twice"


def test_what_is_no_message_is_kept_aside_and_said(where, fleet, url, tmp_path):
    job = plain_job("clean", 20, tmp_path / "in")
    newer = json.loads(job.scores[0].encode()) | {"v": 2}
    untrue = json.loads(job.scores[0].encode()) | {"row": -1}
    odd = [b"\xff not json", json.dumps(newer).encode(), None, json.dumps(untrue).encode()]
    where.publish_bytes(odd)
    where.publish_bytes([b"{}"], where.topics.jobs)
    where.publish([*job.scores, job.closed])
    sink = fleet.start()
    fleet.finish("clean")
    query = "SELECT count(*) FROM pairscore.rejected"
    wait_until(lambda: ask(url, query) == [(5,)], within=DEADLINE)
    assert sink.said("are no messages of ours")
    found = ask(url, "SELECT topic, record_offset, value FROM pairscore.rejected ORDER BY 1, 2")
    topics = where.topics
    assert found == [
        (topics.jobs, 0, b"{}"),
        *((topics.scores, offset, value) for offset, value in enumerate(odd)),
    ]
    fleet.assert_exact(job)


def test_records_that_are_gone_from_kafka_are_missed_aloud(where, fleet, tmp_path):
    job = plain_job("gone", 60, tmp_path / "in")
    where.publish([job.begun, *job.scores[:30]])
    first = fleet.start()
    wait_until(lambda: (s := fleet.status("gone")) is not None and s.done == 30, within=DEADLINE)
    assert first.terminate() == 0
    where.publish(job.scores[30:50])
    ends = [TopicPartition(where.topics.scores, number, -1) for number in range(3)]
    for future in where.admin.delete_records(ends).values():
        future.result(DEADLINE)
    where.publish([*job.scores[50:], job.closed])
    second = fleet.start()
    wait_until(lambda: (s := fleet.status("gone")) is not None and s.done == 40, within=DEADLINE)
    assert second.said("are gone from Kafka and were not stored")
    status = fleet.status("gone")
    assert status is not None
    assert (status.state, status.lag) == ("closed", 20)


def test_records_that_go_while_a_sink_reads_end_it_and_are_missed_by_the_next(
    where, fleet, tmp_path
):
    job = plain_job("went", 60, tmp_path / "in")
    where.publish([job.begun, *job.scores[:30]])
    first = fleet.start()
    wait_until(lambda: (s := fleet.status("went")) is not None and s.done == 30, within=DEADLINE)
    hang(first)  # not for so long that the group gives its partitions away
    # The first of them may be on their way to it, the second are read when it goes on.
    for rows in (job.scores[30:35], job.scores[35:50]):
        where.publish(rows)
    ends = [TopicPartition(where.topics.scores, number, -1) for number in range(3)]
    for future in where.admin.delete_records(ends).values():
        future.result(DEADLINE)
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.process.wait(DEADLINE) == 3
    assert "are gone from Kafka; start the sink again" in first.log.read_text()
    where.publish([*job.scores[50:], job.closed])
    second = fleet.start()
    kept = [*job.scores[:30], *job.scores[50:]]
    wait_until(lambda: {s.row for s in kept} <= rows_of(fleet, "went"), within=DEADLINE)
    assert second.said("are gone from Kafka and were not stored")
    assert rows_of(fleet, "went").isdisjoint(range(35, 50))


def test_topics_that_were_made_anew_are_read_from_their_beginning(where, fleet, url, tmp_path):
    old = plain_job("old", 40, tmp_path / "in")
    where.publish([old.closed, *old.scores])
    first = fleet.start()
    fleet.finish("old")
    assert first.terminate() == 0
    for future in where.admin.delete_topics([where.topics.scores, where.topics.jobs]).values():
        future.result(DEADLINE)
    gone = where.admin.list_topics
    wait_until(lambda: where.topics.scores not in gone(timeout=10).topics, within=DEADLINE)
    fresh = Place(where.settings, where.results).create()
    new = plain_job("new", 25, tmp_path / "in")
    fresh.publish([*new.scores, new.closed])
    second = fleet.start()
    fleet.finish("new")
    assert second.said("was deleted and made anew")
    fleet.assert_exact(new)
    fleet.assert_exact(old)


def test_a_database_that_is_away_is_waited_for_and_nothing_is_lost(
    where, own_server, tmp_path, topic_prefix
):
    job = plain_job("patient", 400, tmp_path / "in")
    with (
        database(own_server.url) as url,
        sinks(where, url, tmp_path) as fleet,
    ):
        where.publish([job.begun, *job.scores[:100]])
        sink = fleet.start()
        wait_until(lambda: fleet.ready() and fleet.stored() == 100, within=DEADLINE)
        own_server.kill()
        where.publish([*job.scores[100:300], job.closed])
        wait_until(lambda: get(sink, "/readyz")[0] == 503, within=DEADLINE)
        assert "PostgreSQL at 127.0.0.1" in get(sink, "/readyz")[1]
        assert get(sink, "/livez")[0] == 200
        own_server.start()
        where.publish(job.scores[300:])
        fleet.finish("patient")
        wait_until(lambda: get(sink, "/readyz")[0] == 200, within=DEADLINE)
        fleet.assert_exact(job)
        assert duplicates(url) == 0
        errors = [line for line in sink.lines if line["level"] == "error"]
        assert 1 <= len(errors) <= 4, errors
        assert sink.said("nothing was lost")
        assert sink.terminate() == 0


def test_an_idle_sink_sees_that_the_database_is_away(where, own_server, tmp_path):
    with database(own_server.url) as url, sinks(where, url, tmp_path) as fleet:
        sink = fleet.start()
        wait_until(lambda: get(sink, "/readyz")[0] == 200, within=DEADLINE)
        own_server.stop()
        wait_until(lambda: get(sink, "/readyz")[0] == 503, within=DEADLINE)
        own_server.start()
        wait_until(lambda: get(sink, "/readyz")[0] == 200, within=DEADLINE)
        assert sink.terminate() == 0


def test_partitions_that_come_while_the_database_is_away_are_read_later(
    where, own_server, tmp_path
):
    job = plain_job("handed", 300, tmp_path / "in")
    with database(own_server.url) as url, sinks(where, url, tmp_path) as fleet:
        where.publish([job.begun, *job.scores[:50]])
        stays, goes = fleet.start(), fleet.start()
        wait_until(lambda: fleet.ready() and fleet.stored() == 50, within=DEADLINE)
        wait_until(lambda: has_partitions(stays) and has_partitions(goes), within=DEADLINE)
        own_server.stop()
        before = assigned(stays)
        goes.process.terminate()
        where.publish([*job.scores[50:], job.closed])
        wait_until(lambda: assigned(stays) > before, within=DEADLINE)
        own_server.start()
        fleet.finish("handed")
        fleet.assert_exact(job)
        assert duplicates(url) == 0


def test_a_database_that_hangs_ends_the_sink_and_the_next_one_goes_on(where, own_server, tmp_path):
    job = plain_job("hanging", 200, tmp_path / "in")
    with (
        database(own_server.url) as url,
        sinks(where, url, tmp_path, PAIRSCORE_SINK__STALL_SECONDS="6") as fleet,
    ):
        where.publish([job.begun, *job.scores[:100]])
        sink = fleet.start()
        wait_until(lambda: fleet.ready() and fleet.stored() == 100, within=DEADLINE)
        own_server.pause()
        try:
            where.publish([*job.scores[100:], job.closed])
            assert sink.process.wait(DEADLINE) == EXIT_STALLED
        finally:
            own_server.resume()
        fleet.start()
        fleet.finish("hanging")
        fleet.assert_exact(job)
        assert duplicates(url) == 0


def assigned(sink: Sink) -> int:
    return sum(line["message"] == "partitions were assigned" for line in sink.lines)


def has_partitions(sink: Sink) -> bool:
    return assigned(sink) > 0


def started(where: Place, **more: str) -> "subprocess.CompletedProcess[str]":
    return where.run("postgres", **more)


def test_without_a_url_the_setting_is_named(where):
    ended = started(where)
    assert ended.returncode == 2
    assert ended.stderr.startswith("sink postgres: setting PAIRSCORE_POSTGRES_URL: ")
    assert ended.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_is_named_without_the_password(where):
    [port] = free_ports(1)
    ended = started(where, PAIRSCORE_POSTGRES_URL=f"postgresql://me:hunter2@127.0.0.1:{port}/pairs")
    assert_refused(ended, f"PostgreSQL at 127.0.0.1:{port}/pairs cannot be used: ")


def test_a_database_that_does_not_exist_is_named(where, postgres_service):
    ended = started(where, PAIRSCORE_POSTGRES_URL=url_of(postgres_service.url, dbname="nowhere"))
    assert_refused(ended, 'database "nowhere" does not exist')


def test_a_wrong_password_is_said_and_not_shown(where, own_server):
    rules = Path(ask(own_server.url, "SHOW hba_file")[0][0])
    before = rules.read_text()
    ask(own_server.url, "CREATE ROLE outsider LOGIN PASSWORD 'right'")
    try:
        rules.write_text(f"host all outsider 127.0.0.1/32 scram-sha-256\n{before}")
        ask(own_server.url, "SELECT pg_reload_conf()")
        ended = started(
            where,
            PAIRSCORE_POSTGRES_URL=url_of(own_server.url, user="outsider", password="hunter2"),
        )
        assert_refused(ended, "password authentication failed")
    finally:
        rules.write_text(before)
        ask(own_server.url, "SELECT pg_reload_conf()")
        ask(own_server.url, "DROP ROLE outsider")


def assert_refused(ended: "subprocess.CompletedProcess[str]", why: str) -> None:
    assert ended.returncode == 3
    [line] = ended.stderr.splitlines()
    assert line.startswith("sink postgres: setting PAIRSCORE_POSTGRES_URL: ")
    assert why in line
    assert "hunter2" not in line
