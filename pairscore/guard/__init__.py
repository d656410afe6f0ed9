"""Asks what may be slow, down or lying, such that who asks never waits for long."""

from pairscore.guard.breaker import State
from pairscore.guard.guard import Guard, Unavailable
from pairscore.guard.stats import CallStats

__all__ = ["CallStats", "Guard", "State", "Unavailable"]
