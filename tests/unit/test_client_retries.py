"""The client of the API where the API, or what is before it, does not behave."""

import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.local.ports import free_ports
from pairscore.client import ApiError, Client, JobStatus, NoAnswer, Pending, Retries, Unfinished
from pairscore.client.retries import Repeat, passes, retry_after
from pairscore.errors import InputError, PairscoreError
from pairscore.pair import Failure, Pair, Reason, Score
from tests.scripted_api import (
    Answer,
    Script,
    answer,
    cut,
    problem,
    reset_after_body,
    reset_in_body,
    scripted_api,
    silent,
)

KEY = "ps_abcdef_notforothers"
QUICK = Retries(attempts=4, seconds=20.0, base=0.01)
PAIRS = [("https://e.org/1.jpg", "a cat"), ("https://e.org/2.jpg", "ein Kätzchen")]
SCORED = {
    "status": "scored",
    "similarity": 25.0,
    "cosine": 0.25,
    "caption_truncated": False,
    "image_sha256": "0" * 64,
    "model": "m",
    "attempts": 1,
}
FAILED = {"status": "failed", "error": "http_error", "error_detail": "404", "attempts": 2}
SCORE = Score(25.0, 0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1)
FAILURE = Failure(Reason.HTTP_ERROR, "404", attempts=2)
BOTH = {"outcomes": [SCORED, FAILED]}
QUOTA = "the quota of rows per second is used up"
UNKNOWN = problem(404, "not-found", "there is no such job", more={})
BUSY = problem(503, "unavailable", "Kafka does not answer", more={})


def job(state: str = "closed", scored: int = 0, name: str = "api-1") -> dict[str, Any]:
    return {
        "job": name,
        "state": state,
        "rows": 2,
        "published": 2,
        "scored": scored,
        "failed": {"http_error": 2 - scored},
        "created_at": "2026-01-31T12:30:00Z",
        "links": {},
    }


def row(number: int, outcome: dict[str, Any] = SCORED) -> dict[str, Any]:
    given = {"row": number, "url": "u", "caption": "c", "scored_at": "2026-01-31T12:30:00+00:00"}
    return given | outcome


def page(*rows: int, complete: bool, next_: str | None = None) -> Answer:
    content = {"job": "j", "complete": complete, "outcomes": [row(each) for each in rows]}
    return answer(content if next_ is None else {**content, "next": next_})


@contextmanager
def client_of(
    *answers: Answer, retries: Retries = QUICK, timeout: float = 10.0
) -> Iterator[tuple[Client, Script]]:
    with (
        scripted_api(*answers) as script,
        Client(script.url, KEY, retries=retries, timeout=timeout) as client,
    ):
        yield client, script


def test_retry_after_is_waited_for() -> None:
    too_many = problem(429, "too-many-requests", QUOTA, more={}, Retry_After="1")
    with client_of(too_many, answer(BOTH)) as (client, script):
        assert client.score(PAIRS) == [SCORE, FAILURE]
    first, second = script.asked
    assert second.at - first.at >= 0.99
    assert first.body == second.body


def test_a_retry_after_longer_than_there_is_time_is_not_waited_for() -> None:
    too_many = problem(429, "too-many-requests", QUOTA, more={}, Retry_After="3600")
    with (
        client_of(too_many) as (client, script),
        pytest.raises(ApiError, match="used up") as caught,
    ):
        client.score(PAIRS)
    assert caught.value.retry_after == 3600
    assert len(script.asked) == 1


def test_more_than_the_quota_ever_allows_is_not_asked_for_again() -> None:
    too_many = problem(429, "too-many-requests", QUOTA, more={})
    with client_of(too_many) as (client, script), pytest.raises(ApiError):
        client.score(PAIRS)
    assert len(script.asked) == 1


def test_in_line_pairs_are_sent_again_after_503() -> None:
    with client_of(BUSY, BUSY, answer(BOTH)) as (client, script):
        assert client.score(PAIRS) == [SCORE, FAILURE]
    assert len(script.asked) == 3


