"""The executors' side: one scorer in each Python process of Spark's, and rows through it."""

from collections import deque
from collections.abc import Iterable, Iterator

import pandas as pd

from pairscore.errors import InputError
from pairscore.pair import Outcome, Score
from pairscore.scorer import Scorer
from pairscore.settings import Settings
from pairscore.spark.columns import OUTCOME

# Spark keeps a process for later tasks, and ends it without asking.
_scorers: list[tuple[Settings, Scorer]] = []


def scorer_of(settings: Settings) -> Scorer:
    """This process's scorer with these settings; made, its model loaded, when first asked for.

    Raises:
        SettingsError, ModelError, EnvironmentFault: as `Scorer`.
    """
    for known, scorer in _scorers:
        if known == settings:
            return scorer
    _scorers.append((settings, Scorer(settings)))
    return _scorers[-1][1]


def score_batches(
    batches: Iterable[tuple[pd.Series, pd.Series]], settings: Settings
) -> Iterator[pd.DataFrame]:
    """The outcomes of batches of (urls, captions): a frame for each, row by row.

    Reads `settings.window` rows ahead, so that fetching one batch overlaps scoring another.

    Raises:
        InputError: a value is neither a text nor missing.
        ScorerCrashed: a defect in a stage of the scorer.
    """
    sizes: deque[int] = deque()

    def pairs() -> Iterator[tuple[str, str]]:
        for urls, captions in batches:
            sizes.append(len(urls))
            yield from zip(_texts(urls, "url"), _texts(captions, "caption"), strict=True)

    rows: list[tuple[object, ...]] = []
    for outcome in scorer_of(settings).score_pairs(pairs()):
        while not sizes[0]:
            yield _frame([])
            sizes.popleft()
        rows.append(_row(outcome))
        if len(rows) == sizes[0]:
            yield _frame(rows)
            sizes.popleft()
            rows = []
    for _ in sizes:
        yield _frame([])


def _texts(values: pd.Series, what: str) -> list[str]:
    missing = values.isna()
    texts = ["" if none else value for value, none in zip(values, missing, strict=True)]
    for text in texts:
        if not isinstance(text, str):
            raise InputError(
                f"{what}: a value of type {type(text).__name__} where a text is needed; give "
                "columns of strings, the URLs first"
            )
    return texts


def _row(outcome: Outcome) -> tuple[object, ...]:
    if isinstance(outcome, Score):
        return outcome.similarity, outcome.cosine, None, None
    return None, None, outcome.reason.value, outcome.detail or None


def _frame(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=OUTCOME.fieldNames()).astype(
        {"similarity": "float64", "cosine": "float64", "error": object, "error_detail": object}
    )
