"""How large a network is, as a multilinear function of the sizes of its layers: parameters, and products of one row.

Sizes may be whole numbers, fractions or tensors, so that one formula counts the parameters of a network, gives their
expectation where each unit is there with a probability of its own (the sizes are then sums of these probabilities, of
units that are drawn independently), and is differentiated by autograd. Source: "Online Training and Pruning of Deep
Reinforcement Learning Networks" (XiNet).
"""

import itertools
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from budget_wrappers.errors import ConfigError

Size: TypeAlias = int | float | Tensor
"""A number of units: whole, expected, or a tensor of no dimensions."""


def layer_cost(inputs: Size, outputs: Size, bias: bool = True) -> Size:
    """Return the parameters of a linear layer, ``(inputs + 1)·outputs`` with its bias.

    Args:
        inputs: that it reads.
        outputs: its units.
        bias: whether it has one.
    """
    return (inputs + 1) * outputs if bias else inputs * outputs


def layer_flops(inputs: Size, outputs: Size) -> Size:
    """Return the FLOPs of a linear layer for one row, ``2·inputs·outputs``: the ``matmul`` convention.

    Args:
        inputs: that it reads.
        outputs: its units.
    """
    return 2 * inputs * outputs


def feedforward_cost(widths: Sequence[Size]) -> Size:
    """Return the parameters of a perceptron, ``Σ_l (w_{l−1} + 1)·w_l``.

    Args:
        widths: from the input, which is not a layer, to the output.

    Raises:
        ConfigError: fewer than two.

    Example:
        >>> feedforward_cost((5.5, 2.5, 1.5, 4))
        31.5
    """
    if len(widths) < 2:
        raise ConfigError(f"widths={widths!r}: expected those of the input and of one layer at least")
    return sum(layer_cost(before, after) for before, after in itertools.pairwise(widths))


def dense_width(inputs: Size, widths: Sequence[Size]) -> Size:
    """Return the width of what a dense net says: its input and the units of every layer, side by side."""
    return sum(widths, inputs)


def dense_cost(inputs: Size, widths: Sequence[Size]) -> Size:
    """Return the parameters of a dense net, ``Σ_l [(n + Σ_{i<l} w_i)·w_l + 3·w_l + (n + Σ_{i<l} w_i)]``.

    Every layer reads the input and all layers before it. It has a matrix, for each unit a bias and two constants of a
    batch norm, and a diagonal on what it passes through.

    Args:
        inputs: n.
        widths: of the layers; none leaves the input as it is, without parameters.
    """
    cost: Size = 0
    for number, width in enumerate(widths):
        through = dense_width(inputs, widths[:number])
        cost = cost + through * width + 3 * width + through
    return cost


__all__ = ["Size", "dense_cost", "dense_width", "feedforward_cost", "layer_cost", "layer_flops"]