@pytest.mark.parametrize(
    "odd",
    [
        reset_after_body,
        answer(b'{"outcomes": [{"status": "sco'),
        cut(b'{"outcomes": ['),
        answer(b"<html>gateway</html>", 502, Content_Type="text/html"),
        problem(500, "internal", "a defect", more={}),
        problem(504, "in-doubt", "it is not known", more={}, Retry_After="0"),
    ],
)
def test_in_line_pairs_that_may_have_been_taken_are_not_sent_again(odd: Answer) -> None:
    with client_of(odd, answer(BOTH)) as (client, script):
        with pytest.raises(PairscoreError):
            client.score(PAIRS)
        assert len(script.asked) == 1


def test_where_nobody_listens_nothing_was_sent() -> None:
    (port,) = free_ports(1)
    with (
        Client(f"http://127.0.0.1:{port}", retries=Retries(attempts=3, base=0.01)) as client,
        pytest.raises(NoAnswer, match="Connection refused") as caught,
    ):
        client.score(PAIRS)
    assert not caught.value.sent
    assert passes(caught.value, Repeat.NOT_TAKEN, frozenset())


@pytest.mark.parametrize("odd", [reset_in_body, reset_after_body, BUSY, cut(b"{")])
@pytest.mark.parametrize("kind", ["list", "generator", "csv", "ndjson"])
def test_an_upload_is_sent_again_whole_with_its_key(odd: Answer, kind: str, tmp_path: Path) -> None:
    pairs = [(f"https://e.org/{number}.jpg", f"caption {number}") for number in range(50_000)]
    lines = [json.dumps({"url": url, "caption": caption}) + "\n" for url, caption in pairs]
    csv = tmp_path / "in.csv"
    csv.write_text("url,caption\n" + "".join(f"{url},{caption}\n" for url, caption in pairs))
    ndjson = tmp_path / "in.ndjson"
    ndjson.write_text("".join(lines))
    sources: dict[str, Any] = {
        "list": pairs,
        "generator": (Pair(*pair) for pair in pairs),
        "csv": csv,
        "ndjson": str(ndjson),
    }
    with client_of(odd, odd, answer(job(), 202)) as (client, script):
        assert client.submit(sources[kind]).name == "api-1"
    *broken, last = script.asked
    assert len(broken) == 2
    assert last.body == (csv if kind == "csv" else ndjson).read_bytes()
    assert last.headers["Content-Type"] == ("text/csv" if kind == "csv" else "application/x-ndjson")
    (key,) = {asked.headers["Idempotency-Key"] for asked in script.asked}
    assert len(key) == 32


def test_each_upload_has_a_key_of_its_own_unless_one_is_given() -> None:
    with client_of(answer(job(), 202)) as (client, script):
        for given in (None, None, "mine"):
            client.submit(PAIRS, idempotency_key=given)
    first, second, third = (asked.headers["Idempotency-Key"] for asked in script.asked)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    "odd",
    [
        reset_after_body,
        cut(b'{"job": "j"'),
        answer(b'{"job": "j", '),
        answer(b"<html>gateway</html>", 502, Content_Type="text/html"),
        BUSY,
        problem(408, "too-slow", "too slow", more={}),
    ],
)
def test_what_only_asks_is_asked_again(odd: Answer) -> None:
    with client_of(odd, odd, answer(job("complete"))) as (client, script):
        assert client.job("api-1").status().complete
    assert [asked.path for asked in script.asked] == ["/v1/jobs/api-1"] * 3


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    with client_of(silent, answer(job()), timeout=0.3) as (client, script):
        assert client.job("api-1").status().published == 2
        assert len(script.asked) == 2


