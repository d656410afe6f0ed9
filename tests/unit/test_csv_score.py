"""The one call: checks first, then a scorer with the caller's settings, closed at the end."""

import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Self

import pytest

import pairscore
from pairscore.csv_file import score_csv
from pairscore.errors import InputError
from pairscore.pair import Outcome, Pair, Score
from pairscore.settings import Settings


class StandIn:
    """A scorer without a model; the real one is put to this call in tests/e2e."""

    made: "list[StandIn]"
    fingerprint = "stand-in"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closed = False
        self.made.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def score_pairs(self, pairs: Iterable[Pair]) -> Iterator[Outcome]:
        for pair in pairs:
            yield Score(float(len(pair.caption)), 0.5, False, "ab" * 32, 1)


@pytest.fixture
def made(monkeypatch):
    module = ModuleType("pairscore.scorer")
    monkeypatch.setattr(module, "Scorer", StandIn, raising=False)
    monkeypatch.setitem(sys.modules, "pairscore.scorer", module)
    monkeypatch.setattr(StandIn, "made", [], raising=False)
    return StandIn.made


def test_a_file_is_scored_with_the_settings_given(tmp_path, made):
    source = tmp_path / "in.csv"
    source.write_text("pic\twords\ta\nu\tfour\t1\n")
    told: list[tuple[int, str]] = []
    summary = score_csv(
        str(source),
        str(tmp_path / "out.tsv"),
        settings=Settings(model="demo"),
        url_column="pic",
        caption_column="words",
        delimiter="tab",
        details=True,
        progress=lambda rows, outcome: told.append((rows, type(outcome).__name__)),
    )
    assert summary.output.read_text().splitlines()[1].startswith("u\tfour\t1\t4.0000\t\t0.500000\t")
    assert (summary.rows, summary.scored, told) == (1, 1, [(1, "Score")])
    (scorer,) = made
    assert scorer.settings.model == "demo"
    assert scorer.closed


def test_settings_come_from_the_environment_if_none_are_given(tmp_path, made, monkeypatch):
    monkeypatch.setenv("PAIRSCORE_MODEL", "demo")
    source = tmp_path / "in.csv"
    source.write_text("url,caption\nu,c\n")
    pairscore.score_csv(source)
    assert made[0].settings.model == "demo"
    assert (tmp_path / "in_scored.csv").exists()


def test_a_file_that_cannot_be_used_costs_no_scorer(tmp_path, made):
    with pytest.raises(InputError, match="No such file"):
        score_csv(tmp_path / "none.csv", settings=Settings())
    assert made == []
