"""Selectors that look at nothing: what a selector that does look at the observation has to be better than.

A control spends what the selector under test has spent, and is as good as it where looking is worth nothing: ``coin``
draws from a constant mixture, which ``mixture_of_cost`` makes as expensive; ``shuffled`` hands out the very choices of
a recorded run, in an order that has nothing to do with the states. ``K`` sub-policies.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from budget_wrappers.arguments import a_count, a_number, an_instance, refuse
from budget_wrappers.core import Choice
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.costs import validate_flops

ROUNDING = 1e-6
"""By how much the sum of shares may differ from 1: that of float32 shares does by rounding."""
GENERATOR = "a numpy.random.Generator, such as env.np_random or numpy.random.default_rng(seed)"


class CoinRule:
    """Each sub-policy with a constant probability, whatever the observation; free.

    Attributes:
        probabilities: ``(K,)``, of the sub-policies, cheapest first.
        flops: 0, what drawing costs.
    """

    flops = 0

    def __init__(self, probabilities: NDArray[np.float64], generator: np.random.Generator, duration: int) -> None:
        """Draw from ``generator``."""
        self.probabilities = probabilities
        self._until = np.cumsum(probabilities)
        self._until /= self._until[-1]  # exactly 1 at the end: no draw lies beyond
        self._generator = generator
        self._choices = tuple(Choice(index, 0, duration) for index in range(len(probabilities)))

    def __call__(self, observation: Any) -> Choice:
        """Return a choice; ``observation`` is not looked at."""
        # From the right: a sub-policy of probability 0 is an empty interval, which no draw falls into.
        return self._choices[int(np.searchsorted(self._until, self._generator.random(), side="right"))]


class ShuffledRule:
    """Recorded choices in a random order, each as often as it was recorded; then all of them in another order.

    Attributes:
        choices: the record.
        flops: FLOPs of the most expensive choice of the record: each choice costs again what it has cost.
    """

    def __init__(self, choices: tuple[Choice, ...], generator: np.random.Generator) -> None:
        """Permute by ``generator``."""
        self.choices = choices
        self.flops = max(choice.flops for choice in choices)
        self._generator = generator
        self._order: list[int] = []

    def __call__(self, observation: Any) -> Choice:
        """Return the next choice; ``observation`` is not looked at."""
        if not self._order:
            self._order = self._generator.permutation(len(self.choices)).tolist()
        return self.choices[self._order.pop()]


def coin(probabilities: ArrayLike, generator: np.random.Generator, duration: int = 1) -> CoinRule:
    """Return the selector that picks sub-policy ``k`` with probability ``probabilities[k]``, at no cost of its own.

    Args:
        probabilities: ``(K,)``, cheapest first, each 0 or more, that sum to 1.
        generator: that it draws from; one draw a choice.
        duration: control steps for which a choice holds.

    Raises:
        ConfigError: ``probabilities`` are no mixture, ``generator`` is none, or ``duration`` is below 1.
    """
    checked = shares_of("probabilities", probabilities)
    an_instance("generator", generator, np.random.Generator, GENERATOR)
    return CoinRule(checked, generator, a_count("duration", duration, 1))


def shuffled(choices: Sequence[Choice], generator: np.random.Generator) -> ShuffledRule:
    """Return the selector that hands out recorded ``choices`` in a random order, without replacement.

    Once all were handed out they are permuted anew, so that each pass has each choice as often as the record, to the
    digit. A pass goes on across the ends of episodes, and a choice keeps the duration and the FLOPs that it has.

    Args:
        choices: of the run that is controlled, in any order.
        generator: that permutes them.

    Raises:
        ConfigError: there is no choice, one is no ``Choice``, or ``generator`` is none.
    """
    if isinstance(choices, str | bytes) or not isinstance(choices, Sequence | np.ndarray):
        refuse("choices", choices, "a sequence of Choice, such as a list of what a selector has returned")
    record = tuple(choices)
    if not record:
        refuse("choices", record, "at least one recorded Choice")
    for place, choice in enumerate(record):
        an_instance(f"choices[{place}]", choice, Choice, "a Choice(index, flops, duration)")
    an_instance("generator", generator, np.random.Generator, GENERATOR)
    return ShuffledRule(record, generator)


def mixture_of_cost(flops: ArrayLike, shares: ArrayLike, mean_flops: float) -> NDArray[np.float64]:
    """Return the constant mixture nearest to ``shares`` that costs ``mean_flops`` a step.

    Weight moves along a line: from ``shares`` towards all of it on the dearest sub-policy where they cost less than
    ``mean_flops``, towards all of it on the cheapest where they cost more, ``p = (1 − t)·shares + t·e``, until the
    mean cost ``Σ p_k·F_k`` is ``mean_flops``. Where even the dearest costs less than that, all weight is on it: the
    mixture may cost less than was asked, and never more (but for rounding).

    Args:
        flops: ``(K,)``, ``F_k``, FLOPs of one step of each sub-policy.
        shares: ``(K,)``, each 0 or more, that sum to 1.
        mean_flops: FLOPs a step.

    Returns:
        Probabilities, ``(K,)``, that sum to 1.

    Raises:
        CostError: a cost is NaN, negative or not whole.
        ConfigError: ``shares`` are no mixture of K sub-policies, or ``mean_flops`` is no finite number.
        InfeasibleBudgetError: ``mean_flops`` is below the cheapest.
    """
    costs = validate_flops(flops).astype(np.float64)
    given = shares_of("shares", shares)
    if len(given) != len(costs):
        raise ConfigError(f"shares={given.tolist()}: expected {len(costs)}, one for each of flops={costs.tolist()}")
    mean = a_number("mean_flops", mean_flops, "a finite number of FLOPs a step")
    cheapest, dearest = int(costs.argmin()), int(costs.argmax())
    if mean < costs[cheapest]:
        raise InfeasibleBudgetError(
            f"mean_flops={mean!r} is below the {int(costs[cheapest])} of the cheapest sub-policy, and every mixture "
            "costs at least that. Raise it, or add a cheaper sub-policy."
        )
    now = float(given @ costs)
    if math.isclose(now, mean, rel_tol=1e-12):  # between equal costs rounding alone would move weight
        return given
    end = dearest if now < mean else cheapest
    beyond_all = now < mean and mean >= costs[dearest]
    moved = 1.0 if beyond_all else (mean - now) / (costs[end] - now)
    mixture = (1.0 - moved) * given
    mixture[end] += moved
    return mixture


def shares_of(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return shares ``(K,)`` that sum to 1 exactly but for rounding of float64.

    Raises:
        ConfigError: they are not numbers of 0 or more in one row, or sum to something else than 1.
    """
    expected = "at least one number in a row, each 0 or more, that sum to 1"
    try:
        read = np.asarray(values)
    except (TypeError, ValueError):  # rows of different lengths
        refuse(name, values, expected)
    if read.dtype.kind not in "fiu" or read.ndim != 1 or not read.size:  # text that reads as a number is none
        refuse(name, values, expected)
    shares = read.astype(np.float64)
    if not np.isfinite(shares).all() or (shares < 0).any():
        refuse(name, values, expected)
    if abs(shares.sum() - 1.0) > ROUNDING:
        raise ConfigError(f"{name} sum to {shares.sum()!r}: expected 1; divide them by their sum")
    return shares / shares.sum()


__all__ = ["CoinRule", "ShuffledRule", "coin", "mixture_of_cost", "shares_of", "shuffled"]
