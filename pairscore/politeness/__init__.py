"""How often hosts are asked: one budget for each, of this process or of the whole fleet."""

from pairscore.politeness.budget import Grant, Question

__all__ = ["Grant", "Question"]
