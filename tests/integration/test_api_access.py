"""Who may ask the API what, and how much."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests

from deploy import local
from pairscore.errors import EnvironmentFault, SettingsError
from producer.api import posting, service, uploads
from producer.api.command import serve
from producer.api.jobs import JobBook
from producer.api.keys_command import Wanted, add_key, revoke_key
from shared.messages import JobMessage, JobState, decode
from shared.settings import ApiOptions, ProducerOptions, ProducerSettings
from shared.shutdown import StopSignal
from tests.fetching import wait_until
from tests.services import had
from tests.serving import Api, serving_api
from tests.working import WITHIN, Fleet, Told, url_of, working


@pytest.fixture
def own_kafka() -> Iterator[local.NativeKafka]:
    with had(local.kafka(native=True)) as kafka:
        yield kafka


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


def wanted(
    client: str,
    *,
    days: int | None = None,
    requests_per_second: float | None = None,
    rows_per_day: int | None = None,
    all_jobs: bool | None = None,
) -> Wanted:
    return Wanted(
        client=client,
        days=days,
        requests_per_second=requests_per_second,
        rows_per_second=None,
        rows_per_day=rows_per_day,
        all_jobs=all_jobs,
    )


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def body(rows: int) -> dict[str, Any]:
    return {"pairs": [{"url": url_of(row), "caption": "c"} for row in range(rows)]}


ROUTES = [
    ("POST", "/v1/scores"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/some"),
    ("GET", "/v1/jobs/some/scores"),
    ("GET", "/v1/jobs/some/events"),
]


def test_without_a_key_nothing_is_done(fleet, tmp_path, caplog):
    keys = tmp_path / "keys.json"
    secret = add_key(keys, wanted("alice"))
    expired = add_key(keys, wanted("alice", days=1))
    with serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}) as api:
        wrong = ["", "Basic YTpi", "Bearer ", f"Bearer {secret[:-1]}x", f"bearer{secret}"]
        for method, path in ROUTES:
            for header in (*wrong, None):
                headers = {} if header is None else {"Authorization": header}
                reply = requests.request(
                    method, api.url + path, json=body(1), headers=headers, timeout=WITHIN
                )
                assert (reply.status_code, reply.json()["status"]) == (401, 401), (method, header)
                assert reply.headers["www-authenticate"] == "Bearer"
        assert api.get("/v1/jobs", headers=bearer(secret)).status_code == 200
        assert api.get("/v1/jobs", headers=bearer(expired)).status_code == 200
        # Taken back and added while it runs.
        revoke_key(keys, secret.split("_")[1])
        other = add_key(keys, wanted("bob"))
        wait_until(
            lambda: api.get("/v1/jobs", headers=bearer(secret)).status_code == 401, within=WITHIN
        )
        assert api.get("/v1/jobs", headers=bearer(other)).status_code == 200
    said = caplog.text
    assert not any(each in said for each in (secret, expired, other, secret[-20:]))


def test_clients_see_their_own_jobs_alone(fleet, tmp_path):
    keys = tmp_path / "keys.json"
    alice, bob = (bearer(add_key(keys, wanted(name))) for name in ("alice", "bob"))
    chief = bearer(add_key(keys, wanted("chief", all_jobs=True)))
    with serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}) as api:
        idempotent = {"Idempotency-Key": "one"}
        first = api.post("/v1/jobs", body(3), headers={**alice, **idempotent}).json()["job"]
        second = api.post("/v1/jobs", body(4), headers={**bob, **idempotent}).json()["job"]
        assert first != second  # the same key of two clients is two jobs
        pending = api.post("/v1/scores", {**body(2), "timeout": 0}, headers=alice).json()
        inline = pending["pending"]["job"]
        for path in ("", "/scores", "/events"):
            for job in (first, inline):
                assert api.get(f"/v1/jobs/{job}{path}", headers=bob).status_code == 404
        assert api.get(f"/v1/jobs/{first}", headers=alice).json()["rows"] == 3

        def listed(headers: dict[str, str]) -> set[str]:
            return {each["job"] for each in api.get("/v1/jobs", headers=headers).json()["jobs"]}

        assert listed(alice) == {first, inline}
        assert listed(bob) == {second}
        assert listed(chief) == {first, second, inline}
        assert api.get(f"/v1/jobs/{first}", headers=chief).status_code == 200


def test_quotas_are_kept_and_told(fleet, tmp_path):
    keys = tmp_path / "keys.json"
    few = bearer(add_key(keys, wanted("few", rows_per_day=10)))
    slow = bearer(add_key(keys, wanted("slow", requests_per_second=0.01)))
    with (
        working(fleet, Told()),
        serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}) as api,
    ):
        taken = api.post("/v1/scores", body(7), headers=few)
        assert taken.status_code == 200
        assert '"rows-per-day"' in taken.headers["ratelimit"]
        refused = api.post("/v1/scores", body(4), headers=few)
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:pairscore:problem:too-many-requests"
        assert int(refused.headers["retry-after"]) > 0
        assert api.post("/v1/jobs", body(4), headers=few).status_code == 429
        assert api.post("/v1/jobs", body(3), headers=few).status_code == 202
        statuses = [api.post("/v1/scores", body(1), headers=slow).status_code for _ in range(40)]
        assert statuses[0] == 200
        assert 429 in statuses
        # What only asks counts too.
        for method, path in ROUTES[2:]:
            reply = requests.request(method, api.url + path, headers=slow, timeout=WITHIN)
            assert reply.status_code == 429, path
        assert api.delete("/v1/jobs/some", headers=slow).status_code == 429
        assert api.get("/v1/jobs", headers=few).status_code == 200
    # What was refused was not published.
    assert len(fleet.settled(fleet.topics.pairs)) == 3


def test_a_client_sends_so_many_bodies_at_once_and_others_send_theirs(fleet, tmp_path):
    keys = tmp_path / "keys.json"
    many, other = (bearer(add_key(keys, wanted(client))) for client in ("many", "other"))
    options = {"keys": str(keys), "client_uploads": 2}
    ndjson = {"Content-Type": "application/x-ndjson"}
    line = json.dumps(body(1)["pairs"][0]) + "\n"
    held = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield line.encode()
        assert held.wait(WITHIN)

    with serving_api(fleet.settings, tmp_path, api=options) as api, ThreadPoolExecutor() as pool:

        def send(data: Any, headers: dict[str, str]) -> requests.Response:
            url = f"{api.url}/v1/jobs"
            return requests.post(url, data=data, headers=headers | ndjson, timeout=WITHIN)

        slow = [pool.submit(send, slowly(), many) for _ in range(2)]
        wait_until(lambda: len([*api.spool.glob("pairscore-*")]) == 2, within=WITHIN)
        try:
            refused = send(line, many)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert refused.json()["detail"].startswith("2 uploads of yours are under way")
            assert send(line, other).status_code == 202
        finally:
            held.set()
        assert [each.result(WITHIN).status_code for each in slow] == [202, 202]
        assert send(line, many).status_code == 202


def test_an_upload_whose_client_has_gone_does_not_wait_for_its_turn(fleet, tmp_path, monkeypatch):
    checking, held = threading.Event(), threading.Event()
    check = uploads.check_pairs

    def slowly(*arguments: Any) -> Any:
        checking.set()
        assert held.wait(WITHIN)
        return check(*arguments)

    monkeypatch.setattr(posting, "check_pairs", slowly)
    line = json.dumps(body(1)["pairs"][0]).encode()
    with (
        serving_api(fleet.settings, tmp_path, api={"uploads": 1}) as api,
        ThreadPoolExecutor() as pool,
    ):
        ndjson = {"Content-Type": "application/x-ndjson"}
        first = pool.submit(requests.post, f"{api.url}/v1/jobs", line, headers=ndjson)
        try:
            assert checking.wait(WITHIN)
            with socket.create_connection(("127.0.0.1", api.port)) as sock:
                sock.sendall(
                    b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(line), line)
                )
                spooled = partial(api.spool.glob, "pairscore-*")
                wait_until(lambda: len([*spooled()]) == 2, within=WITHIN)
            wait_until(lambda: len([*spooled()]) == 1, within=WITHIN)
        finally:
            held.set()
        assert first.result(WITHIN).status_code == 202
    assert len(fleet.settled(fleet.topics.pairs)) == 1


def test_a_key_that_another_process_has_used_costs_nothing(fleet, tmp_path, monkeypatch):
    keys = tmp_path / "keys.json"
    few = bearer(add_key(keys, wanted("few", rows_per_day=10)))
    idempotent = {**few, "Idempotency-Key": "k"}
    with serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}) as api:
        assert api.post("/v1/jobs", body(2), headers=idempotent).status_code == 202
        # As one that has not heard of that job yet.
        monkeypatch.setattr(JobBook, "find", lambda *_: None)
        again = api.post("/v1/jobs", body(2), headers=idempotent)
        assert again.status_code == 202
        assert api.post("/v1/jobs", body(7), headers=idempotent).status_code == 409
        assert remaining(api.post("/v1/jobs", body(1), headers=few)) == 10 - 2 - 1


def test_an_address_of_others_needs_keys_or_to_be_open(kafka, topic_prefix, tmp_path):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)

    def settings(**api: object) -> ProducerSettings:
        return ProducerSettings(
            kafka=fleet.settings, api=ApiOptions(host="0.0.0.0", **api), results=str(tmp_path)
        )

    with pytest.raises(SettingsError, match=r"PAIRSCORE_API__KEYS.*PAIRSCORE_API__OPEN"):
        serve(settings(), StopSignal())
    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        serve(settings(keys=str(tmp_path / "nowhere.json")), StopSignal())


def test_of_two_with_one_name_the_first_ends_in_one_line(fleet, tmp_path):
    with pytest.raises(EnvironmentFault, match="API process of this name"):  # noqa: PT012, SIM117
        with serving_api(fleet.settings, tmp_path) as first:
            with serving_api(fleet.settings, tmp_path) as second:
                assert second.post("/v1/jobs", body(1)).status_code == 202
                assert first.post("/v1/jobs", body(1)).status_code == 503
                wait_until(lambda: first.stop.asked, within=WITHIN)
    assert len(fleet.settled(fleet.topics.pairs)) == 1


def test_while_kafka_is_away_nothing_is_taken_and_later_it_is(own_kafka, tmp_path):
    fleet = Fleet(own_kafka.bootstrap_servers, "away.")
    options = {"idle_seconds": 60.0}
    with serving_api(fleet.settings, tmp_path, api=options) as api:
        assert api.post("/v1/jobs", body(2)).status_code == 202
        own_kafka.pause(1)
        try:
            asked = [
                ("/v1/jobs", body(5), {}),
                ("/v1/scores", {**body(5), "timeout": 1}, {}),
                ("/v1/jobs", body(5), {"Idempotency-Key": "k"}),
            ]
            with ThreadPoolExecutor() as at_once:
                replies = list(at_once.map(lambda a: api.post(*a[:2], headers=a[2]), asked))
            for reply in replies:
                assert reply.status_code == 503, reply.text
                assert reply.json()["type"] == "urn:pairscore:problem:unavailable"
                assert int(reply.headers["retry-after"]) > 0
        finally:
            own_kafka.resume(1)
        again: list[requests.Response] = []

        def taken() -> bool:
            again.append(api.post("/v1/jobs", body(5), headers={"Idempotency-Key": "k"}))
            return again[-1].status_code == 202

        # By and by, not when what clients of Kafka's know of its leaders is a minute old.
        wait_until(taken, within=WITHIN)
        found = [json.loads(each.value() or b"") for each in fleet.settled(fleet.topics.pairs)]
        rows = sorted(each["row"] for each in found if each["job"] == again[-1].json()["job"])
        assert rows == list(range(5))


ROWS = 200


@pytest.fixture
def interrupted(own_kafka, tmp_path, monkeypatch):
    """Sends an upload, slowly, with Kafka going away in its midst; gives what was answered."""
    monkeypatch.setattr(service, "_UPLOAD_OUTAGE_SECONDS", 2.0)
    fleet = Fleet(own_kafka.bootstrap_servers, "midst.")
    keys = tmp_path / "keys.json"
    alice = bearer(add_key(keys, wanted("alice", rows_per_day=1_000)))
    lines = b"".join(json.dumps(pair).encode() + b"\n" for pair in body(ROWS)["pairs"])
    options = ProducerOptions(transaction_rows=20, limit_rate=25)

    def send(api: Api, **headers: str) -> requests.Response:
        return requests.post(
            f"{api.url}/v1/jobs",
            data=lines,
            headers={**alice, **headers, "Content-Type": "application/x-ndjson"},
            timeout=3 * WITHIN,
        )

    def hang() -> None:
        wait_until(lambda: fleet.read(fleet.topics.pairs) != [], within=WITHIN)
        own_kafka.pause(1)

    with serving_api(fleet.settings, tmp_path, api={"keys": str(keys)}, producer=options) as api:

        def ask(**headers: str) -> requests.Response:
            hanging = threading.Thread(target=hang)
            hanging.start()
            try:
                return send(api, **headers)
            finally:
                hanging.join()
                own_kafka.resume(1)

        yield fleet, ask, lambda **headers: send(api, **headers)


def remaining(reply: requests.Response) -> int:
    """Rows that are left of the day's."""
    found = re.search(r'"rows-per-day";r=(\d+)', reply.headers["ratelimit"])
    assert found is not None
    return int(found[1])


