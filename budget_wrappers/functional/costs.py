"""Costs of K sub-policies: what is legal, and the three units that a cost may be read in. Pure numpy, shape ``(K,)``.

Units are never mixed: raw FLOPs; ``share`` (of the dearest); ``relative`` (to the cheapest, the unit of an option's
penalty weight); ``exit`` (0 for the cheapest, 1 for the dearest, the unit of an early-exit budget).
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from budget_wrappers.errors import CostError

MOST_FLOPS = 2**62 - 1
"""The most FLOPs that one charge, one declared cost or one limit may be: the sum of two still fits int64."""
EXACT = 2**53
"""Up to here every whole number is a float64; a float beyond it stands for several."""


def as_whole(value: Any) -> int | None:
    """Return ``value`` as an ``int``, or ``None`` if it is no whole number.

    A bool and text are no numbers. A float is taken where it stands for one whole number only, up to ``EXACT``.
    """
    if isinstance(value, Integral):
        return None if isinstance(value, bool) else int(value)
    if isinstance(value, float | np.floating) and abs(value) <= EXACT and value == int(value):
        return int(value)
    return None


def whole(value: Any, what: str, most: int | None = MOST_FLOPS, between: str = "=") -> int:
    """Return ``value`` as an ``int`` of at least 0: the check of every count of FLOPs, rows and steps.

    Args:
        value: an int, an integer of NumPy, or a float that is whole.
        what: its name in the message.
        between: stands between name and value in the message.
        most: upper bound; ``None`` for sums of many charges, which Python's integers hold however large they are.

    Raises:
        CostError: it is anything else, below 0, or above ``most``.
    """
    number = as_whole(value)
    if number is None:
        raise CostError(
            f"{what}{between}{value!r}; expected a whole number of at least 0, got {type(value).__name__}. Round it "
            f"up; above {EXACT}, where floats are not exact, pass an int."
        )
    if number < 0:
        raise CostError(f"{what}{between}{number}; expected at least 0, as a policy cannot earn back what it spends.")
    if most is not None and number > most:
        raise CostError(f"{what}{between}{number}; expected at most {most}, so that sums fit int64. Is it an overflow?")
    return number


def validate_cost(cost: float, name: str = "cost") -> float:
    """Return ``cost`` when it is finite and not negative.

    Args:
        cost: one cost, in any unit.
        name: what the error message calls it.

    Raises:
        CostError: ``cost`` is NaN, infinite, negative or no number.
    """
    number = isinstance(cost, int | float | np.integer | np.floating) and not isinstance(cost, bool)
    if not number or not 0 <= cost < math.inf:
        raise CostError(
            f"{name} is {cost!r}; expected a finite number >= 0. A policy cannot earn back what it spends: "
            "look for an uncounted module, an overflow, or a subtraction where the charge is made."
        )
    return cost


def validate_flops(flops: Sequence[int] | ArrayLike, name: str = "flops") -> NDArray[np.int64]:
    """Return ``flops`` as a ``(K,)`` int64 array, in the order given, when each is a whole number >= 0.

    Args:
        flops: FLOPs of one call of each sub-policy.
        name: what the error message calls them.

    Raises:
        CostError: there is none, or one is NaN, infinite, negative, not whole or above ``MOST_FLOPS``.
    """
    values = np.asarray(flops, dtype=object)  # the numbers themselves: float64 is exact up to 2**53 only
    if values.ndim != 1 or values.size == 0:
        raise CostError(f"{name} has shape {values.shape}; expected (K,) with K >= 1, one number a sub-policy.")
    return np.array(
        [whole(value, f"{name}[{index}]", between=" is ") for index, value in enumerate(values)], dtype=np.int64
    )


def relative_costs(flops: ArrayLike) -> NDArray[np.float64]:
    """Return ``c_k = F_k / min_j F_j``, the unit of an option's penalty weight; the cheapest costs 1.

    Source: "Reducing the Deployment-Time Inference Control Costs of DRL Agents via an Asymmetric Architecture".

    Args:
        flops: ``(K,)`` FLOPs of one call.

    Raises:
        CostError: a cost is illegal, or the cheapest is 0, to which nothing can be relative.
    """
    values = validate_flops(flops)
    cheapest = int(values.min())
    if cheapest == 0:
        raise CostError(
            f"The cheapest of {values.tolist()} FLOPs is 0, so no cost can be relative to it. "
            "Use raw FLOPs (ComputePenaltyReward), or declare what the cheapest sub-policy really costs."
        )
    return values / cheapest


def cost_shares(flops: ArrayLike) -> NDArray[np.float64]:
    """Return ``F_k / max_j F_j``, shape ``(K,)``; the dearest costs 1.

    Raises:
        CostError: a cost is illegal, or all are 0.
    """
    values = validate_flops(flops)
    dearest = int(values.max())
    if dearest == 0:
        raise CostError(f"All of {values.tolist()} FLOPs are 0, so there is no share of the dearest.")
    return values / dearest


def exit_costs(flops: ArrayLike) -> NDArray[np.float64]:
    """Return ``(F_k − F_min) / (F_max − F_min)``, shape ``(K,)``: 0 for the cheapest and 1 for the dearest.

    Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks".

    Raises:
        CostError: a cost is illegal, or all are equal.
    """
    values = validate_flops(flops)
    low, high = int(values.min()), int(values.max())
    if low == high:
        raise CostError(f"All of {values.tolist()} FLOPs are equal, so a budget between them means nothing.")
    return (values - low) / (high - low)


def penalised_reward(reward: Any, cost: Any, weight: float, floor: float | None = None) -> Any:
    """Return ``r − weight · cost``; with a floor, ``max(r − weight · cost, min(r, floor))``.

    The floor stops the penalty, not the reward: a reward below it passes unchanged.

    Args:
        reward: ``r``, a number or ``(B,)``.
        cost: raw FLOPs, a number or ``(B,)``.
        weight: reward per FLOP.
        floor: what a penalty never pulls a reward below.
    """
    penalised = reward - weight * cost
    return penalised if floor is None else np.maximum(penalised, np.minimum(reward, floor))


__all__ = [
    "MOST_FLOPS",
    "as_whole",
    "cost_shares",
    "exit_costs",
    "penalised_reward",
    "relative_costs",
    "validate_cost",
    "validate_flops",
    "whole",
]
