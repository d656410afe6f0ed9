"""Jobs over HTTP: what is taken, what is refused, and what comes of it."""

import csv
import gzip
import io
import json
import logging
import socket
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from deploy import local
from pairscore.client import Client
from pairscore.pair import Failure, Reason, Score
from producer.api import posting, streams
from producer.api.streams import read_part
from shared.messages import JobMessage, PairMessage, decode
from shared.results.page import PAGE_BYTES, Page
from tests import sinking
from tests.fetching import wait_until
from tests.postgres_sinks import database, sinks
from tests.services import had
from tests.serving import serving_api
from tests.working import SCORE, WITHIN, Fleet, Told, working

NDJSON = "application/x-ndjson"


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


@pytest.fixture(scope="module")
def api_and_fleet(kafka, tmp_path_factory):
    fleet = Fleet(kafka.bootstrap_servers, "api-jobs.", retry_delays=(1,))
    with serving_api(
        fleet.settings,
        tmp_path_factory.mktemp("api"),
        api={"json_bytes": 2_000_000, "upload_bytes": 19_000_000},
    ) as api:
        yield api, fleet


def lines(rows) -> bytes:
    return b"".join(
        json.dumps({"url": f"http://e.org/{row}", "caption": f"c {row}"}).encode() + b"\n"
        for row in rows
    )


def send(api, body, kind=NDJSON, **headers: str) -> requests.Response:
    return requests.post(
        f"{api.url}/v1/jobs",
        data=body,
        headers={"Content-Type": kind, **headers},
        timeout=3 * WITHIN,
    )


def published(fleet, job: str) -> list[tuple[int, str, str]]:
    """The rows of a job that are on `pairs`, in order."""
    found = [decode(PairMessage, each.value()) for each in fleet.settled(fleet.topics.pairs)]
    rows = [each for each in found if isinstance(each, PairMessage) and each.job == job]
    return sorted((each.row, each.url, each.caption) for each in rows)


def said(fleet, job: str) -> JobMessage:
    """What `jobs` says of it last."""
    found = [each for each in fleet.settled(fleet.topics.jobs) if each.key() == job.encode()]
    latest = decode(JobMessage, found[-1].value())
    assert isinstance(latest, JobMessage)
    return latest


@pytest.mark.parametrize("kind", ["json", "keyed json", "ndjson", "gzip", "csv", "csv gzip"])
def test_a_202_says_that_every_row_is_on_kafka(api_and_fleet, kind):
    api, fleet = api_and_fleet
    pairs = [{"url": f"http://e.org/{row}", "caption": f"c {row}"} for row in range(50)]
    table = "url,caption\n" + "".join(f"{each['url']},{each['caption']}\n" for each in pairs)
    reply = {
        "json": lambda: api.post("/v1/jobs", {"pairs": pairs}),
        "keyed json": lambda: api.post(
            "/v1/jobs", {"pairs": pairs}, headers={"Idempotency-Key": "json"}
        ),
        "ndjson": lambda: send(api, lines(range(50)) + b"\n \n"),
        "gzip": lambda: send(api, gzip.compress(lines(range(50)))),
        "csv": lambda: send(api, table.encode(), "text/csv; charset=utf-8"),
        "csv gzip": lambda: send(api, gzip.compress(table.encode()), "text/csv"),
    }[kind]()
    assert reply.status_code == 202, reply.text
    body = reply.json()
    job = body["job"]
    assert (body["state"], body["rows"], body["published"]) == ("closed", 50, 50)
    assert reply.headers["location"] == body["links"]["self"] == f"/v1/jobs/{job}"
    rows = [(row, f"http://e.org/{row}", f"c {row}") for row in range(50)]
    assert published(fleet, job) == rows
    message = said(fleet, job)
    assert (message.rows, message.source, message.state.value) == (50, "api", "closed")
    assert api.get(f"/v1/jobs/{job}").json()["rows"] == 50
    assert job in [each["job"] for each in api.get("/v1/jobs").json()["jobs"]]