def test_a_job_that_nobody_was_told_of_is_cancelled_and_closed(interrupted):
    fleet, ask, again = interrupted
    reply = ask()
    assert reply.status_code == 503
    detail = reply.json()["detail"]
    found = re.search(r"; (\d+) of 200 rows of job (api-\S+) are published; they will be", detail)
    assert found is not None, detail
    job = found[2]

    def said() -> list[JobMessage]:
        records = fleet.settled(fleet.topics.jobs)
        messages = [decode(JobMessage, each.value()) for each in records]
        return [each for each in messages if isinstance(each, JobMessage) and each.job == job]

    wait_until(lambda: said()[-1].state is JobState.CLOSED, within=3 * WITHIN)
    rows = said()[-1].rows
    # One transaction more, if the broker had it when it went away.
    assert rows in (int(found[1]), int(found[1]) + 20)
    on_pairs = [json.loads(each.value()) for each in fleet.settled(fleet.topics.pairs)]
    assert sorted(each["row"] for each in on_pairs if each["job"] == job) == list(range(rows))
    assert [each.key() for each in fleet.settled(fleet.topics.cancellations)] == [job.encode()]
    wait_until(lambda: again().status_code == 202, within=3 * WITHIN)


def test_a_job_with_a_key_goes_on_and_is_paid_for_once(interrupted):
    fleet, ask, again = interrupted
    key = {"Idempotency-Key": "k"}
    reply = ask(**key)
    assert reply.status_code == 503
    assert "sent again with its Idempotency-Key, the request goes on" in reply.json()["detail"]
    replies: list[requests.Response] = []

    def taken() -> bool:
        replies.append(again(**key))
        return replies[-1].status_code == 202

    wait_until(taken, within=3 * WITHIN)
    assert replies[-1].json()["rows"] == ROWS
    on_pairs = [json.loads(each.value()) for each in fleet.settled(fleet.topics.pairs)]
    assert sorted(each["row"] for each in on_pairs) == list(range(ROWS))
    assert fleet.settled(fleet.topics.cancellations) == []
    # Less one transaction, if the broker had committed it without a word when it went away.
    paid = 1_000 - remaining(replies[-1])
    assert paid in (ROWS, ROWS - 20)
    assert remaining(again(**key)) == 1_000 - paid
