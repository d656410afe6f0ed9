"""BigQuery's and Snowflake's protocols over HTTP, as the engines speak them, with real Kafka."""

import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from pairscore import Scorer
from pairscore.pair import Failure, Reason, Score
from pairscore.settings import FetchSettings, Settings
from producer.api.routes.bigquery import BigQueryRequest
from producer.api.routes.snowflake import SnowflakeRequest
from tests.api_clients import a_key, write_keys
from tests.fetching import wait_until
from tests.image_server import image_server, picture
from tests.serving import Api, serving_api
from tests.sinking import Place
from tests.working import SCORE, WITHIN, Fleet, Told, url_of, working

AT_ONCE = {"timeout": "0"}
OUTCOME = {"similarity": 25.0, "cosine": 0.25, "error": None, "error_detail": None}
ANOTHER_URL = "https://images.example/1.jpg"


@pytest.fixture
def fleet(kafka, topic_prefix):
    return Fleet(kafka.bootstrap_servers, topic_prefix)


@pytest.fixture
def api(fleet, tmp_path):
    with serving_api(fleet.settings, tmp_path) as api:
        yield api


@pytest.fixture(scope="module")
def unread(kafka, tmp_path_factory):
    """Of tests that publish nothing, which is seen when each has ended."""
    fleet = Fleet(kafka.bootstrap_servers, "sql-engines.")
    with serving_api(fleet.settings, tmp_path_factory.mktemp("unread")) as api:
        yield api, fleet


@pytest.fixture
def refusing(unread):
    api, fleet = unread
    yield api
    assert published(fleet) == []


def calls_of(rows) -> list[list[str]]:
    return [[url_of(row), "a cat"] for row in rows]


def bigquery(api: Api, calls, request_id="r1", context=None, key=None, **more) -> requests.Response:
    body = {
        "requestId": request_id,
        "caller": "//bigquery.googleapis.com/projects/p/jobs/p:US.bquxjob_1",
        "sessionUser": "ada@example.com",
        "userDefinedContext": context or {},
        "calls": calls,
        **more,
    }
    return api.post("/v1/bigquery", body, headers=authorization(key))


def sent(batch_id, key=None, **custom: str) -> dict[str, str]:
    """The headers of a request of Snowflake's."""
    return {
        "sf-external-function-format": "json",
        "sf-external-function-format-version": "1.0",
        "sf-external-function-query-batch-id": batch_id,
        **{f"sf-custom-{name}": value for name, value in custom.items()},
        **authorization(key),
    }


def authorization(key) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def snowflake(api: Api, data, batch_id="b1", key=None, **custom) -> requests.Response:
    return api.post("/v1/snowflake", {"data": data}, headers=sent(batch_id, key, **custom))


def poll(api: Api, batch_id="b1", key=None, **custom) -> requests.Response:
    return api.get("/v1/snowflake", headers=sent(batch_id, key, **custom))


def by_row(pair) -> Score:
    """An outcome by which its row is known."""
    row = int(pair.url.rpartition("/")[2].removesuffix(".jpg"))
    return Score(row + 0.5, 0.5, caption_truncated=False, image_sha256="0" * 64, attempts=1)


def published(fleet) -> list[bytes]:
    return [
        message.value()
        for topic in (fleet.topics.pairs, fleet.topics.interactive)
        for message in fleet.settled(topic)
    ]


def stored(where, name, rows) -> bool:
    job = where.status.get(name)
    return job is not None and job.done == rows


def names_of(api, **options) -> list[str]:
    return [job["job"] for job in api.get("/v1/jobs", **options).json()["jobs"]]


def test_bigquery_gets_a_reply_for_each_call_in_order(fleet, api):
    rows = list(reversed(range(300)))
    with working(fleet, Told(by_row)):
        answer = bigquery(api, calls_of(rows))
    assert answer.status_code == 200
    assert [reply["similarity"] for reply in answer.json()["replies"]] == [r + 0.5 for r in rows]


