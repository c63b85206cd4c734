"""Who picks a sub-policy: ``rules`` that need no learning, and ``controls`` that a learned selector has to beat."""

from budget_wrappers.selection.controls import coin, mixture_of_cost, shuffled
from budget_wrappers.selection.rules import fixed, greedy_by_cost, random

__all__ = ["coin", "fixed", "greedy_by_cost", "mixture_of_cost", "random", "shuffled"]
