"""One pair has one outcome, whoever asks: command, fleet, API, BigQuery, Snowflake or Spark."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests

from pairscore.demo.dataset import make_dataset
from pairscore.demo.rows import HEADER
from pairscore.demo.server import serve
from pairscore.scorer import Scorer
from pairscore.settings import FetchSettings, Settings
from tests import sinking
from tests.fetching import wait_until
from tests.serving import Api, serving_api
from tests.working import Fleet, working

ROWS = 200
WITHIN = 120.0
Found: TypeAlias = tuple[float | None, str | None, str | None]
"""Similarity, error, its detail."""

FETCH: Mapping[str, Any] = {
    "allow_networks": ("127.0.0.0/8",),
    "attempts": 2,
    "timeout": 2.0,
    "rate": 10_000,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Iterator[list[tuple[str, str]]]:
    """Those of the demo, good and bad, while its server runs."""
    folder = tmp_path_factory.mktemp("demo")
    with serve(folder) as base:
        rows = make_dataset(folder, rows=ROWS, base_url=base).rows
        yield [(row.cells[1], row.cells[2]) for row in rows if len(row.cells) == len(HEADER)]


@pytest.fixture(scope="module")
def by_command(pairs, cache, tmp_path_factory) -> list[Found]:
    """What `pairscore score` says."""
    folder = tmp_path_factory.mktemp("command")
    source = folder / "pairs.csv"
    source.write_text(table(pairs))
    command = [sys.executable, "-m", "pairscore", "score", str(source), "--model", "demo"]
    environment = {
        **os.environ,
        "PAIRSCORE_CACHE_DIR": str(cache),
        "PAIRSCORE_FETCH__ALLOW_NETWORKS": "127.0.0.0/8",
        "PAIRSCORE_FETCH__ATTEMPTS": "2",
        "PAIRSCORE_FETCH__TIMEOUT": "2",
    }
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=WITHIN)
    return from_table((folder / "pairs_scored.csv").read_text())


@pytest.fixture(scope="module")
def fleet(kafka, pairs, cache, tmp_path_factory) -> Iterator[tuple[sinking.Place, Api]]:
    """A worker with the demo model, a CSV sink, and the API."""
    place = sinking.place(
        kafka.bootstrap_servers, "conformance.", tmp_path_factory.mktemp("fleet"), retry_delays=(1,)
    )
    place.results.mkdir(exist_ok=True)
    on = Fleet(kafka.bootstrap_servers, "conformance.", retry_delays=(1,))
    own = Settings(model="demo", cache_dir=cache, fetch=FetchSettings(**{**FETCH, "attempts": 1}))
    with (
        Scorer(own) as scorer,
        working(on, scorer, fetch=dict(FETCH)),
        place.sink(),
        serving_api(place.settings, place.results) as api,
    ):
        yield place, api


def table(pairs: Sequence[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("url", "caption"), *pairs])
    return text.getvalue()


def from_table(text: str) -> list[Found]:
    found: list[Found] = []
    for row in csv.DictReader(io.StringIO(text)):
        error, _, detail = row["error"].partition(": ")
        similarity = float(row["similarity"]) if row["similarity"] else None
        found.append((similarity, error or None, detail or None))
    return found


def from_fields(outcomes: Sequence[Mapping[str, Any]]) -> list[Found]:
    return [
        (each.get("similarity"), each.get("error"), each.get("error_detail")) for each in outcomes
    ]


def same(found: Sequence[Found], expected: Sequence[Found]) -> None:
    """The same numbers and errors, row by row."""
    assert len(found) == len(expected)
    for row, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert mine[1:] == theirs[1:], row
        assert mine[0] == (None if theirs[0] is None else pytest.approx(theirs[0], abs=1e-3)), row
    assert 100 < sum(similarity is not None for similarity, *_ in found) < len(found)


def test_fleet(pairs, by_command, fleet, tmp_path):
    place, _ = fleet
    source = tmp_path / "pairs.csv"
    source.write_text(table(pairs))
    command = [sys.executable, "-m", "producer", "csv", str(source), "--job", "file", "--wait"]
    subprocess.run(
        command, env=place.environment(), check=True, capture_output=True, timeout=WITHIN
    )
    same(from_table((place.results / "file" / "pairs_scored.csv").read_text()), by_command)


def test_api_job(pairs, by_command, fleet):
    _, api = fleet
    lines = "".join(json.dumps({"url": url, "caption": text}) + "\n" for url, text in pairs)
    job = requests.post(
        f"{api.url}/v1/jobs",
        data=lines.encode(),
        headers={"Content-Type": "application/x-ndjson"},
        timeout=WITHIN,
    ).json()["job"]
    wait_until(lambda: api.get(f"/v1/jobs/{job}").json()["state"] == "complete", within=WITHIN)
    same(from_fields(api.get(f"/v1/jobs/{job}/scores").json()["outcomes"]), by_command)


def test_api_in_line(pairs, by_command, fleet):
    _, api = fleet
    body = {"pairs": [{"url": url, "caption": text} for url, text in pairs], "timeout": 60}
    reply = api.post("/v1/scores", body).json()
    assert "pending" not in reply
    same(from_fields(reply["outcomes"]), by_command)


def test_bigquery(pairs, by_command, fleet):
    _, api = fleet
    body = {"requestId": "r", "calls": [list(pair) for pair in pairs]}
    same(from_fields(api.post("/v1/bigquery", body).json()["replies"]), by_command)


def test_snowflake(pairs, by_command, fleet):
    _, api = fleet
    headers = {"sf-external-function-query-batch-id": "b"}
    body = {"data": [[row, *pair] for row, pair in enumerate(pairs)]}
    reply = api.post("/v1/snowflake", body, headers=headers)
    while reply.status_code == 202:
        reply = api.get("/v1/snowflake", headers=headers)
    data = reply.json()["data"]
    assert [row for row, _ in data] == list(range(len(pairs)))
    same(from_fields([outcome for _, outcome in data]), by_command)


@pytest.mark.skipif(
    shutil.which("java") is None and "CI" not in os.environ, reason="Spark needs Java 17"
)
def test_spark(pairs, by_command, cache):
    from pairscore.spark import score_dataframe

    settings = Settings(model="demo", cache_dir=cache, fetch=FetchSettings(**FETCH))
    with spark_session() as session:
        df = session.createDataFrame(
            [(row, *pair) for row, pair in enumerate(pairs)], "id long, url string, caption string"
        )
        scored = score_dataframe(df.repartition(2), settings=settings)
        rows = sorted((row.asDict() for row in scored.collect()), key=lambda row: row["id"])
    same(from_fields(rows), by_command)


@contextmanager
def spark_session() -> Iterator[Any]:
    """In this process: two executors are test_spark's to show."""
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        session = builder.config("spark.driver.memory", "600m").getOrCreate()
        try:
            yield session
        finally:
            session.stop()
