"""docs/operations.md names nothing that is not there, and its queries find what they say."""

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from pydantic import BaseModel

from deploy.local.broker import behaviour
from pairscore.settings import ENV_PREFIX
from shared.messages import JobMessage, JobState, ScoreMessage
from shared.results.postgres import prepare
from shared.results.spool import spool_path
from shared.settings import SERVICES, KafkaSettings
from shared.telemetry.metrics import CATALOGUE
from sink.csv.spool import Spool
from sink.intake import Batch, Scored
from tests.documents import DOCS, blocks, page
from tests.monitoring import rules
from tests.postgres_sinks import database

PAGE = "operations.md"
THEN = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
METRICS = {metric.name: metric for metric in CATALOGUE}
SERIES = re.compile(r"\b(pairscore_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)!?="([^"]*)"')


def test_every_metric_and_label_that_is_named_exists():
    named = SERIES.findall(page(PAGE))
    assert len({name for name, _ in named}) > 10
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for name, labels in named:
        if name in recorded:
            continue
        metric = METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
        known = {label.name: label.values for label in metric.labels}
        for label, value in LABEL.findall(labels):
            assert value in known[label] or not known[label], (name, label, value)


@pytest.mark.parametrize("name", ["operations.md", "architecture.md", "consuming.md", "api.md"])
def test_every_setting_that_is_named_exists(name):
    known = {variable for service in SERVICES for variable in _variables(service, ENV_PREFIX)}
    named = set(re.findall(r"\bPAIRSCORE_[A-Z0-9_]*[A-Z0-9]\b", page(name)))
    assert named <= known


def _variables(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _variables(field.annotation, f"{variable}__")


def test_brokers_are_told_what_those_of_deploy_local_are():
    told = {
        name: value
        for names, value in re.findall(
            r"^\| (`[a-z.`, ]+`) \| `(\d+)` \|", page(PAGE), re.MULTILINE
        )
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert len(told) >= 9
    ours = behaviour(3)
    assert {name: ours[name] for name in told if name in ours} == told


def test_the_properties_of_the_example_are_taken():
    (example,) = blocks(PAGE, "sh")
    script = f'{example}printf %s "$PAIRSCORE_KAFKA__PROPERTIES"'
    text = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    properties = KafkaSettings.model_validate({"properties": text}).properties
    assert properties["security.protocol"] == "SASL_SSL"
    assert properties["sasl.username"] == "pairscore"


def test_files_that_documents_name_exist():
    root = DOCS.parent
    written = [*DOCS.rglob("*.md"), *root.glob("*.md"), *root.glob("benchmarks/*.md")]
    named = {
        (path.name, file)
        for path in written
        for file in re.findall(r"\b(?:[a-z_]+/)+[a-z_]+\.py\b", path.read_text(encoding="utf-8"))
    }
    assert ("operations.md", "scripts/replay.py") in named
    assert {(page, file) for page, file in named if not (root / file).is_file()} == set()


def outcome(row: int) -> ScoreMessage:
    return ScoreMessage(
        job="JOB",
        row=row,
        url="https://images.example/a.jpg",
        caption="a cat",
        similarity=20.0,
        cosine=0.2,
        model="m",
        attempts=1,
        scored_at=THEN,
    )


def said(rows: int | None) -> JobMessage:
    return JobMessage(
        job="JOB",
        source="api",
        rows_published=6,
        rows=rows,
        state=JobState.OPEN if rows is None else JobState.CLOSED,
        created_at=THEN,
    )


@pytest.mark.parametrize("rows", [None, 6])
def test_the_query_for_the_spool_finds_the_rows_that_are_missing(tmp_path, rows):
    spool_path(tmp_path).parent.mkdir()
    scores = [Scored(0, row, outcome(row), outcome(row).encode()) for row in (0, 2, 5)]
    with Spool(tmp_path, "scores", lambda: THEN) as spool:
        spool.store(Batch(scores, [said(rows)], [], {("scores", 0): 6}))
    query = blocks(PAGE, "sql")[0]
    with closing(sqlite3.connect(f"{spool_path(tmp_path).as_uri()}?mode=ro", uri=True)) as reader:
        assert sorted(reader.execute(query)) == [(1,), (3,), (4,)]
        assert reader.execute("SELECT topic, partition, defect FROM rejected").fetchall() == []


@pytest.mark.parametrize("rows", [None, 6])
def test_the_query_for_postgres_finds_the_rows_that_are_missing(postgres_service, rows):
    with (
        database(postgres_service.url) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        prepare(connection)
        connection.execute(
            "INSERT INTO pairscore.jobs (job, source, header, rows_published, rows, created_at) "
            "VALUES ('JOB', 'api', '{}', 6, %s, now())",
            (rows,),
        )
        connection.execute(
            "INSERT INTO pairscore.scores (job, row, url, caption, columns, error, "
            "caption_truncated, model, attempts, scored_at) "
            "SELECT 'JOB', n, '', '', '{}', 'timeout', false, 'm', 1, now() "
            "FROM unnest(ARRAY[0, 2, 5]) AS n"
        )
        assert connection.execute(blocks(PAGE, "sql")[1].encode()).fetchall() == [(1,), (3,), (4,)]
