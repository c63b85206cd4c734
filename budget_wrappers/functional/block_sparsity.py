"""Masks of whole blocks: weights go in strips of neighbouring outputs, which a kernel can skip at once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from budget_wrappers.arguments import a_count, an_instance, refuse
from budget_wrappers.errors import ConfigError

BLOCK = (16, 1)
"""16 outputs of 1 input: what one vector instruction of 512 bits multiplies in float32."""


def block_mask(weight: Tensor, count: int, mask: Tensor, block: Sequence[int] = BLOCK) -> Tensor:
    """Return a mask of whole blocks, at most ``count`` of it 0, that only grows.

    ``score(block) = Σ |w·m| / size`` ranks the blocks, the least first, and of equal scores the first. They go in this
    order as long as they fit into ``count``. The size is the number of places in the block, 16 but at the edge: by
    their sums alone the short blocks of the last outputs would go first, and these outputs would lose all inputs.

    Args:
        weight: ``(outputs, inputs)``.
        count: of zeros. The mask has more than ``count − block`` of them where a whole block was left to take, and
            never more; a mask with as many already is returned as it is.
        mask: of 0 and 1, the shape of ``weight``: its zeros stay.
        block: outputs and inputs of a block. Where a size of the weight is no multiple, the last blocks are smaller.

    Raises:
        ConfigError: a weight of another rank, a mask of another shape, a count that is negative or above the number of
            weights, or a block without outputs or inputs.
    """
    an_instance("weight", weight, Tensor, "a weight of a linear layer, (outputs, inputs)")
    an_instance("mask", mask, Tensor, "a mask, the shape of the weight")
    if weight.dim() != 2 or mask.shape != weight.shape:
        raise ConfigError(
            f"a weight of shape {tuple(weight.shape)} and a mask of shape {tuple(mask.shape)}: expected (outputs, "
            "inputs) of both; magnitude_mask takes weights of any shape"
        )
    count = a_count("count", count, 0, weight.numel())
    if not isinstance(block, tuple | list) or len(block) != 2:
        refuse("block", block, "outputs and inputs of a block, such as (16, 1)")
    high, wide = (a_count("block", size, 1) for size in block)
    zeros = int((mask == 0).sum())
    if zeros >= count:
        return mask
    alive = mask != 0
    sizes = _block_sums(torch.ones_like(weight, dtype=torch.float64), high, wide)
    scores = _block_sums((weight.detach().abs() * alive).double(), high, wide) / sizes
    left = _block_sums(alive.double(), high, wide).flatten().long()
    order = torch.argsort(scores.flatten(), stable=True)
    gone = torch.zeros_like(left, dtype=torch.bool)
    gone[order[zeros + left[order].cumsum(0) <= count]] = True
    gone = gone.view_as(scores).repeat_interleave(high, 0).repeat_interleave(wide, 1)
    pruned = mask.clone()
    pruned[gone[: weight.shape[0], : weight.shape[1]]] = 0
    return pruned


def _block_sums(values: Tensor, high: int, wide: int) -> Tensor:
    """Return the sum of each block, ``(⌈outputs/high⌉, ⌈inputs/wide⌉)``."""
    rows, columns = values.shape
    whole = pad(values, (0, -columns % wide, 0, -rows % high))
    return whole.view(whole.shape[0] // high, high, whole.shape[1] // wide, wide).sum((1, 3))


__all__ = ["BLOCK", "block_mask"]
