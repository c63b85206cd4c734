"""Widths of a plain network that acts at given FLOPs: the control that every way to save compute has to beat."""

import itertools
from collections.abc import Callable

from budget_wrappers.errors import ConfigError

WITHIN = 0.02
"""Share by which the FLOPs found may miss those asked for."""


def flops_of(widths: tuple[int, ...], inputs: int, outputs: int) -> int:
    """Return the FLOPs of a forward of a perceptron, ``Σ 2·in·out`` (matmul convention)."""
    return sum(2 * before * after for before, after in itertools.pairwise([inputs, *widths, outputs]))


def outputs_of(measure: Callable[[tuple[int, ...]], int], inputs: int) -> int:
    """Return how many outputs act, given what an agent of one unit costs: ``2·(inputs + outputs)``."""
    return measure((1,)) // 2 - inputs


def fitting_widths(target: float, inputs: int, outputs: int, layers: int) -> tuple[int, ...]:
    """Return widths of at most ``layers`` hidden layers whose forward costs nearest to ``target`` FLOPs.

    Of those within 2 % the most even ones are taken. Where one unit a layer costs more already, there are fewer layers;
    none at all is a linear map.

    Args:
        target: FLOPs of one action.
        inputs: numbers in an observation.
        outputs: numbers that the last layer says.
        layers: hidden layers at most.

    Raises:
        ConfigError: a target that is no positive number.
    """
    if not 0 < target < float("inf"):
        raise ConfigError(f"target={target!r}: expected the FLOPs of one action, above 0; measure the method first")
    found: list[tuple[float, int, tuple[int, ...]]] = []
    for count in range(layers, -1, -1):
        for widths in _candidates(target, inputs, outputs, count):
            missed = abs(flops_of(widths, inputs, outputs) / target - 1)
            uneven = max(widths) - min(widths) if widths else 0
            found.append((missed, uneven, widths))
        if found and min(missed for missed, _, _ in found) <= WITHIN:
            break
    near = [one for one in found if one[0] <= WITHIN] or [min(found)]
    return min(near, key=lambda one: (one[1], one[0]))[2]


def _candidates(target: float, inputs: int, outputs: int, layers: int) -> list[tuple[int, ...]]:
    """Return widths near ``target``: all layers but one of equal width, and the one whatever fits best."""
    if layers == 0:
        return [()]
    even = 1
    while flops_of((even + 1,) * layers, inputs, outputs) <= target:
        even += 1
    found = []
    for width in range(max(even - even // 4 - 1, 1), even + even // 4 + 2):
        for place in range(layers):
            around = [width] * layers
            around[place] = 0
            rest = flops_of(tuple(around), inputs, outputs)
            around[place] = 1
            unit = flops_of(tuple(around), inputs, outputs) - rest
            around[place] = max(round((target - rest) / unit), 1)
            found.append(tuple(around))
    return found
