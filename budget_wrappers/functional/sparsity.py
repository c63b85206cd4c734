"""How sparse a network is to be, when, and in which layers: schedules, shares of layers, and masks by magnitude.

Sources: Zhu and Gupta 2017 for the polynomial schedule, in the form of "Eau De Q-Network: Adaptive Distillation of
Neural Networks in Deep RL"; Evci et al. 2020 ("Rigging the Lottery") for Erdős-Rényi-Kernel shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from budget_wrappers.arguments import a_number, refuse
from budget_wrappers.errors import ConfigError

Distribution = Literal["erk", "uniform"]
"""``"erk"``: a layer's density is in proportion to ``(inputs + outputs)/(inputs · outputs)``, at most 1, so that narrow
layers stay dense. ``"uniform"``: every layer has the sparsity of the whole."""


def polynomial_sparsity(progress: float, start: float, end: float, final: float, power: float = 3.0) -> float:
    """Return ``s = s_F·(1 − (1 − clip((t − t0)/(t1 − t0), 0, 1))^n)``.

    Args:
        progress: t, share of the run that is over.
        start: t0, where pruning begins.
        end: t1, where it is complete.
        final: s_F, share of the weights that are 0 from then on.
        power: n, 1 for a straight line; the greater, the more is pruned early.
    """
    if progress >= end:
        return final
    return final * (1.0 - (1.0 - max(progress - start, 0.0) / (end - start)) ** power)


@dataclass(frozen=True)
class PolynomialSchedule:
    """``polynomial_sparsity`` with its numbers.

    Attributes:
        start, end, final, power: see ``polynomial_sparsity``.
        prefix: of these names in messages.

    Raises:
        ConfigError: a sparsity outside [0, 1), an end outside (start, 1], a start below 0, an exponent of 0 or less.
    """

    start: float
    end: float
    final: float
    power: float = 3.0
    prefix: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            refuse("prefix", self.prefix, "text")
        for name, expected in (
            ("start", "a share of the run"),
            ("end", "a share of the run"),
            ("final", "a share of the weights in [0, 1)"),
            ("power", "an exponent above 0"),
        ):
            a_number(f"{self.prefix}{name}", getattr(self, name), expected)
        for holds, name, expected in (
            (0 <= self.final < 1, "final", "a share of the weights in [0, 1)"),
            (
                0 <= self.start < self.end <= 1,
                "start",
                f"a share of the run in [0, 1], below {self.prefix}end={self.end}",
            ),
            (self.power > 0, "power", "an exponent above 0"),
        ):
            if not holds:
                raise ConfigError(f"{self.prefix}{name}={getattr(self, name)!r}: expected {expected}")

    def counts(self, shapes: Sequence[tuple[int, ...]], progress: float, distribution: Distribution) -> list[int]:
        """Return how many weights of each layer are 0: of the shares at the end, what the schedule has reached.

        Args:
            shapes: of the weights, ``(outputs, inputs)`` each.
            progress: share of the run that is over.
            distribution: see ``layer_sparsities``.
        """
        reached = polynomial_sparsity(progress, self.start, self.end, 1.0, self.power)
        return pruned_counts(shapes, layer_sparsities(shapes, self.final, distribution), reached)


def layer_sparsities(shapes: Sequence[tuple[int, ...]], sparsity: float, distribution: Distribution) -> list[float]:
    """Return the sparsity of each layer, such that all of them together have ``sparsity``.

    Args:
        shapes: of the weights, ``(outputs, inputs)`` each.
        sparsity: share of all weights that are 0, in [0, 1).
        distribution: see ``Distribution``.

    Raises:
        ConfigError: no layer, another distribution, or a sparsity outside [0, 1).
    """
    a_number("sparsity", sparsity, "a share of the weights in [0, 1)", lambda share: 0 <= share < 1)
    if not isinstance(shapes, list | tuple) or not shapes or not all(_is_shape(shape) for shape in shapes):
        refuse("shapes", shapes, "one (outputs, inputs) a layer, at least one of them")
    if isinstance(distribution, str) and distribution == "uniform":
        return [sparsity] * len(shapes)
    if not isinstance(distribution, str) or distribution != "erk":
        raise ConfigError(f"distribution={distribution!r}: expected 'erk' or 'uniform'")
    sizes = [outputs * inputs for outputs, inputs in shapes]
    raw = [(outputs + inputs) / (outputs * inputs) for outputs, inputs in shapes]
    dense: set[int] = set()
    while True:
        # Σ_l density_l·size_l = (1 − s)·Σ_l size_l with density 1 in the dense layers and ε·raw_l in the others.
        left = (1.0 - sparsity) * sum(sizes) - sum(sizes[layer] for layer in dense)
        others = [layer for layer in range(len(sizes)) if layer not in dense]
        scale = left / sum(raw[layer] * sizes[layer] for layer in others)
        full = [layer for layer in others if scale * raw[layer] >= 1.0]
        if not full or len(full) == len(others):
            return [0.0 if layer in dense else max(1.0 - scale * raw[layer], 0.0) for layer in range(len(sizes))]
        # One at a time, the densest first: together they could take more than is left.
        dense.add(max(full, key=lambda layer: raw[layer]))


def _is_shape(shape: Sequence[int]) -> bool:
    return isinstance(shape, tuple | list) and len(shape) == 2 and all(size >= 1 for size in shape)


def pruned_counts(shapes: Sequence[tuple[int, ...]], final: Sequence[float], share: float) -> list[int]:
    """Return how many weights of each layer are 0 where the whole has ``share`` of its final sparsity.

    Args:
        shapes: of the weights.
        final: sparsity of each layer at the end.
        share: of it, in [0, 1].
    """
    return [round(share * own * outputs * inputs) for own, (outputs, inputs) in zip(final, shapes, strict=True)]


def magnitude_mask(weight: Tensor, count: int, mask: Tensor) -> Tensor:
    """Return a mask, 0 at the ``count`` weights of the least magnitude and 1 elsewhere, that only grows.

    Args:
        weight: any shape.
        count: of zeros; a mask with more of them already is returned as it is.
        mask: of 0 and 1, the shape of ``weight``: its zeros stay.
    """
    if int((mask == 0).sum()) >= count:
        return mask
    magnitude = torch.where(mask == 0, -1.0, weight.detach().abs()).flatten()
    pruned = torch.ones_like(magnitude, dtype=mask.dtype)
    # Stable: of equal magnitudes the first ones go, on every machine.
    pruned[torch.argsort(magnitude, stable=True)[:count]] = 0
    return pruned.view_as(mask)


__all__ = [
    "Distribution",
    "PolynomialSchedule",
    "layer_sparsities",
    "magnitude_mask",
    "polynomial_sparsity",
    "pruned_counts",
]