def test_snowflake_gets_an_outcome_for_each_row_with_its_number(fleet, api):
    numbers = [5, 3, 10**12, 0]
    data = [[number, *call] for number, call in zip(numbers, calls_of(range(4)), strict=True)]
    with working(fleet, Told(by_row)):
        answer = snowflake(api, data)
    assert answer.status_code == 200
    rows = answer.json()["data"]
    assert [number for number, _ in rows] == numbers
    assert [outcome["similarity"] for _, outcome in rows] == [0.5, 1.5, 2.5, 3.5]


def test_failures_and_nulls_are_outcomes_as_the_scorer_has_them(fleet, api, tmp_path):
    settings = Settings(
        model="demo",
        cache_dir=tmp_path / "models",
        fetch=FetchSettings(allow_networks=("127.0.0.0/8",), attempts=1, rate=10_000),
    )
    with image_server() as server, Scorer(settings) as scorer, working(fleet, scorer):
        there = server.add("/1.jpg", picture(1))
        cells: list[list[str | None]] = [
            [there, "a red circle"],
            [None, "a red circle"],
            [there, None],
            [None, None],
            ["ftp://e.org/1.jpg", "a"],
            [server.url("/gone.jpg"), "a"],
        ]
        replies = bigquery(api, cells).json()["replies"]
        rows = snowflake(api, [[row, *cell] for row, cell in enumerate(cells)]).json()["data"]
    assert [reply["error"] for reply in replies] == [
        None,
        "invalid_url",
        "empty_caption",
        "invalid_url",
        "invalid_url",
        "http_error",
    ]
    assert replies[5]["error_detail"] == "404"
    assert isinstance(replies[0]["similarity"], float)
    assert -1 <= replies[0]["cosine"] <= 1
    for reply in replies:
        assert set(reply) == {"similarity", "cosine", "error", "error_detail"}
        assert (reply["similarity"] is None) == (reply["error"] is not None)
    assert [outcome["error"] for _, outcome in rows] == [reply["error"] for reply in replies]
    assert rows[0][1]["similarity"] == pytest.approx(replies[0]["similarity"], abs=1e-3)


WRONG_CELLS = (
    ([17, "a"], "url: Input should be a valid string"),
    ([ANOTHER_URL, 17], "caption: Input should be a valid string"),
    ([ANOTHER_URL, True], "caption: Input should be a valid string"),
    ([{"url": ANOTHER_URL}, "a"], "url: Input should be a valid string"),
    ([ANOTHER_URL], "caption: Field required"),
    ([ANOTHER_URL, "a", "b"], "should have at most"),
    (ANOTHER_URL, "should be a valid"),
)


@pytest.mark.parametrize(("cells", "said"), WRONG_CELLS)
def test_what_is_no_text_is_refused_and_never_scored(refusing, cells, said):
    answer = bigquery(refusing, [*calls_of(range(3)), cells])
    assert answer.status_code == 400
    message = answer.json()["errorMessage"]
    assert message.startswith("call 3: ")
    assert said in message
    row = [3, *cells] if isinstance(cells, list) else cells
    data = [[number, *call] for number, call in enumerate(calls_of(range(3)))]
    answer = snowflake(refusing, [*data, row])
    assert answer.status_code == 422
    assert answer.json()["row"] == 3
    assert answer.json()["detail"].startswith("row 3: ")
    assert said in answer.json()["detail"]


def test_requests_of_another_shape_are_refused_in_words(refusing):
    def told(**changed):
        body = {"requestId": "r1", "calls": calls_of(range(1))} | changed
        answer = refusing.post("/v1/bigquery", body)
        assert answer.status_code == 400
        return answer.json()["errorMessage"]

    assert told(requestId=None) == "requestId: Input should be a valid string"
    assert told(calls="a") == "calls: Input should be a valid array"
    long = [*calls_of(range(1)), [ANOTHER_URL, "a" * 4_200_000]]
    assert told(calls=long).startswith("call 1: it makes a message of")
    for timeout in ("soon", "-1", "nan", "inf"):
        assert told(userDefinedContext={"timeout": timeout}).endswith(
            f"{timeout!r} is no number of seconds"
        )
    answer = requests.post(f"{refusing.url}/v1/bigquery", b'{"requestId"', timeout=WITHIN)
    assert answer.status_code == 400
    assert answer.json()["errorMessage"].startswith("the body is no JSON")
    for number in ("0", 1.5, True, None):
        answer = snowflake(refusing, [[number, *calls_of(range(1))[0]]])
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("row 0: row number: ")
    assert refusing.post("/v1/snowflake", {"data": []}).status_code == 422  # without an id
    other = sent("b1") | {"sf-external-function-format-version": "2.0"}
    assert refusing.post("/v1/snowflake", {"data": []}, headers=other).status_code == 422


