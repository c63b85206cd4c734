"""Who picks a sub-policy."""

from budget_wrappers.selection.rules import fixed, greedy_by_cost, random

__all__ = ["fixed", "greedy_by_cost", "random"]