BAD = [
    (b'{"url": "u", "caption": "c"}\n{"url": 1, "caption": "c"}\n', NDJSON, 422, 1, 2, "url"),
    (b'{"url": "u", "caption": "c"}\n\n{"url": "u"}\n', NDJSON, 422, 1, 3, "caption"),
    (b'{"url": "u", "caption": "c", "id": 1}\n', NDJSON, 422, 0, 1, "id"),
    (b"http://e.org/1.jpg\n", NDJSON, 422, 0, 1, "row 0"),
    (b"\xff\xfe\n", NDJSON, 422, 0, 1, "row 0"),
    (b"", NDJSON, 422, None, None, "no rows"),
    (gzip.compress(b"a" * 100_000_000), NDJSON, 413, None, None, "unpacked"),
    (gzip.compress(b"\n" * 20_000_000), NDJSON, 413, None, None, "unpacked"),
    (gzip.compress(lines(range(9)))[:20] + b"\xff" * 40, NDJSON, 400, None, None, "damaged"),
    (gzip.compress(lines(range(9)))[:-9], NDJSON, 400, None, None, "cut short"),
    (gzip.compress(b"url,caption\n" + b"\n" * 20_000_000), "text/csv", 413, None, None, "unpacked"),
    (gzip.compress(b"url,caption\nu,c\n")[:-9], "text/csv", 400, None, None, "cut short"),
    (b"url,caption\n", "text/csv", 422, None, None, "no rows"),
    (b"", "text/csv", 422, None, None, "empty"),
    (b"a,b\n1,2\n", "text/csv", 422, None, 1, "?url_column="),
    (b'url,caption\nu,"c\n', "text/csv", 422, None, 2, "quote"),
    (b"url,caption,error\nu,c,d\n", "text/csv", 422, None, 1, "?overwrite=true"),
    (b"{}", "application/json", 422, None, None, "pairs"),
    (b"{", "application/json", 400, None, None, "JSON"),
    (b'{"pairs": [{"url": "u", "caption": 5}]}', "application/json", 422, 0, None, "caption"),
    (b"url,caption\nu,\xe9\n", "text/csv", 422, None, 2, "is not UTF-8; send it as UTF-8"),
    (b"url,caption\nu,\xe9\n", "text/csv; charset=latin-1", 415, None, None, "not as latin-1"),
    ("url,caption\nu,c\n".encode("utf-16"), "text/csv", 422, None, None, "send it as UTF-8"),
    (b"<a/>", "application/xml", 415, None, None, "text/csv"),
    (b"{}", "application/json; charset*=%00''utf-8", 415, None, None, "cannot be read"),
    (b"url,caption,%b\nu,c,d\n" % (b"x" * 1_100_000), "text/csv", 422, None, 1, "the header makes"),
    (b"x" * 2_000_001, "application/json", 413, None, None, "2,000,000"),
]


@pytest.mark.parametrize(
    ("body", "kind", "status", "row", "line", "why"),
    BAD,
    ids=[f"{number}" for number in range(len(BAD))],
)
def test_what_is_wrong_is_said_with_its_row_and_nothing_is_published(
    api_and_fleet, body, kind, status, row, line, why
):
    api, fleet = api_and_fleet
    before = len(fleet.settled(fleet.topics.pairs)), len(fleet.settled(fleet.topics.jobs))
    reply = send(api, body, kind)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (problem.get("row"), problem.get("line")) == (row, line)
    assert why in problem["detail"]
    assert "pairscore-" not in problem["detail"]  # no file of the server's
    assert (len(fleet.settled(fleet.topics.pairs)), len(fleet.settled(fleet.topics.jobs))) == before