@pytest.mark.parametrize("odd", [BUSY, reset_after_body])
def test_tries_are_bounded(odd: Answer) -> None:
    with client_of(odd) as (client, script):
        with pytest.raises((ApiError, NoAnswer)):
            client.jobs()
        assert len(script.asked) == QUICK.attempts


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 501])
def test_what_will_not_change_is_said_at_once(status: int) -> None:
    with client_of(problem(status, "some", "no", more={})) as (client, script):
        with pytest.raises(ApiError) as caught:
            client.jobs()
        assert len(script.asked) == 1
    assert caught.value.status == status


def test_a_problem_is_an_error_with_its_fields_and_one_line() -> None:
    detail = "row 17: caption: Field\n required"
    invalid = problem(422, "invalid", detail, more={"row": 17, "line": 18})
    with client_of(invalid) as (client, _), pytest.raises(ApiError) as caught:
        client.submit(PAIRS)
    error = caught.value
    assert (error.type, error.title) == ("urn:pairscore:problem:invalid", "As it is called")
    assert (error.row, error.line, error.request_id) == (17, 18, "r17")
    assert str(error) == "row 17: caption: Field required (HTTP 422, request r17)"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.row) == (str(error), 17)


def test_a_job_that_was_just_made_may_not_be_known_everywhere() -> None:
    with client_of(answer(job(), 202), UNKNOWN, answer(job("complete"))) as (client, script):
        made = client.submit(PAIRS)
        assert made.status().complete
    assert len(script.asked) == 3


def test_pending_outcomes_are_asked_for_until_they_are_there() -> None:
    first = {
        "outcomes": [{"status": "pending"}, FAILED],
        "pending": {
            "count": 1,
            "job": "j",
            "start": 7,
            "href": "/v1/jobs/j/scores?start=7&limit=2",
        },
    }
    strangers = page(8, 9, complete=False)  # of other requests of the same client
    script_of = (answer(first), UNKNOWN, strangers, page(7, 8, complete=False))
    with client_of(*script_of) as (client, script):
        found = client.score([PAIRS[0], Pair(*PAIRS[1])])
    assert found[0] == SCORE
    assert [asked.path for asked in script.asked[1:]] == ["/v1/jobs/j/scores?start=7&limit=2"] * 3


def test_pending_outcomes_that_are_long_come_in_several_pages() -> None:
    href = "/v1/jobs/j/scores?start=7&end=9&limit=2"
    more = "/v1/jobs/j/scores?start=8&end=9&limit=2"
    waits = {"status": "pending"}
    first = {
        "outcomes": [waits, waits],
        "pending": {"count": 2, "job": "j", "start": 7, "href": href},
    }
    script_of = (answer(first), page(7, complete=False, next_=more), page(8, complete=False))
    with client_of(*script_of) as (client, script):
        assert client.score([PAIRS[0], PAIRS[0]]) == [SCORE, SCORE]
    assert [asked.path for asked in script.asked[1:]] == [href, more]


def test_rows_of_other_requests_are_not_gone_after() -> None:
    href = "/v1/jobs/j/scores?start=7&limit=1"
    first = {
        "outcomes": [{"status": "pending"}],
        "pending": {"count": 1, "job": "j", "start": 7, "href": href},
    }
    stranger = page(8, complete=False, next_="/v1/jobs/j/scores?start=9&limit=1")
    with client_of(answer(first), stranger, page(7, complete=False)) as (client, script):
        assert client.score(PAIRS[:1]) == [SCORE]
    assert [asked.path for asked in script.asked[1:]] == [href] * 2


def test_pending_outcomes_can_be_left() -> None:
    first = {
        "outcomes": [SCORED, {"status": "pending"}],
        "pending": {
            "count": 1,
            "job": "j",
            "start": 7,
            "href": "/v1/jobs/j/scores?start=7&limit=2",
        },
    }
    none = page(complete=False)
    with client_of(answer(first), answer(first), none) as (client, _):
        assert client.score(PAIRS, wait=False) == [SCORE, Pending("j", 8)]
        with pytest.raises(Unfinished) as caught:
            client.score(PAIRS, within=0.2)
    assert caught.value.outcomes == [SCORE, Pending("j", 8)]


