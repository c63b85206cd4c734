"""Units that are there by chance: drawing them, and deciding in the end which stay.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks" (XiNet). Each hidden unit k is multiplied
by ``ξ_k ~ Bernoulli(θ_k)``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError


class _StraightThrough(torch.autograd.Function):
    """``ξ = [u < θ]``, whose derivative is taken to be that of the identity."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, uniform: Tensor) -> Tensor:
        return (uniform < theta).to(theta.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def draw_units(theta: Tensor, uniform: Tensor) -> Tensor:
    """Return ``ξ ~ Bernoulli(θ)``, 0 or 1, with the straight-through derivative: ``∂L/∂θ`` is ``∂L/∂ξ`` at the draw.

    The mean of that estimate is the derivative of the expected loss where the loss is linear in each ξ. Where it is
    quadratic, ``b·ξ² + …``, the mean is off by ``b·(2θ − 1)``: the derivative sees the curve at 0 and at 1, the
    expected loss only its two ends.

    Args:
        theta: θ, probabilities, shape ``(n,)``.
        uniform: uniform in [0, 1), the same shape; a unit of θ = 1 is always drawn, one of θ = 0 never.
    """
    return _StraightThrough.apply(theta, uniform)


def keep_within(
    thetas: Sequence[Tensor],
    cost: Callable[[Sequence[int]], float],
    limit: float | None = None,
    least: int = 1,
    threshold: float = 0.5,
    alike: Sequence[Sequence[int]] = (),
    floor: float = 0.0,
) -> list[Tensor]:
    """Return which units stay: those of ``θ ≥ threshold``, less the smallest θ until the cost is within a limit.

    Args:
        thetas: of each layer, ``(n_l,)``.
        cost: of a network whose layers have the numbers of units it is given; it grows with each of them.
        limit: of the cost, ``None`` for none.
        least: units that a layer keeps at least, those of its largest θ; 0 where a layer may vanish.
        threshold: a layer's units of a smaller θ go in any case, but for ``least`` of them.
        alike: numbers of layers that have to keep as many units as each other, each its own best.
        floor: of the cost: units below the threshold stay, too, the largest θ first, until the cost is that much.

    Returns:
        Ascending indices of each layer, int64. Of units with the same θ the first stay.

    Raises:
        InfeasibleBudgetError: the smallest network costs more than the limit; the message has its cost.
        ConfigError: layers that are to keep as many units and have different numbers of them.
    """
    order = [torch.argsort(theta.detach(), descending=True, stable=True) for theta in thetas]
    ranked = [theta.detach()[index].tolist() for theta, index in zip(thetas, order, strict=True)]
    members = [layer for one in alike for layer in one]
    if len(set(members)) < len(members) or not all(isinstance(n, int) and 0 <= n < len(thetas) for n in members):
        raise ConfigError(f"alike={alike!r}: expected numbers of the {len(thetas)} layers, each in one list at most")
    classes = [*map(list, alike), *([n] for n in range(len(thetas)) if not any(n in one for one in alike))]
    best = []  # of each class, what its best, second best, … units are worth, the best of its layers
    for layers in classes:
        if len({len(ranked[layer]) for layer in layers}) > 1:
            raise ConfigError(f"layers of {[len(ranked[n]) for n in layers]} units: expected as many in each")
        best.append([max(values) for values in zip(*(ranked[layer] for layer in layers), strict=True)])

    def per_layer(counts: Sequence[int]) -> list[int]:
        found = [0] * len(thetas)
        for layers, count in zip(classes, counts, strict=True):
            for layer in layers:
                found[layer] = count
        return found

    fewest = [min(least, len(values)) for values in best]
    counts = [max(sum(value >= threshold for value in own), few) for own, few in zip(best, fewest, strict=True)]
    while cost(per_layer(counts)) < floor:
        smaller = [number for number, count in enumerate(counts) if count < len(best[number])]
        if not smaller:
            break
        counts[max(smaller, key=lambda number: best[number][counts[number]])] += 1
    if limit is not None:
        if (smallest := cost(per_layer(fewest))) > limit:
            raise InfeasibleBudgetError(
                f"a limit of {limit:,.6g}: expected at least {smallest:,.6g}, what the smallest network costs, which "
                f"has {least} unit{'' if least == 1 else 's'} in each hidden layer"
            )
        while cost(per_layer(counts)) > limit:
            larger = [number for number, count in enumerate(counts) if count > fewest[number]]
            counts[min(larger, key=lambda number: best[number][counts[number] - 1])] -= 1
    return [index[:count].sort().values for index, count in zip(order, per_layer(counts), strict=True)]


RATE, MOST_RATE, TRAVELS = 3e-4, 0.05, 10.0
"""Least and largest step size of θ, and how many times the way from 1 to 0 all steps are to add up to."""


def rate_for(steps: float) -> float:
    """Return the step size with which θ can travel from 1 to 0 ten times, between 3e-4 and .05.

    Args:
        steps: that θ take while they learn.
    """
    return min(max(RATE, TRAVELS / max(steps, 1.0)), MOST_RATE)


def require_probabilities(theta: Tensor) -> None:
    """Raise unless every θ is in [0, 1].

    Raises:
        ConfigError: with the first that is not.
    """
    wrong = theta[~((theta >= 0) & (theta <= 1))]
    if len(wrong):
        raise ConfigError(f"θ = {float(wrong[0])!r}: expected probabilities in [0, 1]")


__all__ = ["RATE", "draw_units", "keep_within", "rate_for", "require_probabilities"]
