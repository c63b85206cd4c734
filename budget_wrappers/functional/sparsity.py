"""How sparse a network is to be, when, and in which layers: schedules, shares of layers, and masks by magnitude.

Sources: Zhu and Gupta 2017 for the polynomial schedule, in the form of "Eau De Q-Network: Adaptive Distillation of
Neural Networks in Deep RL", which also explores sparsities; Evci et al. 2020 ("Rigging the Lottery") for
Erdős-Rényi-Kernel shares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from budget_wrappers.arguments import a_number, refuse
from budget_wrappers.errors import ConfigError

Distribution = Literal["erk", "uniform", "global"]
"""``"erk"``: a layer's density is in proportion to ``(inputs + outputs)/(inputs · outputs)``, at most 1, so that narrow
layers stay dense; of a convolution the sizes of its kernel join the sum and the product. ``"uniform"``: every layer has
the sparsity of the whole. ``"global"``: the weights of the least magnitude of all layers go."""
DISTRIBUTIONS = get_args(Distribution)


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


def explored_sparsity(sparsity: float, step: float, next_step: float, end: float, draw: float, cap: float) -> float:
    """Return ``s' = s + min((1 − s)/(end − t)·(t' − t)·U, (1 − s)·S_max)``: a straight line to 1, U times as steep.

    From the end on it is ``s``.

    Args:
        sparsity: s, in [0, 1).
        step: t, now.
        next_step: t', when sparsities are drawn again.
        end: when the last ones are drawn, in the unit of ``step``.
        draw: U, 0 or more.
        cap: S_max, the largest share of what is left that goes at once.
    """
    if step >= end:
        return sparsity
    left = 1.0 - sparsity
    return sparsity + min(left / (end - step) * (next_step - step) * draw, left * cap)


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

    def reached(self, progress: float) -> float:
        """Return the share of the final sparsity that is reached; see ``polynomial_sparsity``."""
        return polynomial_sparsity(progress, self.start, self.end, 1.0, self.power)


def layer_sparsities(shapes: Sequence[tuple[int, ...]], sparsity: float, distribution: Distribution) -> list[float]:
    """Return the sparsity of each layer, such that all of them together have ``sparsity``.

    Args:
        shapes: of the weights, ``(outputs, inputs)`` each, of a convolution with the sizes of its kernel.
        sparsity: share of all weights that are 0, in [0, 1).
        distribution: see ``Distribution``.

    Raises:
        ConfigError: no layer, another distribution or the global one, which depends on the weights, or a sparsity
            outside [0, 1).
    """
    a_number("sparsity", sparsity, "a share of the weights in [0, 1)", lambda share: 0 <= share < 1)
    if not isinstance(shapes, list | tuple) or not shapes or not all(_is_shape(shape) for shape in shapes):
        refuse("shapes", shapes, "one (outputs, inputs) a layer, at least one of them")
    if isinstance(distribution, str) and distribution == "uniform":
        return [sparsity] * len(shapes)
    if not isinstance(distribution, str) or distribution != "erk":
        raise ConfigError(
            f"distribution={distribution!r}: expected 'erk' or 'uniform', which depend on the layers' shapes alone; "
            "global_counts has the share of each layer by the weights"
        )
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
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
    return isinstance(shape, tuple | list) and len(shape) >= 2 and all(size >= 1 for size in shape)


def pruned_counts(shapes: Sequence[tuple[int, ...]], final: Sequence[float], share: float = 1.0) -> list[int]:
    """Return how many weights of each layer are 0 where the whole has ``share`` of its final sparsity.

    Args:
        shapes: of the weights.
        final: sparsity of each layer at the end.
        share: of it, in [0, 1]. One weight of each layer stays at least.
    """
    sizes = [math.prod(shape) for shape in shapes]
    return [min(round(share * own * size), size - 1) for own, size in zip(final, sizes, strict=True)]


def kept_counts(shapes: Sequence[tuple[int, ...]], sparsity: float, distribution: Distribution) -> list[int]:
    """Return how many weights of each layer stay at a sparsity of the whole; see ``layer_sparsities``."""
    pruned = pruned_counts(shapes, layer_sparsities(shapes, sparsity, distribution))
    return [math.prod(shape) - count for shape, count in zip(shapes, pruned, strict=True)]


def global_counts(weights: Sequence[Tensor], sparsity: float, masks: Sequence[Tensor]) -> list[int]:
    """Return how many weights of each layer are 0 where those of the least magnitude of all layers go.

    Args:
        weights: of the layers.
        sparsity: share of all weights that are 0, in [0, 1).
        masks: of the layers: their zeros go first. The largest weight of each layer stays.
    """
    a_number("sparsity", sparsity, "a share of the weights in [0, 1)", lambda share: 0 <= share < 1)
    ranked = []
    for weight, mask in zip(weights, masks, strict=True):
        magnitude = torch.where(mask == 0, -1.0, weight.detach().abs()).flatten()
        magnitude[magnitude.argmax()] = math.inf
        ranked.append(magnitude)
    every = torch.cat(ranked)
    count = min(round(sparsity * len(every)), len(every) - len(ranked))
    gone = torch.zeros(len(every), dtype=torch.bool, device=every.device)
    gone[torch.argsort(every, stable=True)[:count]] = True
    return [int(own.sum()) for own in gone.split([len(magnitude) for magnitude in ranked])]


def magnitude_masks(
    weights: Sequence[Tensor], sparsity: float, masks: Sequence[Tensor], distribution: Distribution
) -> list[Tensor]:
    """Return the masks of several layers at a sparsity of the whole, each ranked inside the old one.

    Args:
        weights: of the layers.
        sparsity: share of all weights that are 0, in [0, 1).
        masks: of the layers: their zeros stay.
        distribution: see ``Distribution``.
    """
    shapes = [tuple(weight.shape) for weight in weights]
    if distribution == "global":
        counts = global_counts(weights, sparsity, masks)
    else:
        counts = pruned_counts(shapes, layer_sparsities(shapes, sparsity, distribution))
    return [magnitude_mask(*own) for own in zip(weights, counts, masks, strict=True)]


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
    "DISTRIBUTIONS",
    "Distribution",
    "PolynomialSchedule",
    "explored_sparsity",
    "global_counts",
    "kept_counts",
    "layer_sparsities",
    "magnitude_mask",
    "magnitude_masks",
    "polynomial_sparsity",
    "pruned_counts",
]
