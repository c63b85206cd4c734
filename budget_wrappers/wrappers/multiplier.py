"""The weight of a compute penalty: fixed, or a Lagrange multiplier that keeps a mean cost per step at a budget.

``ComputePenaltyReward`` holds one of the two and asks it the same things. The adaptive one is a PI controller of
``log λ``. With the violation ``v = (cost − budget)/budget``, mean over the environment steps of one interval::

    log λ̄ ← log λ̄ + rate · Σ v        (the integral: one term for each environment step)
    λ = λ̄ · exp(P · min(v, 1))         (the proportional part, of the last interval)

The sum makes the mean right whatever the agent does: over ``T`` steps it is off the budget by ``Δ log λ̄ / (rate · T)``,
a share of it, which vanishes as long as ``λ̄`` stays within bounds. The proportional part damps the oscillation that the
sum alone falls into, as an agent follows a new ``λ`` late (its replay holds rewards of the old one).
"""

import math
from typing import Any, Literal

import numpy as np

from budget_wrappers.arguments import a_number
from budget_wrappers.errors import CheckpointError, ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.multipliers import log_ascent, relative_violation

AUTO: Literal["auto"] = "auto"
RATE = 1e-3
"""Of ``log λ̄`` for each environment step and unit of violation, by default."""
INTERVAL = 0.2
"""Environment steps between two steps of ``λ``, times the rate: 200 at 1e-3."""
PROPORTIONAL = 2.0
"""``P``: how far a violation of the last interval moves ``log λ``; no further than where all of the budget is saved."""
INITIAL_SHARE = 0.02
"""Of the mean size of a reward that spending the budget costs at first."""
RANGE = math.log(1e4)
"""How far ``log λ̄`` gets from where it began, so that it comes back soon from a budget that nothing could keep."""


class FixedWeight:
    """A weight that only ``set_weight`` changes.

    Args:
        weight: reward per FLOP, >= 0.

    Attributes:
        weight: reward per FLOP.
    """

    adapts = False

    def __init__(self, weight: float) -> None:
        self.set_weight(weight)

    def set_weight(self, weight: float) -> None:
        """Change the weight from the next step on; raises ConfigError."""
        self.weight = validate_weight(weight)

    def count(self, cost: float, steps: int, reward: float) -> None:
        """Do nothing: the weight stays."""

    def report(self) -> dict[str, np.float64]:
        """Return nothing to report beside the returns."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing, as nothing changes by itself."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse the state of another kind of weight; raises CheckpointError."""
        if state:
            raise CheckpointError(
                f"the state {str(state)[:200]} is that of an adaptive weight, and weight={self.weight!r} is fixed: "
                "expected the wrapper that was saved; make it with weight='auto'"
            )


