"""Scores pairs on one machine: stages with bounded memory, a score or a reason for each pair."""

from pairscore.scorer.scorer import Scorer, ScorerClosed, ScorerCrashed, score_pairs

__all__ = ["Scorer", "ScorerClosed", "ScorerCrashed", "score_pairs"]