def test_many_pairs_are_sent_a_thousand_at_a_time_and_long_ones_fewer() -> None:
    def echo(handler: Any, asked: Any) -> None:
        count = len(json.loads(handler.body())["pairs"])
        sizes.append(count)
        handler.headers.replace_header("Content-Length", "0")
        answer({"outcomes": [SCORED] * count})(handler, asked)

    sizes: list[int] = []
    with client_of(echo) as (client, _):
        assert len(client.score((f"u{n}", "c") for n in range(2_500))) == 2_500
        assert client.score([]) == []
        assert len(client.score([("u", "x" * 700_000)] * 5)) == 5
    assert sizes == [1000, 1000, 500, 2, 2, 1]


def test_follow_gives_rows_in_order_and_waits_for_those_that_are_missing() -> None:
    script = (
        page(0, 1, 3, complete=False),
        page(3, complete=False),
        page(2, complete=False),
        page(3, complete=True),
    )
    with client_of(*script) as (client, asked):
        found = [each.row for each in client.job("j").scores(follow=True)]
    assert found == [0, 1, 2, 3]
    assert [each.path.partition("start=")[2] for each in asked.asked] == [
        "0&limit=1000",
        "2&limit=1000",
        "2&limit=1",
        "3&limit=1000",
    ]


def test_a_page_with_a_next_one_is_not_the_last_however_short() -> None:
    script = (page(0, 1, complete=True, next_="/n"), page(2, complete=True))
    for follow in (True, False):
        with client_of(*script) as (client, asked):
            found = [each.row for each in client.job("j").scores(follow=follow)]
        assert found == [0, 1, 2]
        starts = [each.path.partition("start=")[2] for each in asked.asked]
        assert starts == ["0&limit=1000", "2&limit=1000"]


def test_scores_gives_what_is_there() -> None:
    with client_of(page(0, 3, complete=False)) as (client, _):
        assert [each.row for each in client.job("j").scores()] == [0, 3]


