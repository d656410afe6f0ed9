"""How often hosts are asked: one budget for each, of this process or of the whole fleet."""

from pairscore.politeness.budget import Grant, Question
from pairscore.politeness.budgets import Budgets, LocalBudgets
from pairscore.politeness.limits import HostLimit, HostLimits

__all__ = ["Budgets", "Grant", "HostLimit", "HostLimits", "LocalBudgets", "Question"]
