"""Selectors that need no learning: always the same one, at random, and the dearest that a budget allows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from budget_wrappers.arguments import MOST_STEPS, a_number, an_instance
from budget_wrappers.core import Choice
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.costs import validate_flops


@dataclass(frozen=True)
class FixedRule:
    """Always the same choice.

    Attributes:
        choice: what every observation gets.
    """

    choice: Choice

    @property
    def flops(self) -> int:
        """FLOPs that picking costs."""
        return self.choice.flops

    def __call__(self, observation: Any) -> Choice:
        """Return the choice."""
        return self.choice


class RandomRule:
    """Every sub-policy equally often, from a seeded generator.

    Attributes:
        flops: 0, what drawing costs.
    """

    flops = 0

    def __init__(self, count: int, generator: np.random.Generator, duration: int = 1) -> None:
        """Draw from ``generator``, which the caller seeds (``env.np_random``, say)."""
        self._choices = tuple(Choice(index, 0, duration) for index in range(count))
        self._generator = generator

    def __call__(self, observation: Any) -> Choice:
        """Return a choice; ``observation`` is not looked at."""
        return self._choices[int(self._generator.integers(len(self._choices)))]


class GreedyByCostRule:
    """The dearest sub-policy whose cost a budget a step allows.

    Attributes:
        flops: 0, what looking it up costs.
    """

    flops = 0

    def __init__(self, flops: ArrayLike, budget: float, duration: int = 1) -> None:
        """Check the costs and set the budget."""
        self._flops = validate_flops(flops)
        self._duration = duration
        self.set_budget(budget)

    def set_budget(self, budget: float) -> None:
        """Set the FLOPs that one control step may cost.

        Raises:
            InfeasibleBudgetError: it is below the cheapest, or NaN.
        """
        if not (isinstance(budget, float) and budget != budget):  # NaN is below every cost
            a_number("budget", budget, "a finite number of FLOPs")
        if not budget >= self._flops.min():
            raise InfeasibleBudgetError(
                f"A budget of {budget!r} FLOPs a step is below the {int(self._flops.min())} of the cheapest "
                "sub-policy. Raise it, or add a cheaper one."
            )
        affordable = np.where(self._flops <= budget, self._flops, -1)
        self._choice = Choice(int(affordable.argmax()), 0, self._duration)

    def __call__(self, observation: Any) -> Choice:
        """Return the dearest affordable choice."""
        return self._choice


def fixed(k: int, duration: int = 1) -> FixedRule:
    """Return the rule that always picks sub-policy ``k`` (0 is the cheapest), at no cost of its own.

    Raises:
        ConfigError: ``k`` is negative or ``duration`` below 1.
    """
    _require("k", k, 0)
    _require("duration", duration, 1)
    return FixedRule(Choice(int(k), 0, int(duration)))


def random(count: int, generator: np.random.Generator, duration: int = 1) -> RandomRule:
    """Return the rule that picks one of ``count`` sub-policies uniformly.

    Raises:
        ConfigError: ``count`` or ``duration`` is below 1.
    """
    _require("count", count, 1)
    an_instance("generator", generator, np.random.Generator, "a numpy.random.Generator, such as env.np_random")
    _require("duration", duration, 1)
    return RandomRule(int(count), generator, int(duration))


def greedy_by_cost(flops: ArrayLike, budget: float, duration: int = 1) -> GreedyByCostRule:
    """Return the rule that picks the dearest sub-policy costing at most ``budget`` FLOPs a step.

    Args:
        flops: ``(K,)`` FLOPs of one call of each.
        budget: FLOPs one control step may cost.
        duration: control steps for which a choice holds.

    Raises:
        CostError: a cost is NaN, negative or not whole.
        InfeasibleBudgetError: ``budget`` is below the cheapest.
        ConfigError: ``duration`` is below 1.
    """
    _require("duration", duration, 1)
    return GreedyByCostRule(flops, budget, int(duration))


def _require(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MOST_STEPS:
        raise ConfigError(f"{name}={value!r}; expected a whole number >= {least}, and at most {MOST_STEPS}.")


__all__ = ["FixedRule", "GreedyByCostRule", "RandomRule", "fixed", "greedy_by_cost", "random"]