def test_sent_again_with_its_key_it_is_the_same_job(api_and_fleet):
    api, fleet = api_and_fleet
    body = lines(range(20))
    first = send(api, body, **{"Idempotency-Key": "again"})
    again = send(api, body, **{"Idempotency-Key": "again"})
    assert (first.status_code, again.status_code) == (202, 202)
    job = first.json()["job"]
    assert again.json()["job"] == job
    assert [row for row, *_ in published(fleet, job)] == list(range(20))
    other = send(api, lines(range(21)), **{"Idempotency-Key": "again"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:pairscore:problem:conflict")
    bad = send(api, body, **{"Idempotency-Key": "a b"})
    assert bad.status_code == 422


@pytest.mark.parametrize("kind", ["application/json", NDJSON, "text/csv"])
def test_a_deadline_is_the_jobs(api_and_fleet, kind):
    api, fleet = api_and_fleet
    body = {
        "application/json": json.dumps({"pairs": [{"url": "http://e.org/1", "caption": "c"}]}),
        NDJSON: lines(range(1)).decode(),
        "text/csv": "url,caption\nhttp://e.org/1,c\n",
    }[kind]

    def ask(deadline: str) -> requests.Response:
        return requests.post(
            f"{api.url}/v1/jobs",
            params={"deadline": deadline},
            data=body.encode(),
            headers={"Content-Type": kind},
            timeout=WITHIN,
        )

    reply = ask("2026-01-31T06:00:00+01:00")
    assert reply.status_code == 202, reply.text
    deadline = said(fleet, reply.json()["job"]).deadline
    assert deadline == datetime(2026, 1, 31, 5, tzinfo=UTC)
    edges = ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00")
    for bad in ("06:00", "2026-01-31T06:00:00", "soon", *edges):
        problem = ask(bad)
        assert problem.status_code == 422
        assert "deadline" in problem.json()["detail"]


def test_same_csv_read_otherwise_is_another_body(api_and_fleet):
    api, _ = api_and_fleet
    body = b"a,b,caption\nhttp://e.org/1,http://e.org/2,c\n"

    def ask(column: str) -> requests.Response:
        return requests.post(
            f"{api.url}/v1/jobs?url_column={column}",
            data=body,
            headers={"Content-Type": "text/csv", "Idempotency-Key": "columns"},
            timeout=WITHIN,
        )

    assert [ask(column).status_code for column in ("a", "a", "b")] == [202, 202, 409]


def test_client_that_goes_away_in_the_middle_leaves_nothing(api_and_fleet, caplog):
    caplog.set_level(logging.INFO)
    api, fleet = api_and_fleet
    before = len(fleet.settled(fleet.topics.jobs))
    with socket.create_connection(("127.0.0.1", api.port)) as sock:
        sock.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Content-Length: 1000\r\n\r\n" + lines(range(3))
        )
    wait_until(lambda: "POST /v1/jobs 400" in caplog.text, within=WITHIN)
    assert "Traceback" not in caplog.text
    assert len(fleet.settled(fleet.topics.jobs)) == before
    assert not [each for each in api.spool.iterdir() if each.name.startswith("pairscore-")]


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    ("kind", "body"),
    [(NDJSON, lines(range(3))), ("text/csv", b"url,caption\nu,c\n")],
    ids=["ndjson", "csv"],
)
def test_an_upload_that_is_gone_before_it_is_published_is_no_conflict(
    api_and_fleet, monkeypatch, kind, body, keyed
):
    api, _ = api_and_fleet
    headers = {"Idempotency-Key": f"gone-{kind}"} if keyed else {}

    def check_and_remove(check: Any, path: Path, *rest: Any) -> Any:
        found = check(path, *rest)
        path.unlink()
        return found

    for name in ("check_pairs", "check_csv"):
        check = getattr(posting, name)
        monkeypatch.setattr(posting, name, partial(check_and_remove, check))
    reply = send(api, body, kind, **headers)
    assert reply.status_code == 503, reply.text
    assert "cannot be read any more; send it again" in reply.json()["detail"]


def test_same_key_at_the_same_time_publishes_once(api_and_fleet):
    api, fleet = api_and_fleet
    body = lines(range(500))
    replies: list[requests.Response] = []

    def ask() -> None:
        replies.append(send(api, body, **{"Idempotency-Key": "race"}))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(reply.status_code == 202 for reply in replies)
    # Whoever was overtaken is told to try again.
    assert {reply.status_code for reply in replies} <= {202, 503}
    (job,) = {reply.json()["job"] for reply in replies if reply.status_code == 202}
    assert [row for row, *_ in published(fleet, job)] == list(range(500))
    assert send(api, body, **{"Idempotency-Key": "race"}).json()["job"] == job


def outcome(pair):
    if pair.caption.endswith("7"):
        return Failure(Reason.HTTP_ERROR, "404", attempts=1)
    return Score(12.5, 0.125, caption_truncated=False, image_sha256="a" * 64, attempts=1)