def test_empty_batches_are_answered_with_nothing(refusing):
    assert bigquery(refusing, []).json() == {"replies": []}
    assert snowflake(refusing, []).json() == {"data": []}


def test_too_long_batches_say_what_to_set(refusing):
    calls = [["", ""]] * 10_001
    answer = bigquery(refusing, calls)
    assert answer.status_code == 413
    assert "set max_batching_rows" in answer.json()["errorMessage"]
    answer = snowflake(refusing, [[row, *call] for row, call in enumerate(calls)])
    assert answer.status_code == 413
    assert "set MAX_BATCH_ROWS" in answer.json()["detail"]


def test_the_longest_batch_is_scored(fleet, api):
    rows = range(10_000)
    scorer = Told(by_row)
    with working(fleet, scorer):
        answer = bigquery(api, calls_of(rows))
        if answer.status_code == 503:  # a slow machine may need a second try, as engines make
            answer = bigquery(api, calls_of(rows))
    assert [reply["similarity"] for reply in answer.json()["replies"]] == [r + 0.5 for r in rows]
    assert scorer.rows() == list(rows)


def test_bigquery_is_asked_to_come_again_and_then_goes_on(fleet, api):
    scorer = Told(lambda _: None)
    with working(fleet, scorer):
        first = bigquery(api, calls_of(range(3)), context={"timeout": "0.2"})
        assert first.status_code == 503
        assert int(first.headers["Retry-After"]) > 0
        assert "not all of 3 pairs are scored yet" in first.json()["errorMessage"]
        wait_until(lambda: len(scorer.kept) == 3, within=WITHIN)
        scorer.finish(range(2))
        assert bigquery(api, calls_of(range(3)), context=AT_ONCE).status_code == 503
        scorer.finish(range(2, 3))
        answer = bigquery(api, calls_of(range(3)))
        assert answer.json() == {"replies": [OUTCOME] * 3}
        # An answer that was lost on its way: it is given once more.
        assert bigquery(api, calls_of(range(3)), context=AT_ONCE).json() == answer.json()
    assert scorer.rows() == [0, 1, 2]


def test_snowflake_polls_until_all_rows_have_their_outcomes(fleet, api):
    scorer = Told(lambda _: None)
    data = [[number, *call] for number, call in zip((7, 9), calls_of(range(2)), strict=True)]
    with working(fleet, scorer):
        first = snowflake(api, data, timeout="0.2")
        assert (first.status_code, first.json()) == (202, {})
        wait_until(lambda: len(scorer.kept) == 2, within=WITHIN)
        scorer.finish(range(1))
        again = poll(api, timeout="0")
        assert (again.status_code, again.json()) == (202, {})
        scorer.finish(range(1, 2))
        answer = poll(api)
        assert answer.status_code == 200
        assert answer.json() == {"data": [[7, OUTCOME], [9, OUTCOME]]}
        assert snowflake(api, data, timeout="0").json() == answer.json()
    assert scorer.rows() == [0, 1]


def test_batch_that_is_sent_twice_at_a_time_is_scored_once(fleet, api):
    scorer = Told(lambda _: None)
    with working(fleet, scorer), ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(bigquery, api, calls_of(range(50))) for _ in range(4)]
        wait_until(lambda: len(scorer.kept) == 50, within=WITHIN)
        scorer.finish(range(50))
        answers = [each.result(WITHIN) for each in sending]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.json() == {"replies": [OUTCOME] * 50} for answer in answers)
    assert scorer.rows() == list(range(50))
    assert len(names_of(api)) == 1