class AdaptiveWeight:
    """A Lagrange multiplier: rises while the mean cost per environment step is above the budget, falls while below.

    Args:
        budget: mean FLOPs per environment step that are to be kept, above 1.
        initial: reward per FLOP at first, > 0; None for ``INITIAL_SHARE · mean |reward| / budget``, with the rewards of
            the first interval (until then as if their mean was 1).
        rate: see ``RATE``; its inverse is about the number of steps in which the agent follows a new weight.
        least: FLOPs per environment step that the cheapest choice costs, for the check of the budget.

    Attributes:
        weight: ``λ``, reward per FLOP.
        budget: mean FLOPs per environment step.
        interval: environment steps between two steps of ``λ``.

    Raises:
        ConfigError: one of them is not such a number.
        InfeasibleBudgetError: ``budget`` is below ``least``.
    """

    adapts = True

    def __init__(self, budget: float, initial: float | None = None, rate: float | None = None, least: int = 0) -> None:
        self.rate = a_number("rate", RATE if rate is None else rate, "a number in (0, 1]", lambda x: 0 < x <= 1)
        self.interval, self._least = math.ceil(INTERVAL / self.rate), least
        self.budget = self._checked(budget)
        self._forget_interval()
        self.set_weight(INITIAL_SHARE / self.budget if initial is None else initial, "initial_weight")
        self._scaled = initial is not None

    def set_weight(self, weight: float, name: str = "weight") -> None:
        """Adapt on from this weight; raises ConfigError."""
        expected = "a finite number > 0, as an adaptive weight stays positive"
        self._start = self._log = math.log(a_number(name, weight, expected, lambda x: x > 0))
        self._violation, self._scaled = 0.0, True
        self.weight = float(weight)

    def set_budget(self, budget: float) -> None:
        """Keep another mean cost from the next step on; the weight goes on from where it is.

        Raises:
            ConfigError: it is not a number above 1.
            InfeasibleBudgetError: it is below what the cheapest choice costs.
        """
        checked = self._checked(budget)
        if checked != self.budget:
            self.budget = checked
            self._forget_interval()

    def _checked(self, budget: Any) -> float:
        expected = "mean FLOPs per environment step, a number above 1 (a share is no budget here)"
        checked = a_number("budget", budget, expected, lambda x: x > 1)
        if checked < self._least:
            raise InfeasibleBudgetError(
                f"budget={checked:g} FLOPs per environment step is below the {self._least} that the cheapest choice "
                "costs, so no weight can keep it. Raise it, or add a cheaper choice."
            )
        return checked

    def _forget_interval(self) -> None:
        self._cost, self._steps, self._reward = 0, 0, 0.0

    def count(self, cost: float, steps: int, reward: float) -> None:
        """Count what has just run, and step ``λ`` at an interval's end.

        Args:
            cost: FLOPs.
            steps: environment steps.
            reward: size of the rewards before the penalty, ``Σ |r|``.
        """
        self._cost += float(cost)
        self._steps += int(steps)
        self._reward += float(reward)
        if self._steps >= self.interval:
            self._adapt()

    def _adapt(self) -> None:
        if not self._scaled and self._reward > 0:
            self._log = self._start = self._log + math.log(self._reward / self._steps)
            self._scaled = True
        self._violation = relative_violation(self._cost / self._steps, self.budget)
        rate = self.rate * self._steps
        self._log = log_ascent(self._log, self._violation, rate, self._start - RANGE, self._start + RANGE)
        self.weight = math.exp(self._log + PROPORTIONAL * min(self._violation, 1.0))
        self._forget_interval()

    def report(self) -> dict[str, np.float64]:
        """Return what ``info["compute"]`` says of the weight."""
        return {"penalty_weight": np.float64(self.weight)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes, as plain numbers."""
        return {name: vars(self)[name] for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            CheckpointError: it is something else.
        """
        numbers = isinstance(state, dict) and state.keys() == set(STATE)
        finite = numbers and all(isinstance(value, int | float) and math.isfinite(value) for value in state.values())
        sound = finite and state["weight"] > 0 and state["budget"] > 1 and state["_steps"] >= 0 <= state["_reward"]
        if not sound or type(state["_steps"]) is not int or abs(state["_log"] - state["_start"]) > RANGE + 1e-9:
            raise CheckpointError(
                f"the state {str(state)[:200]} is not that of an adaptive weight: expected finite numbers, a weight "
                "above 0, a budget above 1 and steps of 0 or more, under "
                f"{', '.join(STATE)}, as state_dict() returns them; take another copy of the file"
            )
        vars(self).update({name: state[name] for name in STATE})


STATE = ("weight", "budget", "_start", "_log", "_violation", "_scaled", "_cost", "_steps", "_reward")
"""Attributes of an ``AdaptiveWeight`` that change while it runs."""


def make_weight(
    weight: float | Literal["auto"],
    budget: float | None,
    initial_weight: float | None,
    rate: float | None,
    least: int,
) -> FixedWeight | AdaptiveWeight:
    """Return what holds the weight of a penalty.

    Args:
        weight: reward per FLOP, or ``"auto"``.
        budget: see ``AdaptiveWeight``, as all that follow; for ``"auto"`` only.
        initial_weight: ``initial`` there.
        rate: of the logarithm.
        least: FLOPs of the cheapest choice.

    Raises:
        ConfigError: a number is out of bounds, ``"auto"`` without a budget, or a number beside what is for ``"auto"``.
        InfeasibleBudgetError: the budget is below what the cheapest choice costs.
    """
    if isinstance(weight, str) and weight == AUTO:
        if budget is None:
            raise ConfigError(
                "weight='auto' with budget=None; expected the mean FLOPs per environment step that are to be kept: "
                "budget=..., or a number as weight."
            )
        return AdaptiveWeight(budget, initial_weight, rate, least)
    fixed = FixedWeight(weight)
    for name, value in (("budget", budget), ("initial_weight", initial_weight), ("rate", rate)):
        if value is not None:
            raise ConfigError(
                f"{name}={value!r} with weight={weight!r}; expected weight='auto', as a fixed weight keeps no budget. "
                f"Leave {name} out, or let the weight adapt."
            )
    return fixed


def validate_weight(weight: float) -> float:
    """Return ``weight`` as a float.

    Raises:
        ConfigError: it is no number, NaN, infinite or negative.
    """
    if isinstance(weight, str) and weight == AUTO:
        raise ConfigError(
            "weight='auto'; expected a finite number >= 0 here. ComputePenaltyReward of a single or of a vector "
            "environment adapts its weight; elsewhere set_weight() takes what functional.multipliers computes."
        )
    try:
        return a_number("weight", weight, fits=lambda number: number >= 0)
    except ConfigError as error:
        raise ConfigError(f"weight={weight!r}; expected a finite number >= 0 (0 turns the penalty off).") from error


__all__ = ["AUTO", "AdaptiveWeight", "FixedWeight", "make_weight", "validate_weight"]