@pytest.fixture(scope="module", params=["csv", "postgres"])
def stored(kafka, request, tmp_path_factory):
    """An API, a worker and a sink of each kind."""
    prefix = f"api-{request.param}."
    place = sinking.place(kafka.bootstrap_servers, prefix, tmp_path_factory.mktemp("stored"))
    place.results.mkdir(exist_ok=True)
    fleet = Fleet(kafka.bootstrap_servers, prefix)
    with ExitStack() as stack:
        stack.enter_context(working(fleet, Told(outcome)))
        settings: dict[str, Any] = {}
        if request.param == "csv":
            stack.enter_context(place.sink())
        else:
            server = request.getfixturevalue("postgres_service")
            url = stack.enter_context(database(server.url))
            stack.enter_context(sinks(place, url, place.results)).start()
            settings["postgres_url"] = SecretStr(url)
        yield stack.enter_context(serving_api(place.settings, place.results, **settings))


def test_a_job_is_taken_while_its_store_is_away(fleet, tmp_path):
    with had(local.postgres(native=True)) as server:
        url = SecretStr(server.url)
        with serving_api(fleet.settings, tmp_path, postgres_url=url) as api:
            server.pause()
            try:
                taken = send(api, lines(range(3)))
                assert taken.status_code == 202
                link = taken.json()["links"]["self"]
                away = api.get(link)
                assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            finally:
                server.resume()
            wait_until(lambda: api.get(link).status_code == 200, within=WITHIN)


def complete(api, job: str) -> dict[str, object]:
    wait_until(lambda: api.get(f"/v1/jobs/{job}").json()["state"] == "complete", within=2 * WITHIN)
    found: dict[str, object] = api.get(f"/v1/jobs/{job}").json()
    return found


def test_outcomes_are_given_by_row_in_every_format(stored):
    api = stored
    job = send(api, lines(range(30))).json()["job"]
    status = complete(api, job)
    assert (status["rows"], status["scored"], status["failed"]) == (30, 27, {"http_error": 3})
    page = api.get(f"/v1/jobs/{job}/scores?limit=12").json()
    assert [each["row"] for each in page["outcomes"]] == list(range(12))
    assert page["outcomes"][7]["error"] == "http_error"
    assert page["outcomes"][8]["similarity"] == 12.5
    rows = []
    link = f"/v1/jobs/{job}/scores?limit=12"
    while link:
        page = api.get(link).json()
        rows += [each["row"] for each in page["outcomes"]]
        link = page.get("next")
    assert (rows, page["complete"]) == (list(range(30)), True)
    page = api.get(f"/v1/jobs/{job}/scores?start=20&limit=10").json()
    assert (len(page["outcomes"]), page.get("next")) == (10, None)  # the job has no more
    assert len(api.get(f"/v1/jobs/{job}/scores?limit=10001").json()["outcomes"]) == 30
    streamed = api.get(f"/v1/jobs/{job}/scores", headers={"Accept": NDJSON})
    assert streamed.headers["content-type"] == NDJSON
    assert streamed.headers["x-job-state"] == "complete"
    assert [json.loads(line)["row"] for line in streamed.text.splitlines()] == list(range(30))
    some = api.get(f"/v1/jobs/{job}/scores?format=ndjson&start=5&limit=3")
    assert [json.loads(line)["row"] for line in some.text.splitlines()] == [5, 6, 7]
    for end, last in ((9, 9), (5, 5), (4, 5), (99, 30)):
        part = f"/v1/jobs/{job}/scores?start=5&end={end}"
        found = [json.loads(line)["row"] for line in api.get(f"{part}&format=ndjson").iter_lines()]
        page = api.get(part).json()
        assert found == [each["row"] for each in page["outcomes"]] == list(range(5, last))
        assert "next" not in page
    page = api.get(f"/v1/jobs/{job}/scores?start=5&end=9&limit=3").json()
    assert page["next"] == f"/v1/jobs/{job}/scores?start=8&end=9&limit=3"
    page = api.get(page["next"]).json()
    assert ([each["row"] for each in page["outcomes"]], page.get("next")) == ([8], None)
    table = list(csv.DictReader(io.StringIO(api.get(f"/v1/jobs/{job}/scores?format=csv").text)))
    assert [each["url"] for each in table] == [f"http://e.org/{row}" for row in range(30)]
    assert (table[7]["error"], table[8]["similarity"]) == ("http_error: 404", "12.5000")