def test_other_rows_under_the_same_id_are_another_batch(fleet, api):
    with working(fleet, Told(by_row)):
        first = bigquery(api, calls_of([1, 2])).json()["replies"]
        second = bigquery(api, calls_of([2, 1])).json()["replies"]
        elsewhere = bigquery(api, calls_of([1, 2]), caller="another query").json()["replies"]
        data = [[number, *call] for number, call in enumerate(calls_of([3, 4]))]
        assert snowflake(api, data).status_code == 200
        assert snowflake(api, data[:1]).json()["data"][0][1]["similarity"] == 3.5
        # Nobody can say which of them is meant.
        assert poll(api).status_code == 409
    assert [reply["similarity"] for reply in first] == [1.5, 2.5]
    assert [reply["similarity"] for reply in second] == [2.5, 1.5]
    assert elsewhere == first
    assert len(names_of(api)) == 5


def test_batches_go_on_in_another_process_from_what_is_stored(fleet, tmp_path):
    where = Place(fleet.settings, tmp_path / "results")
    where.results.mkdir()
    scorer = Told(lambda _: None)
    data = [[number, *call] for number, call in enumerate(calls_of(range(3, 5)))]
    odd = [[number + 1, *call] for number, call in enumerate(calls_of(range(5, 7)))]
    with ExitStack() as stack:
        stack.enter_context(working(fleet, scorer))
        with serving_api(fleet.settings, where.results) as api:
            assert bigquery(api, calls_of(range(3)), context=AT_ONCE).status_code == 503
            assert snowflake(api, data, timeout="0").status_code == 202
            assert snowflake(api, odd, "b2", timeout="0").status_code == 202
            names = names_of(api)
        assert len(names) == 3
        api = stack.enter_context(serving_api(fleet.settings, where.results))
        # Nothing is stored yet, and nothing is published anew.
        assert bigquery(api, calls_of(range(3)), context=AT_ONCE).status_code == 503
        assert poll(api, timeout="0").status_code == 202
        wait_until(lambda: len(scorer.kept) == 7, within=WITHIN)
        scorer.finish(range(7))
        stack.enter_context(where.sink())
        wait_until(lambda: sum(where.status[n].done for n in where.status) == 7, within=60)
        answer = bigquery(api, calls_of(range(3)))
        assert answer.json() == {"replies": [OUTCOME] * 3}
        assert poll(api).json() == {"data": [[0, OUTCOME], [1, OUTCOME]]}
        # Its numbers are in no message: only who sends them again can have them.
        assert poll(api, "b2").status_code == 409
        assert snowflake(api, odd, "b2").json() == {"data": [[1, OUTCOME], [2, OUTCOME]]}
        assert names_of(api) == names
    assert scorer.rows() == list(range(7))


def test_clients_cannot_see_the_batches_of_others(fleet, tmp_path):
    (acme, entry), (other, another) = a_key("acme"), a_key("other")
    write_keys(tmp_path / "keys.json", entry, another)
    data = [[number, *call] for number, call in enumerate(calls_of(range(2)))]
    scorer = Told()
    with (
        working(fleet, scorer),
        serving_api(fleet.settings, tmp_path, api={"keys": str(tmp_path / "keys.json")}) as api,
    ):
        assert snowflake(api, data, key=acme).status_code == 200
        assert poll(api, key=acme).status_code == 200
        assert poll(api, key=other).status_code == 404
        assert poll(api).status_code == 401
        assert bigquery(api, calls_of(range(2)), key=acme).status_code == 200
        assert scorer.rows() == [0, 0, 1, 1]
        # The same of another client is scored for that one.
        assert bigquery(api, calls_of(range(2)), key=other).status_code == 200
        assert scorer.rows() == [0, 0, 0, 1, 1, 1]
        refused = bigquery(api, calls_of(range(2)))
        assert refused.status_code == 401
        assert refused.json() == {"errorMessage": "send a key as `Authorization: Bearer ps_...`"}
        assert len(names_of(api, headers=authorization(acme))) == 2