def events(*blocks: tuple[str, dict[str, Any]], tail: str = "") -> Answer:
    text = "".join(f"event: {kind}\ndata: {json.dumps(data)}\n\n" for kind, data in blocks)

    def play(handler: Any, asked: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write((": \n\n" + text + tail).encode())
        handler.close_connection = True

    return play


def test_events_go_on_where_a_connection_broke() -> None:
    begun, half, done = job("closed", 0), job("closed", 1), job("complete", 2)
    script = (
        events(("progress", begun), tail='event: progress\ndata: {"job": "api-1", "st'),
        reset_after_body,
        BUSY,
        events(("progress", begun), ("progress", half)),
        events(("complete", done)),
    )
    with client_of(*script) as (client, asked):
        found: list[JobStatus] = list(client.job("api-1").events())
    assert [(each.state, each.scored) for each in found] == [
        ("closed", 0),
        ("closed", 1),
        ("complete", 2),
    ]
    assert len(asked.asked) == 5


def test_a_download_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    whole = b"url,caption,similarity,error\nu,c,25,\n"
    complete = answer(job("complete"))
    with client_of(
        complete, cut(whole[:9], "text/csv"), answer(whole, Content_Type="text/csv")
    ) as (client, _):
        assert client.job("api-1").download(target) == target
    assert target.read_bytes() == whole
    with client_of(complete, cut(b"url", "text/csv")) as (client, _), pytest.raises(NoAnswer):
        client.job("api-1").download(target)
    assert target.read_bytes() == whole
    with client_of(answer(job())) as (client, _), pytest.raises(Unfinished):
        client.job("api-1").download(target)
    assert list(tmp_path.iterdir()) == [target]


def test_wait_ends_when_it_has_to() -> None:
    with client_of(answer(job("closed", 1))) as (client, script):
        with pytest.raises(Unfinished, match=r"job api-1: 2 rows of 2 are done"):
            client.job("api-1").wait(poll=0.05, within=0.2)
        assert len(script.asked) > 1


def test_redirections_are_not_followed() -> None:
    with (
        scripted_api(answer([])) as elsewhere,
        client_of(answer(b"", 307, Location=elsewhere.url)) as (client, _),
    ):
        with pytest.raises(ApiError) as caught:
            client.jobs()
        assert caught.value.status == 307
        assert elsewhere.asked == []


FAULTS: list[Callable[[Client], object]] = [
    lambda client: client.score(PAIRS),
    lambda client: client.job("j").status(),
    lambda client: client.submit(PAIRS),
]


@pytest.mark.parametrize("call", FAULTS)
@pytest.mark.parametrize(
    "odd", [problem(401, "unauthorized", "unknown key", more={}), reset_in_body, cut(b"{")]
)
def test_the_key_is_sent_and_never_shown(
    call: Callable[[Client], object], odd: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with client_of(odd, retries=Retries(attempts=1)) as (client, script):
        with pytest.raises(PairscoreError) as caught:
            call(client)
        shown = repr(client) + repr(client.__dict__) + repr(client.job("j"))
    assert script.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert script.asked[0].headers["User-Agent"].startswith("pairscore/")
    error = caught.value
    assert "\n" not in str(error)
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert "notforothers" not in shown + text + caplog.text
    assert error.__context__ is None  # requests' errors have the request


def test_a_netrc_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login other password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with client_of(answer({"jobs": []})) as (client, script):
        client.jobs()
        with Client(script.url) as keyless:
            keyless.jobs()
    assert script.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in script.asked[1].headers


@pytest.mark.parametrize("key", ["ps_notforothers\nX: y", "", "ps_notforöthers", " "])
def test_a_key_that_is_none_is_refused_unseen(key: str) -> None:
    with pytest.raises(InputError) as caught:
        Client("http://localhost", key)
    assert "notfor" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://h",
        "http://",
        "http://u:secret@h",
        "http://h?k=secret",
        "http://h:x",
    ],
)
def test_a_url_that_is_none_is_refused_unseen(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("pair", ["ab", ("u",), ("u", 3), 7, ("u", "\ud800")])
def test_what_is_no_pair_is_refused_with_its_row(pair: Any) -> None:
    with client_of(BUSY) as (client, script):
        with pytest.raises(InputError, match="row 1"):
            client.submit([PAIRS[0], pair])
        assert script.asked == []


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with client_of(BUSY) as (client, _), pytest.raises(InputError, match="No such file"):
        client.submit(tmp_path / "none.csv")


def test_waits_double_to_a_cap_and_end() -> None:
    retries = Retries(attempts=6, seconds=100.0, base=1.0, cap=5.0)
    waits = [retries.wait(failures, 0.0, None, 0.0) for failures in range(1, 7)]
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0, -1.0]
    assert retries.wait(1, 0.0, None, 0.999) >= 0.5
    assert retries.wait(1, 0.0, 30.0, 0.5) == 30.0
    assert retries.wait(1, 99.5, None, 0.0) == -1.0
    assert retries.wait(1, 0.0, 101.0, 0.0) == -1.0


def test_retry_after_is_seconds_or_a_time() -> None:
    now = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    assert retry_after("17", now) == 17.0
    assert retry_after("Sat, 31 Jan 2026 12:31:00 GMT", now) == 60.0
    assert retry_after("Sat, 31 Jan 2026 12:29:00 GMT", now) == 0.0
    assert retry_after("soon", now) is None
    assert retry_after("-3", now) is None
    assert retry_after(None, now) is None


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_the_client_brings_no_model() -> None:
    done = python("import sys, pairscore.client; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "requests" in loaded
    assert not loaded & {"torch", "numpy", "transformers", "pydantic", "pairscore.scorer"}


def test_without_requests_one_line_says_what_to_install() -> None:
    done = python("import sys; sys.modules['requests'] = None; import pairscore.client")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pairscore.client needs requests; install it with: "
        "pip install 'pairscore[client]'"
    )
    assert "During handling" not in done.stderr
