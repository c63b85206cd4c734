"""What each row of a forward cost that ran other operators for some rows than for others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from budget_wrappers.core import Convention
from budget_wrappers.metering.counting import count_flops
from budget_wrappers.metering.rows import UNKNOWN


def count_each_row(
    module: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any],
    rows: int,
    flops: int,
    convention: Convention,
    random: bool = False,
) -> np.ndarray | None:
    """Run each row by itself and return its FLOPs.

    Args:
        module: what has just run on all rows.
        args: of that call.
        kwargs: of that call.
        rows: how many.
        flops: what it cost.
        convention: what one FLOP count holds.
        random: whether it has drawn random numbers, so that a row by itself may go another way.

    Returns:
        FLOPs of each row, ``(rows,)`` int64, where they sum to ``flops``; ``None`` where all rows cost the same, with
        or without a share in what is computed once for all, which then was less than the rows by themselves; else
        ``UNKNOWN``.
    """
    if not any(tensor.shape[:1] == (rows,) for tensor in _tensors(args, kwargs)):
        return UNKNOWN
    each = np.empty(rows, np.int64)
    for row in range(rows):
        own, own_kwargs = tree_map(lambda leaf, row=row: _one(leaf, row, rows), (tuple(args), dict(kwargs)))
        each[row] = count_flops(module, *own, convention=convention, example_kwargs=own_kwargs)
    total = int(each.sum())
    if (each == each[0]).all() and (total == flops or (total > flops and not random)):
        return None
    return each if total == flops and not random else UNKNOWN


def _one(leaf: Any, row: int, rows: int) -> Any:
    return leaf[row : row + 1] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == rows else leaf


def _tensors(args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, (tuple(args), dict(kwargs)))
    return found


__all__ = ["count_each_row"]
