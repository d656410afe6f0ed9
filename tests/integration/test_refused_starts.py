"""Services that are given something bad say so, and nothing is lost when they start again."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.postgres_sinks import database
from tests.producing import place
from tests.refusing import run_all, services
from tests.whole_fleet import publish, running, wait_for_outcomes, write_rows

ROWS = 40
SINKS = frozenset({"sink csv", "sink postgres"})


def bad_settings(folder: Path) -> list[tuple[str, Mapping[str, str], frozenset[str]]]:
    """What must be in the line of a refusal, what brings it about, and whose it is."""
    everyone = SINKS | {"worker", "producer"}
    (folder / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
    return [
        (
            "setting PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS: ",
            {"PAIRSCORE_KAFKA__BOOTSTRAP_SERVERS": nobody},
            everyone,
        ),
        (
            "correct PAIRSCORE_KAFKA__TOPIC_PREFIX",
            {"PAIRSCORE_KAFKA__TOPIC_PREFIX": "nowhere."},
            everyone,
        ),
        ("setting PAIRSCORE_KAFKA__PARTITIONS: ", {"PAIRSCORE_KAFKA__PARTITIONS": "64"}, everyone),
        ("PAIRSCORE_KAFKA__PARTITION: ", {"PAIRSCORE_KAFKA__PARTITION": "3"}, everyone),
        (
            "PAIRSCORE_RESULTS",
            {"PAIRSCORE_RESULTS": str(folder / "file" / "results")},
            frozenset({"sink csv"}),
        ),
    ]


@pytest.fixture
def there(kafka, topic_prefix):
    return place(kafka.bootstrap_servers, topic_prefix)


def test_what_was_refused_loses_nothing(there, tmp_path, postgres_service):
    source, results = tmp_path / "rows.csv", tmp_path / "results"
    write_rows(source, ROWS)
    with database(postgres_service.url) as url:
        good = there.environment(
            PAIRSCORE_RESULTS=str(results),
            PAIRSCORE_POSTGRES_URL=url,
            PAIRSCORE_MODEL="demo",
            PAIRSCORE_TELEMETRY__PORT="0",
        )
        with running(tmp_path, lambda _: good):
            publish(source, "before", good)
            wait_for_outcomes(results, url, "before", source, ROWS)
        publish(source, "after", good)
        # Its folder is to come from the environment.
        commands = {**services(tmp_path), "sink csv": ["sink", "csv"]}
        for named, bad, whose in bad_settings(tmp_path):
            for ended in run_all({name: commands[name] for name in whose}, {**good, **bad}):
                assert named in ended.line
        with running(tmp_path, lambda _: good):
            for job in ("before", "after"):
                wait_for_outcomes(results, url, job, source, ROWS)
    assert len(there.records(there.topics.scores)) == 2 * ROWS
    assert there.rows_published() == 2 * ROWS