def test_quotas_are_charged_once_a_batch(fleet, tmp_path):
    key, entry = a_key("acme", rows_per_day=4)
    write_keys(tmp_path / "keys.json", entry)
    scorer = Told(lambda _: None)
    with (
        working(fleet, scorer),
        serving_api(fleet.settings, tmp_path, api={"keys": str(tmp_path / "keys.json")}) as api,
    ):
        for _ in range(5):
            late = bigquery(api, calls_of(range(3)), context=AT_ONCE, key=key)
            assert late.status_code == 503
        wait_until(lambda: len(scorer.kept) == 3, within=WITHIN)
        scorer.finish(range(3))
        assert bigquery(api, calls_of(range(3)), key=key).status_code == 200
        refused = bigquery(api, calls_of(range(3, 5)), "r2", key=key)
        assert refused.status_code == 429
        assert "rows" in refused.json()["errorMessage"]
        assert int(refused.headers["Retry-After"]) > 0
        # What was refused costs nothing, and may be sent again.
        late = bigquery(api, calls_of(range(3, 4)), "r3", context=AT_ONCE, key=key)
        assert late.status_code == 503
        wait_until(lambda: len(scorer.kept) == 4, within=WITHIN)
        scorer.finish(range(3, 4))
        assert bigquery(api, calls_of(range(3, 4)), "r3", key=key).status_code == 200
    assert scorer.rows() == [0, 1, 2, 3]


def test_snowflake_may_compress(fleet, api):
    body = json.dumps({"data": [[0, *calls_of(range(1))[0]]]}).encode()

    def compressed(data, encoding, batch_id):
        headers = sent(batch_id) | {"Content-Encoding": encoding}
        return requests.post(f"{api.url}/v1/snowflake", data, headers=headers, timeout=WITHIN)

    with working(fleet, Told()):
        for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
            assert compressed(data, encoding, encoding).json() == {"data": [[0, OUTCOME]]}
    assert compressed(gzip.compress(body)[:-9], "gzip", "short").status_code == 400
    assert compressed(body, "gzip", "plain").status_code == 400
    assert compressed(body, "br", "other").status_code == 415
    bomb = gzip.compress(bytes(17 * 1024**2))
    assert compressed(bomb, "gzip", "bomb").status_code == 413
    assert len(published(fleet)) == 2


def test_outcomes_that_are_tried_again_later_are_waited_for(kafka, topic_prefix, tmp_path):
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix, retry_delays=(1,))
    passing = Failure(Reason.HTTP_ERROR, "503", attempts=1, retryable=True)
    tried: list[str] = []

    def answer(pair):
        tried.append(pair.url)
        return passing if tried.count(pair.url) == 1 else SCORE

    with serving_api(fleet.settings, tmp_path) as api, working(fleet, Told(answer)):
        assert bigquery(api, calls_of(range(2))).json() == {"replies": [OUTCOME] * 2}


def test_the_document_tells_both_protocols(api):
    document = api.get("/v1/openapi.json").json()
    paths, schemas = document["paths"], document["components"]["schemas"]

    def example_of(operation: Any) -> Any:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return schemas[schema["$ref"].rpartition("/")[2]]["example"]

    post = paths["/v1/bigquery"]["post"]
    example = example_of(post)
    assert len(BigQueryRequest.model_validate_json(json.dumps(example)).calls) == 2
    assert {"200", "400", "401", "413", "429", "503"} <= set(post["responses"])
    post, get = (paths["/v1/snowflake"][method] for method in ("post", "get"))
    example = example_of(post)
    assert len(SnowflakeRequest.model_validate_json(json.dumps(example)).data) == 2
    for each in (post, get):
        assert {"200", "202", "401", "429", "503"} <= set(each["responses"])
        names = {parameter["name"] for parameter in each["parameters"]}
        assert "sf-external-function-query-batch-id" in names
