"""The Python of docs/api.md, run as it stands there; and its tables, against the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import Kafka
from pairscore.pair import Failure, Outcome, Pair, Reason
from producer.api.problems import Kind
from shared.settings import ApiOptions
from tests.documents import DOCS, blocks, page
from tests.serving import serving_api
from tests.sinking import Place
from tests.working import SCORE, Fleet, Told, working

PAGE = "api.md"
ROOT = DOCS.parent
WITHIN = 60.0


def gone_where_bad(pair: Pair) -> Outcome:
    return Failure(Reason.HTTP_ERROR, "404", attempts=1) if "bad" in pair.url else SCORE


def test_the_example_scores_in_line_and_as_a_job(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    (code,) = blocks(PAGE, "python")
    script = tmp_path / "example.py"
    script.write_text(code)
    source = tmp_path / "in.csv"
    source.write_text("url,caption\nhttp://e.org/1.jpg,a\nhttp://e.org/bad.jpg,b\n")
    fleet = Fleet(kafka.bootstrap_servers, topic_prefix)
    results = tmp_path / "results"
    results.mkdir()
    with (
        Place(fleet.settings, results).sink(),
        working(fleet, Told(gone_where_bad)),
        serving_api(fleet.settings, results) as api,
    ):
        done = subprocess.run(
            [sys.executable, str(script), api.url, "ps_any", str(source)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    first, *rows, last = done.stdout.splitlines()
    assert (first, rows) == ("25.0", ["0 25.0", "1 http_error: 404"])
    assert last == "scored.csv 1 scored"
    written = (tmp_path / "scored.csv").read_text().splitlines()
    assert written[0] == "url,caption,similarity,error"
    assert len(written) == 3


def test_every_problem_is_listed_with_its_status() -> None:
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", page(PAGE), re.MULTILINE))
    assert listed == {kind.slug: str(kind.status) for kind in Kind}


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("connections", 1),
        ("head_seconds", 1),
        ("idle_seconds", 1),
        ("body_rate", 1),
        ("upload_bytes", 1024**3),
        ("upload_rows", 1),
        ("json_bytes", 1024**2),
        ("uploads", 1),
    ],
)
def test_limits_are_those_of_the_settings(name: str, unit: int) -> None:
    found = re.search(rf"^\| `{name.upper()}` \| ([\d,]+)", page(PAGE), re.MULTILINE)
    assert found is not None
    assert int(found[1].replace(",", "")) * unit == ApiOptions.model_fields[name].default
