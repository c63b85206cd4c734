"""Steps of a Lagrange multiplier ``λ`` that keeps a mean cost at a budget. Pure: Python floats in and out.

A *violation* is 0 where the cost keeps its budget, above 0 where more is spent. It has no unit, so that rates mean the
same whatever costs are counted in: ``(cost − budget)/budget``, or ``log(cost/budget)``. The unit of ``λ`` is the
caller's. Two rules: gradient ascent on ``log λ``, and a PID controller.
"""

import math
from dataclasses import dataclass

from budget_wrappers.arguments import a_number
from budget_wrappers.errors import ConfigError, NonFiniteError


def log_ascent(
    log_multiplier: float, violation: float, rate: float, low: float = -math.inf, high: float = math.inf
) -> float:
    """Return ``clip(log λ + rate · v, low, high)``: one step of dual ascent on ``log λ``.

    ``λ`` is multiplied by ``exp(rate · v)``, so it stays positive and a step is a share of it, whatever its scale. For
    ``v = log(cost/budget)`` that is ``λ ← λ · (cost/budget)^rate``. Clipping keeps ``λ`` from running away while no
    ``λ`` would keep the budget.

    Source: Bertsekas, "Constrained Optimization and Lagrange Multiplier Methods", chapter 5 (multiplicative form:
    Arora, Hazan and Kale, "The Multiplicative Weights Update Method").

    Args:
        log_multiplier: ``log λ``, natural.
        violation: ``v``, above 0 where more is spent than the budget; no unit.
        rate: of ``log λ`` per step and unit of violation, >= 0.
        low: least ``log λ``.
        high: greatest ``log λ``.

    Raises:
        NonFiniteError: ``log_multiplier`` or ``violation`` is NaN or infinite.
        ConfigError: ``rate`` is negative, NaN or infinite, ``low`` is above ``high``, or one of them is NaN.
    """
    a_number("rate", rate, "a finite number >= 0", lambda number: number >= 0)
    if not low <= high:
        raise ConfigError(f"low={low!r} and high={high!r}: expected low <= high, bounds of the multiplier's logarithm")
    _require_finite("log_multiplier", log_multiplier)
    _require_finite("violation", violation)
    return min(max(log_multiplier + rate * violation, low), high)


@dataclass(frozen=True)
class PIDGains:
    """Gains of a PID multiplier: units of ``λ`` per unit of violation, each >= 0.

    Attributes:
        proportional: ``K_P``, of the violation itself: damps the oscillation that an integral alone falls into.
        integral: ``K_I``, of the sum of violations: the usual rate of dual ascent, which alone reaches the budget.
        derivative: ``K_D``, of a violation that rises: acts before the budget is overspent.
    """

    proportional: float = 0.0
    integral: float = 0.0
    derivative: float = 0.0

    def __post_init__(self) -> None:
        for name, gain in vars(self).items():
            a_number(name, gain, "a finite gain >= 0", lambda number: number >= 0)


@dataclass(frozen=True)
class PIDState:
    """What a PID multiplier remembers between steps.

    Attributes:
        integral: ``I``, the sum of violations, never below 0.
        last: violation of the step before; None before the first, which then has no change.
    """

    integral: float = 0.0
    last: float | None = None


def pid_step(state: PIDState, violation: float, gains: PIDGains) -> tuple[float, PIDState]:
    """Return ``λ = (K_P·v + K_I·I + K_D·(v − v_last)₊)₊`` with ``I ← (I + v)₊``, and the new state.

    The integral is clipped at 0, so that a budget which is kept for long leaves no debt behind; only a rise of the
    violation counts for the derivative, so that a fall is not held up. ``λ`` may be 0.

    Source: Stooke, Achiam and Abbeel, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods" (2020),
    algorithm 2.

    Args:
        state: after the step before.
        violation: ``v``, above 0 where more is spent than the budget; no unit.
        gains: ``K_P``, ``K_I`` and ``K_D``.

    Raises:
        NonFiniteError: ``violation`` is NaN or infinite.
    """
    _require_finite("violation", violation)
    integral = max(state.integral + violation, 0.0)
    rise = 0.0 if state.last is None else max(violation - state.last, 0.0)
    terms = gains.proportional * violation + gains.integral * integral + gains.derivative * rise
    return max(terms, 0.0), PIDState(integral, float(violation))


def relative_violation(cost: float, budget: float) -> float:
    """Return ``(cost − budget)/budget``: −1 for no cost at all, 0 at the budget, 1 for twice as much.

    Args:
        cost: mean cost, >= 0.
        budget: in the same unit, > 0.

    Raises:
        ConfigError: ``budget`` is not above 0.
    """
    a_number("budget", budget, "a finite number > 0", lambda number: number > 0)
    return (cost - budget) / budget


def _require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise NonFiniteError(
            f"{name} is {value!r}; expected a finite number. Look at the cost that the violation was made of: a mean "
            "over no steps, or the logarithm of a cost of 0, is none."
        )


__all__ = ["PIDGains", "PIDState", "log_ascent", "pid_step", "relative_violation"]
