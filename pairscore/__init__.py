"""Scores how well captions fit their images with CLIP.

Every pair in comes out exactly once, with a score or a reason:

    from pairscore import score_pairs

    for outcome in score_pairs([("https://example.org/cat.jpg", "a cat")]):
        print(outcome)

The names below are imported when first used, so that importing `pairscore` (or its CSV reader)
costs neither torch nor a model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pairscore.csv_file import Summary, score_csv
    from pairscore.errors import PairscoreError
    from pairscore.pair import Failure, Outcome, Pair, Reason, Score
    from pairscore.scorer import Scorer, score_pairs
    from pairscore.settings import Settings

__all__ = [
    "Failure",
    "Outcome",
    "Pair",
    "PairscoreError",
    "Reason",
    "Score",
    "Scorer",
    "Settings",
    "Summary",
    "__version__",
    "score_csv",
    "score_pairs",
]

_HOME = {
    "Failure": "pairscore.pair",
    "Outcome": "pairscore.pair",
    "Pair": "pairscore.pair",
    "PairscoreError": "pairscore.errors",
    "Reason": "pairscore.pair",
    "Score": "pairscore.pair",
    "Scorer": "pairscore.scorer",
    "Settings": "pairscore.settings",
    "Summary": "pairscore.csv_file",
    "score_csv": "pairscore.csv_file",
    "score_pairs": "pairscore.scorer",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'pairscore' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from pairscore.errors import what_is_missing

        missing = what_is_missing(error)
        if missing is None:
            raise
        raise ImportError(missing) from None


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
