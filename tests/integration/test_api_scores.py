"""In-line scoring over HTTP, against real Kafka and a worker whose scorer does what it is told."""

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import requests

from pairscore.pair import Failure, Reason, Score
from tests.fetching import wait_until
from tests.serving import serving_api
from tests.working import SCORE, WITHIN, Fleet, Told, url_of, working


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))


def pairs(rows) -> list[dict[str, str]]:
    return [{"url": url_of(row), "caption": f"caption {row}"} for row in rows]


def by_row(pair):
    """An outcome that tells which row it is of."""
    row = int(pair.url.removeprefix("http://e.org/").removesuffix(".jpg"))
    if row % 3 == 2:
        return Failure(Reason.HTTP_ERROR, "404", attempts=1)
    return Score(float(row), row / 100, row % 2 == 1, "0" * 64, attempts=1)


def test_each_pair_has_its_outcome_in_order(fleet, tmp_path):
    with working(fleet, Told(by_row)), serving_api(fleet.settings, tmp_path) as api:
        reply = api.post("/v1/scores", {"pairs": pairs(reversed(range(30))), "timeout": 30})
    assert reply.status_code == 200
    body = reply.json()
    assert "pending" not in body
    outcomes = body["outcomes"]
    for row, outcome in zip(reversed(range(30)), outcomes, strict=True):
        if row % 3 == 2:
            assert outcome == {
                "status": "failed",
                "error": "http_error",
                "error_detail": "404",
                "model": "told",
                "attempts": 1,
            }
        else:
            assert outcome == {
                "status": "scored",
                "similarity": row,
                "cosine": row / 100,
                "caption_truncated": row % 2 == 1,
                "image_sha256": "0" * 64,
                "model": "told",
                "attempts": 1,
            }


def test_many_at_once_get_their_own_outcomes(fleet, tmp_path):
    with working(fleet, Told(by_row)), serving_api(fleet.settings, tmp_path) as api:

        def ask(first: int) -> list[float | str]:
            rows = range(first, first + 7)
            reply = api.post("/v1/scores", {"pairs": pairs(rows), "timeout": 60})
            assert reply.status_code == 200
            return [each.get("similarity", each.get("error")) for each in reply.json()["outcomes"]]

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(ask, range(0, 700, 7)))
    for index, got in enumerate(found):
        rows = range(7 * index, 7 * index + 7)
        assert got == ["http_error" if row % 3 == 2 else row for row in rows]
    # Of one in-line job, each row once.
    wait_until(lambda: fleet.rows() == list(range(700)), within=WITHIN)


def test_what_is_not_ready_in_time_is_pending_and_scored_once(fleet, tmp_path):
    scorer = Told(lambda pair: None if pair.url == url_of(1) else SCORE)
    with working(fleet, scorer), serving_api(fleet.settings, tmp_path) as api:
        reply = api.post("/v1/scores", {"pairs": pairs(range(3)), "timeout": 3})
        assert reply.status_code == 200
        outcomes, pending = reply.json()["outcomes"], reply.json()["pending"]
        # Those behind it in its partition do not wait for it.
        assert [each["status"] for each in outcomes] == ["scored", "pending", "scored"]
        assert pending["count"] == 1
        assert pending["href"] == f"/v1/jobs/{pending['job']}/scores?start=0&end=3&limit=3"
        scorer.finish(range(1, 2))
        wait_until(lambda: fleet.rows() == [0, 1, 2], within=WITHIN)
        assert {score.job for score in fleet.scores()} == {pending["job"]}
        # It goes on with the rows that follow.
        again = api.post("/v1/scores", {"pairs": pairs(range(5, 7)), "timeout": 30})
        assert again.status_code == 200
        wait_until(lambda: fleet.rows() == list(range(5)), within=WITHIN)
    assert scorer.rows() == [0, 1, 2, 5, 6]


def test_what_waits_when_the_process_is_to_end_is_pending(fleet, tmp_path):
    scorer = Told(lambda _: None)
    found: list[requests.Response] = []
    with working(fleet, scorer):
        with serving_api(fleet.settings, tmp_path) as api:
            body = {"pairs": pairs(range(2)), "timeout": 60}
            asking = Thread(target=lambda: found.append(api.post("/v1/scores", body)))
            asking.start()
            wait_until(lambda: len(scorer.kept) == 2, within=WITHIN)
        asking.join()
        assert found[0].json()["pending"]["count"] == 2
        scorer.finish(range(2))
        wait_until(lambda: fleet.rows() == [0, 1], within=WITHIN)


def test_in_line_job_is_closed_when_it_is_full_and_when_the_process_ends(fleet, tmp_path):
    options = {"inline_rows": 4}
    with working(fleet, Told()), serving_api(fleet.settings, tmp_path, api=options) as api:
        for _ in range(3):
            assert api.post("/v1/scores", {"pairs": pairs(range(3)), "timeout": 30}).ok
        listed = api.get("/v1/jobs").json()["jobs"]
        assert [(job["state"], job["published"], job.get("rows")) for job in listed] == [
            ("open", 3, None),
            ("closed", 6, 6),
        ]
    with serving_api(fleet.settings, tmp_path, api=options) as api:
        listed = api.get("/v1/jobs").json()["jobs"]
        assert [(job["state"], job["rows"]) for job in listed] == [("closed", 3), ("closed", 6)]


