"""Costs of K sub-policies: what is legal, and the three units that a cost may be read in. Pure numpy, shape ``(K,)``.

Units are never mixed: raw FLOPs; ``share`` (of the dearest); ``relative`` (to the cheapest, the unit of an option's
penalty weight); ``exit`` (0 for the cheapest, 1 for the dearest, the unit of an early-exit budget).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from budget_wrappers.errors import CostError


def validate_cost(cost: float, name: str = "cost") -> float:
    """Return ``cost`` when it is finite and not negative.

    Args:
        cost: one cost, in any unit.
        name: what the error message calls it.

    Raises:
        CostError: ``cost`` is NaN, infinite or negative.
    """
    if not math.isfinite(cost) or cost < 0:
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
        CostError: there is none, or one is NaN, infinite, negative or not whole.
    """
    values = np.asarray(flops, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise CostError(f"{name} has shape {values.shape}; expected (K,) with K >= 1, one number a sub-policy.")
    for index, value in enumerate(values):
        validate_cost(float(value), f"{name}[{index}]")
        if value != math.floor(value):
            raise CostError(f"{name}[{index}] is {float(value)!r}; expected a whole number of FLOPs. Round it up.")
    # from the original numbers: float64 holds integers exactly only up to 2**53
    return np.asarray([int(value) for value in np.asarray(flops).tolist()], dtype=np.int64)


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


__all__ = ["cost_shares", "exit_costs", "penalised_reward", "relative_costs", "validate_cost", "validate_flops"]
