"""What the producer publishes of a file comes out of the sink as one machine scores it."""

import gzip
import json
from datetime import UTC, datetime

import pytest

from pairscore.csv_file import prepare, run
from pairscore.csv_file.layout import malformation
from pairscore.pair import Pair
from shared.messages import PairMessage, ScoreMessage
from tests import producing, sinking
from tests.fetching import wait_until
from tests.sinking import DEADLINE, MODEL, ODD, outcome_of


def scored(pair: PairMessage) -> ScoreMessage:
    """What a worker makes of a row."""
    assert pair.width is not None
    malformed = malformation(len(pair.columns), pair.width)
    outcome = malformed or outcome_of(Pair(pair.url, pair.caption))
    return ScoreMessage.of(pair, outcome, model=MODEL, scored_at=datetime.now(UTC))


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("challenge_set.csv", ODD, []),
        ("challenge_set.csv.gz", gzip.compress(ODD), ["--details"]),
        ("export.tsv", b'caption\turl\tid\na "b"\thttp://a/1\t1\r\nc\thttp://a/bad\t"2"\n', []),
    ],
)
def test_a_file_comes_back_as_one_machine_scores_it(
    kafka, topic_prefix, tmp_path, name, data, options
):
    source = tmp_path / name
    source.write_bytes(data)
    published = producing.place(kafka.bootstrap_servers, topic_prefix)
    where = sinking.place(kafka.bootstrap_servers, topic_prefix, tmp_path)
    ended = published.run(source, "--job", "sunday", *options)
    assert ended.returncode == 0, ended.stderr
    where.publish([scored(pair) for pair in published.pairs()])
    with where.sink():
        wait_until(lambda: where.complete("sunday"), within=DEADLINE)
        status = json.loads(where.run("status", "sunday", "--json").stdout)
    summary = run(
        prepare(source, details=bool(options)),
        lambda pairs: map(outcome_of, pairs),
        fingerprint=MODEL,
    )
    result = where.results / "sunday" / summary.output.name
    assert result.read_bytes() == summary.output.read_bytes()
    assert status["result"] == str(result)
    assert (status["state"], status["rows"], status["scored"]) == (
        "complete",
        summary.rows,
        summary.scored,
    )
    assert status["failed"] == {reason.value: rows for reason, rows in summary.failed.items()}
    manifest = where.manifest("sunday")
    assert manifest["input_sha256"] == summary.input_sha256
    assert manifest["output_sha256"] == summary.output_sha256
    assert manifest["source"] == name
