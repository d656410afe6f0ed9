"""Large bodies hold up nobody else's request, and are taken or refused as small ones are."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from producer.api import engines, posting
from producer.api.aside import LARGE_BYTES
from producer.api.routes import scores
from producer.api.uploads import check_size
from shared.messages import JobMessage, PairMessage, decode
from tests.serving import Api, serving_api
from tests.working import WITHIN, Fleet

ROWS = 500
CAPTION = "c" * 200
PAIRS = [{"url": f"http://e.org/{row}", "caption": f"{row} {CAPTION}"} for row in range(ROWS)]
CALLS = [[pair["url"], pair["caption"]] for pair in PAIRS]


@pytest.fixture(scope="module")
def api_and_fleet(kafka, tmp_path_factory) -> Iterator[tuple[Api, Fleet]]:
    fleet = Fleet(kafka.bootstrap_servers, "api-large.", retry_delays=(1,))
    with serving_api(fleet.settings, tmp_path_factory.mktemp("api")) as api:
        yield api, fleet


def post_job(api: Api, pairs: list[Any], **headers: str) -> Any:
    return api.post("/v1/jobs", {"pairs": pairs}, headers=headers)


def post_scores(api: Api, pairs: list[Any]) -> Any:
    return api.post("/v1/scores", {"pairs": pairs, "timeout": 0})


def post_bigquery(api: Api, calls: list[Any]) -> Any:
    context = {"timeout": "0"}
    body = {"requestId": "1", "calls": calls, "userDefinedContext": context}
    return api.post("/v1/bigquery", body)


def post_snowflake(api: Api, rows: list[Any]) -> Any:
    headers = {"sf-external-function-query-batch-id": "1", "sf-custom-timeout": "0"}
    return api.post("/v1/snowflake", {"data": rows}, headers=headers)


NUMBERED = [[row, *call] for row, call in enumerate(CALLS)]
# Nobody scores what is waited for: there is no worker.
POSTS = [
    pytest.param(posting, lambda api: post_job(api, PAIRS), 202, id="job"),
    pytest.param(
        posting, lambda api: post_job(api, PAIRS, **{"Idempotency-Key": "held"}), 202, id="keyed"
    ),
    pytest.param(scores, lambda api: post_scores(api, PAIRS), 200, id="scores"),
    pytest.param(engines, lambda api: post_bigquery(api, CALLS), 503, id="bigquery"),
    pytest.param(engines, lambda api: post_snowflake(api, NUMBERED), 202, id="snowflake"),
]


@pytest.mark.parametrize(("module", "post", "status"), POSTS)
def test_a_large_body_holds_up_no_other_request(
    api_and_fleet, monkeypatch, module: Any, post: Callable[[Api], Any], status: int
):
    api, _ = api_and_fleet
    begun, go = threading.Event(), threading.Event()
    waited: list[bool] = []

    def held(url: str, caption: str, *more: Any) -> None:
        if CAPTION in caption and not waited:
            begun.set()
            waited.append(go.wait(WITHIN))
        check_size(url, caption, *more)

    monkeypatch.setattr(module, "check_size", held)
    with ThreadPoolExecutor(1) as threads:
        large = threads.submit(post, api)
        assert begun.wait(WITHIN)
        small = post_scores(api, [{"url": "http://e.org/small", "caption": "c"}])
        assert small.status_code == 200
        assert api.get("/v1/jobs").status_code == 200
        go.set()
        assert large.result().status_code == status
    # It was let go on, rather than that the others came when it had waited for long enough.
    assert waited == [True]


WRONG = [
    pytest.param(lambda api: post_job(api, [*PAIRS, {"url": "u"}]), 422, ROWS, id="job"),
    pytest.param(lambda api: post_scores(api, [*PAIRS, {"url": 3}]), 422, ROWS, id="scores"),
    pytest.param(lambda api: post_bigquery(api, [*CALLS, ["u"]]), 400, None, id="bigquery"),
    pytest.param(lambda api: post_snowflake(api, [*NUMBERED, [1]]), 422, ROWS, id="snowflake"),
]


@pytest.mark.parametrize(("post", "status", "row"), WRONG)
def test_what_is_wrong_far_into_a_large_body_is_said_with_its_row(
    api_and_fleet, post: Callable[[Api], Any], status: int, row: int | None
):
    api, _ = api_and_fleet
    reply = post(api)
    assert reply.status_code == status
    problem = reply.json()
    assert problem.get("row") == row
    assert str(ROWS) in problem.get("detail", problem.get("errorMessage"))


@pytest.mark.parametrize("keyed", [False, True])
def test_a_large_body_is_published_as_a_small_one_is(api_and_fleet, keyed):
    api, fleet = api_and_fleet
    assert len(json.dumps(PAIRS)) > LARGE_BYTES
    key = {"Idempotency-Key": "large"} if keyed else {}
    replies = [post_job(api, PAIRS, **key) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [202, 202]
    jobs = [reply.json()["job"] for reply in replies]
    assert (jobs[0] == jobs[1]) == keyed
    found = [decode(PairMessage, each.value()) for each in fleet.settled(fleet.topics.pairs)]
    rows = [each for each in found if isinstance(each, PairMessage) and each.job == jobs[0]]
    assert sorted((each.row, each.url, each.caption) for each in rows) == [
        (row, pair["url"], pair["caption"]) for row, pair in enumerate(PAIRS)
    ]
    if keyed:
        # As NDJSON: what a key stands for stays the same from one version to the next.
        lines = [json.dumps(pair, separators=(",", ":")) + "\n" for pair in PAIRS]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        said = [each for each in fleet.settled(fleet.topics.jobs) if each.key() == jobs[0].encode()]
        message = decode(JobMessage, said[-1].value())
        assert isinstance(message, JobMessage)
        assert message.source_sha256 == digest