def test_long_rows_come_in_short_pages_and_streams_are_read_in_such(stored, monkeypatch):
    api = stored
    caption = "c" * (PAGE_BYTES // 3)
    pairs = [{"url": f"http://e.org/{row}", "caption": caption} for row in range(7)]
    job = send(api, b"".join(json.dumps(pair).encode() + b"\n" for pair in pairs)).json()["job"]
    complete(api, job)
    pages = []
    link = f"/v1/jobs/{job}/scores?limit=6"
    while link:
        page = api.get(link).json()
        pages.append([each["row"] for each in page["outcomes"]])
        link = page.get("next")
    assert pages == [[0, 1, 2], [3, 4, 5], [6]]
    page = api.get(f"/v1/jobs/{job}/scores?end=3").json()
    assert (len(page["outcomes"]), page.get("next")) == (3, None)
    page = api.get(f"/v1/jobs/{job}/scores?start=1&end=7").json()
    assert page["next"] == f"/v1/jobs/{job}/scores?start=4&end=7&limit=1000"
    with Client(api.url) as client:
        for follow in (False, True):
            found = client.job(job).scores(follow=follow)
            assert [(each.row, len(each.caption)) for each in found] == [
                (row, len(caption)) for row in range(7)
            ]
    read: list[int] = []

    def spied(*arguments: Any) -> Page:
        page = read_part(*arguments)
        read.append(len(page.outcomes))
        return page

    monkeypatch.setattr(streams, "read_part", spied)
    for kind in ("ndjson", "csv"):
        text = api.get(f"/v1/jobs/{job}/scores?format={kind}").text
        assert len(text.splitlines()) == 7 + (kind == "csv")
        assert text.count(caption) == 7
        assert read == [3, 3, 1]
        read.clear()


def test_a_csv_comes_back_as_it_was_with_its_new_columns(stored):
    api = stored
    text = 'id;image_url;caption\r\n1;http://e.org/1;"a ""cat"""\r\n2;http://e.org/2;c 7\r\n'
    reply = send(api, text.encode(), "text/csv")
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    complete(api, job)
    assert api.get(f"/v1/jobs/{job}/scores?format=csv").text == (
        "id;image_url;caption;similarity;error\r\n"
        '1;http://e.org/1;"a ""cat""";12.5000;\r\n'
        "2;http://e.org/2;c 7;;http_error: 404\r\n"
    )
    page = api.get(f"/v1/jobs/{job}/scores").json()
    assert [each["caption"] for each in page["outcomes"]] == ['a "cat"', "c 7"]


def test_progress_comes_as_events_to_the_end(stored):
    api = stored
    job = send(api, lines(range(5))).json()["job"]
    with api.get(f"/v1/jobs/{job}/events", stream=True) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = "".join(part for part in reply.iter_content(None, decode_unicode=True))
    events = [each for each in text.split("\n\n") if each.startswith("event:")]
    assert events[-1].startswith("event: complete\n")
    assert json.loads(events[-1].partition("data: ")[2])["scored"] == 5


def test_what_is_not_scored_of_a_cancelled_job_comes_out_as_cancelled(fleet, tmp_path):
    scorer = Told(lambda _: None)
    options = {"id": "w", "in_flight": 10}
    with (
        working(fleet, scorer, worker=options),
        serving_api(fleet.settings, tmp_path) as api,
    ):
        job = send(api, lines(range(40))).json()["job"]
        wait_until(lambda: len(scorer.kept) == 10, within=WITHIN)
        reply = api.delete(f"/v1/jobs/{job}")
        assert (reply.status_code, reply.json()["job"]) == (202, job)
        assert api.delete(f"/v1/jobs/{job}").status_code == 202
        assert api.delete("/v1/jobs/none").status_code == 404

        def scored() -> dict[int, str | None]:
            for future in scorer.kept:
                if not future.done():
                    future.set_result(SCORE)
            return {each.row: each.error for each in fleet.scores()}

        wait_until(lambda: len(scored()) == 40, within=WITHIN)
        reasons = list(scored().values())
        assert reasons.count(Reason.CANCELLED) == 40 - len(scorer.kept)
        assert len(scorer.kept) < 40
        inline = api.post("/v1/scores", {"pairs": [{"url": "u", "caption": "c"}], "timeout": 0})
        refused = api.delete(f"/v1/jobs/{inline.json()['pending']['job']}")
        assert refused.status_code == 409
