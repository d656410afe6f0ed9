"""Scoring inside real Spark, on two executors' processes."""

import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.functions import pandas_udf

from pairscore import score_pairs
from pairscore.demo.dataset import make_dataset
from pairscore.demo.rows import HEADER
from pairscore.demo.server import serve
from pairscore.errors import InputError
from pairscore.pair import Score
from pairscore.settings import FetchSettings, Settings
from pairscore.spark import make_score_udf, score_dataframe, score_udf
from tests.image_server import ImageServer, image_server, picture

pytestmark = pytest.mark.skipif(
    shutil.which("java") is None and "CI" not in os.environ, reason="Spark needs Java 17"
)
EXECUTORS = 2
ROWS = 200
NEW = ["similarity", "cosine", "error", "error_detail"]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A cluster of its own on this machine: a JVM for each executor, one task at a time in each."""
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_WORKER_DIR", str(folder / "work"))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = SparkSession.builder.master(f"local-cluster[{EXECUTORS},1,1024]")
        for key, value in {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.local.dir": str(folder / "local"),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.sql.shuffle.partitions": "4",
            "spark.executor.memory": "600m",
            "spark.driver.memory": "600m",
        }.items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
        try:
            yield session
        finally:
            session.stop()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        model="demo",
        cache_dir=tmp_path_factory.mktemp("models"),
        fetch=FetchSettings(allow_networks=("127.0.0.0/8",), attempts=2, timeout=2, rate=10_000),
    )


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def rows_of(df: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict() for row in df.collect()]


def test_rows_have_the_outcomes_that_the_library_gives_them(spark, settings, tmp_path):
    with serve(tmp_path) as base:
        pairs = [
            (row.cells[1], row.cells[2])
            for row in make_dataset(tmp_path, rows=ROWS, base_url=base).rows
            if len(row.cells) == len(HEADER)
        ]
        expected = list(score_pairs(pairs, settings))
        df = spark.createDataFrame(
            [(i, *pair) for i, pair in enumerate(pairs)], "id long, url string, caption string"
        ).repartition(4)
        found = sorted(rows_of(score_dataframe(df, settings=settings)), key=lambda row: row["id"])
    assert [(row["id"], row["url"], row["caption"]) for row in found] == [
        (i, *pair) for i, pair in enumerate(pairs)
    ]
    scored = 0
    for row, outcome in zip(found, expected, strict=True):
        if isinstance(outcome, Score):
            assert row["similarity"] == pytest.approx(outcome.similarity, abs=1e-3)
            assert row["cosine"] == pytest.approx(outcome.cosine, abs=1e-4)
            assert (row["error"], row["error_detail"]) == (None, None)
            scored += 1
        else:
            assert (row["similarity"], row["cosine"]) == (None, None)
            assert row["error"] == outcome.reason.value
            assert row["error_detail"] == (outcome.detail or None)
    assert 100 < scored < len(found)


def test_each_executors_process_loads_the_model_once(spark, settings, server):
    urls = [server.add(f"/{n}.jpg", picture(n)) for n in range(24)]

    def who(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.Series]:
        from pairscore.spark.executor import _scorers, score_batches

        for frame in score_batches(batches, settings):
            assert frame["similarity"].notna().all()
            yield pd.Series([f"{os.getpid()} {id(_scorers[0][1])} {len(_scorers)}"] * len(frame))

    asked = pandas_udf(who, returnType="string")  # type: ignore[call-overload]
    df = spark.createDataFrame([(url, "a") for url in urls], "url string, caption string")
    seen = {
        tuple(row[0].split())
        for _ in range(2)
        for row in df.repartition(8).select(asked("url", "caption")).collect()
    }
    assert len({pid for pid, _, _ in seen}) == EXECUTORS
    assert len(seen) == EXECUTORS
    assert {count for _, _, count in seen} == {"1"}


def test_a_row_is_scored_once_whatever_is_done_with_its_outcome(spark, settings):
    df = spark.createDataFrame([("http://e.org/", "a")], "url string, caption string")
    scored = score_dataframe(df, settings=settings)
    asked = scored.where("error is null").where("similarity > 20").select("similarity", "cosine")
    plan = asked._jdf.queryExecution().executedPlan().toString()
    assert plan.count("ArrowEvalPython") == 1
    assert plan.count("pairscore(") == 1


def test_null_is_an_empty_text_and_what_is_missing_in_an_outcome_is_null(spark, settings, server):
    url = server.add("/a.jpg", picture(1))
    df = spark.createDataFrame(
        [(url, "a"), (None, "a"), (url, None), (url, " ")], "url string, caption string"
    ).coalesce(1)
    outcomes = rows_of(df.select(score_udf("url", "caption", settings=settings).alias("o")))
    first, *others = [row["o"].asDict() for row in outcomes]
    [expected] = score_pairs([(url, "a")], settings)
    assert isinstance(expected, Score)
    assert first["similarity"] == pytest.approx(expected.similarity, abs=1e-3)
    assert [row["error"] for row in others] == ["invalid_url", "empty_caption", "empty_caption"]
    assert all(row["similarity"] is None and row["cosine"] is None for row in others)


def test_text_that_is_not_utf_8_ends_no_query(spark, settings, server):
    url = server.add("/a.jpg", picture(1))
    df = spark.sql(f"SELECT '{url}' AS url, cast(unhex('E974E9') AS string) AS caption")
    [row] = score_dataframe(df, settings=settings).collect()
    assert row.error is None


def test_columns_of_the_same_name_are_kept(spark, settings):
    left = spark.createDataFrame([(1, "nowhere", "a")], "id int, url string, caption string")
    joined = left.join(spark.createDataFrame([(1, "x")], "id int, note string"), left.id == 1)
    scored = score_dataframe(joined, settings=settings)
    assert scored.columns == ["id", "url", "caption", "id", "note", *NEW]
    assert [row[7] for row in scored.collect()] == ["invalid_url"]


def test_it_is_a_function_of_sql(spark, settings, server):
    spark.udf.register("pairscore", make_score_udf(settings))
    url = server.add("/a.jpg", picture(1))
    [row] = spark.sql(
        f"SELECT o.similarity, o.error FROM (SELECT pairscore('{url}', 'a red circle') AS o)"
    ).collect()
    assert row.error is None
    assert isinstance(row.similarity, float)


def test_columns_of_any_name_are_found_and_kept(spark, settings):
    df = spark.createDataFrame(
        [(1, "nowhere", "a", "x")],
        "`a.b` int, `image.url` string, `cap``tion` string, Error string",
    )
    scored = score_dataframe(
        df, url="image.url", caption="cap`tion", settings=settings, overwrite=True
    )
    assert scored.columns == ["a.b", "image.url", "cap`tion", *NEW]
    assert [tuple(row) for row in scored.collect()] == [
        (1, "nowhere", "a", None, None, "invalid_url", "no scheme: only http and https are fetched")
    ]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (
            "url string, text string",
            "'caption' is no column of the DataFrame, which has 'url', 'text'",
        ),
        ("url int, caption string", "column 'url' is of int, and has to be of strings"),
        (
            "url string, caption string, Similarity double, error string",
            (
                "the DataFrame has 'Similarity', 'error' already; rename or drop what it has, or "
                "leave it out with overwrite=True"
            ),
        ),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_runs(spark, settings, schema, complaint):
    df = spark.createDataFrame([], schema)
    with pytest.raises(InputError) as raised:
        score_dataframe(df, settings=settings)
    assert str(raised.value) == complaint


def test_a_dataframe_without_rows_has_the_columns(spark, settings):
    df = spark.createDataFrame([], "url string, caption string")
    scored = score_dataframe(df, settings=settings)
    assert scored.columns == ["url", "caption", *NEW]
    assert scored.collect() == []


def test_settings_are_the_drivers_unless_given(spark, settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAIRSCORE_MODEL", "demo")
    monkeypatch.setenv("PAIRSCORE_CACHE_DIR", str(settings.cache_dir))
    df = spark.createDataFrame([("http://127.0.0.1/", "a")], "url string, caption string")
    [row] = score_dataframe(df).collect()
    assert row.error == "blocked_address"
