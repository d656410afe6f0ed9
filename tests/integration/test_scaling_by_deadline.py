"""`pairscore_required_workers`, as Prometheus' own tool works it out from curves of real runs.

tests/lag_curves has what a sink and workers said every 5 s while 6,000 rows were scored, 40 a
second by each worker: `too_slow.csv` by one, `scaled.csv` by one that others joined when two were
required.
"""

import csv
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.monitoring import FOLDER, program
from tests.services import had

CURVES = Path(__file__).parents[1] / "lag_curves"
STEP = 5
RATE = 40.0
LEAST_SECONDS = 60
ENOUGH_SECONDS = 30.0
RULES = FOLDER / "rules" / "scaling.yml"


@dataclass(frozen=True)
class Curve:
    """What was said, a row of numbers every 5 s; None where nothing was."""

    rows: Sequence[Mapping[str, float | None]]
    deadline: int

    @classmethod
    def of(cls, name: str) -> "Curve":
        with (CURVES / f"{name}.csv").open(newline="") as file:
            rows = [
                {key: float(cell) if cell else None for key, cell in row.items()}
                for row in csv.DictReader(file)
            ]
        return cls(rows, int(rows[0]["seconds_to_deadline"] or 0))

    @property
    def workers(self) -> int:
        return sum(name.startswith("busy_rows") for name in self.rows[0])

    def busy(self, row: int) -> float:
        """For how many seconds workers had enough to do until then, all together."""
        found = (self.rows[row][f"busy_seconds_{worker}"] for worker in range(self.workers))
        return sum(seconds for seconds in found if seconds is not None)

    def required(self, row: int) -> float:
        """As documented: rows left / (pairs/s of one worker x seconds to the deadline)."""
        left, seconds = self.rows[row]["rows_left"], self.rows[row]["seconds_to_deadline"]
        assert left is not None
        assert seconds is not None
        return left / (RATE * max(seconds, LEAST_SECONDS))

    def known(self) -> Iterator[int]:
        """The rows where there is something left, and the rate is known for sure."""
        for row, said in enumerate(self.rows):
            if said["rows_left"] is not None and self.busy(row) > ENOUGH_SECONDS + 3 * STEP:
                yield row

    def series(self) -> list[dict[str, str]]:
        said = [
            ('pairscore_sink_job_rows_left{job="sink",instance="s",job_name="j"}', "rows_left"),
        ]
        for worker in range(self.workers):
            for name in ("busy_rows", "busy_seconds"):
                labels = f'{{job="worker",instance="w{worker}"}}'
                said.append((f"pairscore_worker_{name}_total{labels}", f"{name}_{worker}"))
        deadline = 'pairscore_sink_job_deadline_timestamp_seconds{job="sink",job_name="j"}'
        there = [row["rows_left"] is not None for row in self.rows]
        return [
            *({"series": name, "values": self._values(column)} for name, column in said),
            {"series": deadline, "values": " ".join(_value(self.deadline, it) for it in there)},
        ]

    def _values(self, column: str) -> str:
        return " ".join(_value(row[column], row[column] is not None) for row in self.rows)


def _value(value: float | None, there: bool) -> str:
    # What is no longer told is gone at once, as in a scrape that has it no more.
    return f"{value:g}" if there and value is not None else "stale"


