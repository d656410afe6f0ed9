"""What an executor's process does with batches of rows, without Spark."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
import pytest

from pairscore.errors import InputError
from pairscore.pair import Failure, Outcome, Reason, Score
from pairscore.settings import Settings
from pairscore.spark import executor
from pairscore.spark.executor import score_batches

SCORE = Score(25.0, 0.25, caption_truncated=False, image_sha256="0" * 64, attempts=1)
SETTINGS = Settings(model="demo")


class Told:
    """A score for each pair, or what its URL names; reads two pairs ahead."""

    made = 0

    def __init__(self, _: Settings) -> None:
        type(self).made += 1
        self.seen: list[tuple[str, str]] = []

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Outcome]:
        waiting: list[Outcome] = []
        for url, caption in pairs:
            self.seen.append((url, caption))
            waiting.append(_answer(url))
            if len(waiting) > 2:
                yield waiting.pop(0)
        yield from waiting


def _answer(url: str) -> Outcome:
    match url.split():
        case ["404"]:
            return Failure(Reason.HTTP_ERROR, "404")
        case []:
            return Failure(Reason.INVALID_URL)
    return SCORE


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    monkeypatch.setattr(executor, "Scorer", Told)
    monkeypatch.setattr(executor, "_scorers", [])
    monkeypatch.setattr(Told, "made", 0)
    return Told


def batch(*urls: Any, captions: list[Any] | None = None) -> tuple[pd.Series, pd.Series]:
    return pd.Series(urls), pd.Series(captions or ["a"] * len(urls))


def seen() -> list[tuple[str, str]]:
    scorer: Any = executor.scorer_of(SETTINGS)
    pairs: list[tuple[str, str]] = scorer.seen
    return pairs


def frames(*batches: tuple[pd.Series, pd.Series]) -> list[list[list[Any]]]:
    found = list(score_batches(iter(batches), SETTINGS))
    for frame in found:
        assert list(frame.columns) == ["similarity", "cosine", "error", "error_detail"]
        assert [str(each) for each in frame.dtypes] == ["float64", "float64", "object", "object"]
    return [
        [[None if pd.isna(cell) else cell for cell in row] for row in frame.to_numpy().tolist()]
        for frame in found
    ]


def test_each_batch_has_a_frame_of_its_outcomes():
    good = [25.0, 0.25, None, None]
    assert frames(batch("u", "404"), batch("u")) == [
        [good, [None, None, "http_error", "404"]],
        [good],
    ]


@pytest.mark.parametrize("sizes", [(0,), (0, 0, 1), (1, 0, 0, 3, 0), (3, 0), (), (5, 1, 0, 0, 2)])
def test_batches_keep_their_sizes_empty_ones_too(sizes):
    empty = (pd.Series([], dtype=object), pd.Series([], dtype=object))
    batches = [batch(*["u"] * size) if size else empty for size in sizes]
    assert tuple(map(len, frames(*batches))) == sizes


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA])
def test_what_is_missing_is_an_empty_text(missing):
    url = pd.Series(["u", missing], dtype=object)
    caption = pd.Series([missing, "a"], dtype=object)
    assert frames((url, caption))[0][1] == [None, None, "invalid_url", None]
    assert seen() == [("u", ""), ("", "a")]


def test_texts_of_pandas_own_kind_are_texts():
    assert len(frames((pd.Series(["u"], dtype="string"), pd.Series([None], dtype="string")))) == 1
    assert seen() == [("u", "")]


@pytest.mark.parametrize(
    ("urls", "captions", "which"), [([1, 2], None, "url"), (["u"], [b"a"], "caption")]
)
def test_what_is_no_text_is_never_scored_as_one(urls, captions, which):
    with pytest.raises(InputError, match=f"^{which}: a value of type (int|bytes) "):
        frames(batch(*urls, captions=captions))


def test_the_model_is_loaded_once_for_the_same_settings(told):
    frames(batch("u"))
    frames(batch("u"))
    assert told.made == 1
    assert executor.scorer_of(Settings(model="demo")) is executor.scorer_of(SETTINGS)
    assert executor.scorer_of(Settings(model="other")) is not executor.scorer_of(SETTINGS)
    assert told.made == 2


def test_a_batch_comes_out_before_all_are_read():
    read = []

    def batches() -> Iterator[tuple[pd.Series, pd.Series]]:
        for number in range(10):
            read.append(number)
            yield batch("u", "u")

    assert len(next(score_batches(batches(), SETTINGS))) == 2
    assert len(read) < 5