@pytest.mark.parametrize(
    ("body", "status", "row", "said"),
    [
        ({"pairs": []}, 422, None, "pairs: List should have at least 1 item"),
        ({"pairs": [{"url": "u", "caption": "c"}] * 1001}, 422, None, "at most 1000 items"),
        ({"pairs": [{"url": "u", "caption": "c"}, {"url": 7, "caption": "c"}]}, 422, 1, "string"),
        ({"pairs": [{"url": "u", "caption": ["c"]}]}, 422, 0, "pairs.0.caption"),
        ({"pairs": [{"url": "u"}]}, 422, 0, "pairs.0.caption: Field required"),
        ({"pairs": [{"url": "u", "caption": "c", "x": 1}]}, 422, 0, "pairs.0.x: Extra inputs"),
        ({"pairs": [{"url": "u", "caption": "c"}], "timeout": 61}, 422, None, "timeout"),
        ({"pairs": [{"url": "u", "caption": "c"}], "timeout": "5"}, 422, None, "timeout"),
        ({"pairs": [{"url": "u", "caption": "c" * 6_000_000}]}, 422, 0, "MAX_MESSAGE_BYTES"),
        ([], 422, None, ""),
    ],
)
def test_what_cannot_be_taken_is_said_and_nothing_of_it_is_published(
    shared_api, body, status, row, said
):
    api, fleet = shared_api
    reply = api.post("/v1/scores", body)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == status
    assert problem.get("row") == row
    assert said in problem["detail"]
    assert problem["request_id"] == reply.headers["x-request-id"]
    assert fleet.settled(fleet.topics.interactive) == []


@pytest.fixture(scope="module")
def shared_api(kafka, tmp_path_factory):
    fleet = Fleet(kafka.bootstrap_servers, "api-refusals.", retry_delays=(1,))
    with serving_api(fleet.settings, tmp_path_factory.mktemp("api")) as api:
        yield api, fleet


def test_a_body_that_is_no_json_is_said(shared_api):
    api, _ = shared_api
    reply = requests.post(f"{api.url}/v1/scores", data=b"{nope", timeout=WITHIN)
    assert (reply.status_code, reply.json()["type"]) == (
        415,
        "urn:pairscore:problem:unsupported-media-type",
    )
    typed = requests.post(
        f"{api.url}/v1/scores",
        data=b"{nope",
        headers={"Content-Type": "application/json"},
        timeout=WITHIN,
    )
    assert typed.status_code == 400
    assert typed.json()["type"] == "urn:pairscore:problem:malformed-request"


def test_text_that_is_none_is_refused_and_harms_nobody(shared_api):
    api, _ = shared_api
    for path in ("/v1/scores", "/v1/jobs"):
        reply = requests.post(
            f"{api.url}{path}",
            data=b'{"pairs": [{"url": "http://a/", "caption": "x\\ud800"}]}',
            headers={"Content-Type": "application/json"},
            timeout=WITHIN,
        )
        assert reply.status_code in {400, 422}
    assert api.get("/v1/jobs").status_code == 200


def test_what_is_not_there_is_a_problem_too(shared_api):
    api, _ = shared_api
    for reply, status in (
        (api.get("/v1/nothing"), 404),
        (api.get("/v1/scores"), 405),
        (api.get("/v1/jobs/none"), 404),
        (api.get("/v1/jobs/none/scores"), 404),
        (api.get("/v1/jobs/none/events"), 404),
        (api.get("/v1/jobs/-no-name"), 422),
    ):
        assert (reply.status_code, reply.json()["status"]) == (status, status)
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, POST"),
        ("/v1/jobs/some", "DELETE, GET"),
        ("/v1/scores", "POST"),
        ("/v1/snowflake", "GET, POST"),
        ("/v1/openapi.json", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_there_are(shared_api, path, allowed):
    api, _ = shared_api
    reply = requests.put(f"{api.url}{path}", timeout=WITHIN)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
    assert reply.json()["detail"] == f"{path} takes {allowed}, not PUT"


def test_a_parameter_that_means_nothing_is_refused(shared_api):
    api, _ = shared_api
    for method, path, said in (
        ("POST", "/v1/jobs?overwite=true", "'overwite' here; those that there are: url_column, "),
        ("POST", "/v1/scores?timeout=1", "'timeout' here; there are none"),
        ("GET", "/v1/jobs?limit=1&page=2", "'page' here; those that there are: limit"),
        ("GET", "/v1/jobs/some/scores?from=1", "'from' here; those that there are: start, "),
    ):
        reply = requests.request(method, f"{api.url}{path}", timeout=WITHIN)
        assert reply.status_code == 422
        assert reply.json()["detail"].startswith(f"there is no parameter {said}")


def test_request_id_of_the_client_is_kept(shared_api):
    api, _ = shared_api
    mine = api.get("/v1/jobs", headers={"X-Request-Id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"
    other = api.get("/v1/jobs", headers={"X-Request-Id": "no good\t{}"})
    assert other.headers["x-request-id"] != "no good\t{}"


def test_no_origin_is_let_in_by_default(shared_api):
    api, _ = shared_api
    asked = requests.options(
        f"{api.url}/v1/scores",
        headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"},
        timeout=WITHIN,
    )
    assert asked.status_code == 405
    assert not any(name.lower().startswith("access-control") for name in asked.headers)