def evaluate(folder: Path, series: object, tests: Sequence[Mapping[str, object]]) -> str:
    """What promtool finds wrong."""
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{STEP}s",
        "tests": [
            {"interval": f"{STEP}s", "input_series": series, "promql_expr_test": list(tests)}
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(document))
    with had(program("promtool")) as promtool:
        done = subprocess.run(
            [promtool, "test", "rules", str(folder / "test.yml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def holds(condition: str, row: int) -> Mapping[str, object]:
    """That an expression gives the job, and so is true, at the time of a row."""
    return {
        "expr": f"({condition}) * 0",
        "eval_time": f"{row * STEP}s",
        "exp_samples": [{"labels": '{job="j"}', "value": 0}],
    }


@pytest.mark.parametrize("name", ["too_slow", "scaled"])
def test_the_figure_is_the_formulas_all_along_a_recorded_curve(tmp_path: Path, name: str) -> None:
    curve = Curve.of(name)
    rows = list(curve.known())
    assert len(rows) >= 10
    tests = [
        holds(
            f"pairscore_required_workers > {0.9 * curve.required(row):.4f}"
            f" < {1.1 * curve.required(row):.4f}",
            row,
        )
        for row in rows
    ]
    assert evaluate(tmp_path, curve.series(), tests) == ""
    # And it is these numbers that it is held to.
    wrong = [holds(f"pairscore_required_workers > {1.2 * curve.required(rows[0]):.4f}", rows[0])]
    assert "FAILED" in evaluate(tmp_path, curve.series(), wrong)


def test_one_worker_is_told_to_be_too_few_and_more_and_more_so(tmp_path: Path) -> None:
    curve = Curve.of("too_slow")
    at = [row for row in curve.known() if (curve.rows[row]["seconds_to_deadline"] or 0) > 60]
    tests = [holds("pairscore_required_workers > 1.3", row) for row in at]
    later = [holds("pairscore_required_workers > pairscore_required_workers offset 20s", at[-1])]
    assert evaluate(tmp_path, curve.series(), [*tests, *later]) == ""


def test_those_that_were_required_were_enough_and_are_not_when_it_is_done(tmp_path: Path) -> None:
    curve = Curve.of("scaled")
    done = next(row for row in range(5, len(curve.rows)) if curve.rows[row]["rows_left"] is None)
    assert (curve.rows[done]["seconds_to_deadline"] or 0) > 0, "before the deadline"
    # What one told is good for 2 min more; then nothing is left to require anything.
    nothing = {"expr": "pairscore_required_workers", "eval_time": f"{done * STEP + 125}s"}
    assert evaluate(tmp_path, curve.series(), [{**nothing, "exp_samples": []}]) == ""


def test_one_is_required_until_a_rate_is_known_and_none_for_what_is_done(tmp_path: Path) -> None:
    series = [
        {"series": 'pairscore_sink_job_rows_left{instance="a",job_name="j"}', "values": "90x20"},
        {
            "series": 'pairscore_sink_job_deadline_timestamp_seconds{instance="a",job_name="j"}',
            "values": "3600x20",
        },
        {"series": 'pairscore_sink_job_rows_left{instance="a",job_name="done"}', "values": "0x20"},
    ]
    expected = {
        "expr": "pairscore_required_workers",
        "eval_time": "60s",
        "exp_samples": [
            {"labels": 'pairscore_required_workers{job="j"}', "value": 1},
            {"labels": 'pairscore_required_workers{job="done"}', "value": 0},
        ],
    }
    assert evaluate(tmp_path, series, [expected]) == ""


def test_a_rate_is_remembered_when_all_workers_have_ended(tmp_path: Path) -> None:
    """So that a fleet which was scaled to nothing is woken in time."""
    hours = 3600 // STEP
    series = [
        {
            "series": 'pairscore_worker_busy_rows_total{instance="w"}',
            "values": f"0+200x{hours} stale",
        },
        {
            "series": 'pairscore_worker_busy_seconds_total{instance="w"}',
            "values": f"0+5x{hours} stale",
        },
        {"series": 'pairscore_sink_job_rows_left{job_name="j"}', "values": f"72000x{hours * 6}"},
        {
            "series": 'pairscore_sink_job_deadline_timestamp_seconds{job_name="j"}',
            "values": f"{5 * 3600}x{hours * 6}",
        },
    ]
    expected = {
        "expr": "pairscore_required_workers",
        "eval_time": "4h50m",  # 600 s before the deadline: 72,000 / (40 x 600)
        "exp_samples": [{"labels": 'pairscore_required_workers{job="j"}', "value": 3}],
    }
    assert evaluate(tmp_path, series, [expected]) == ""


def test_two_sinks_that_tell_of_one_job_do_not_double_it(tmp_path: Path) -> None:
    curve = Curve.of("too_slow")
    once = curve.series()
    twice = [
        *once,
        *(
            {**each, "series": each["series"].replace('job="sink"', 'job="sink-postgres"')}
            for each in once
            if "sink_job" in each["series"]
        ),
    ]
    row = next(curve.known())
    test = holds(f"pairscore_required_workers < {1.1 * curve.required(row):.4f}", row)
    assert evaluate(tmp_path, twice, [test]) == ""
