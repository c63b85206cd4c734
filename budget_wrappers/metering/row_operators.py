"""Operators by which one row of a batch may come to run what another does not, and those that run on all rows."""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

# Operators whose output's shape, or whose result in Python, depends on values.
BY_DATA = frozenset(
    overload
    for name in (
        *("nonzero", "masked_select", "_local_scalar_dense", "index", "_unique2", "unique_dim", "bincount", "equal"),
        *("unique_consecutive", "repeat_interleave", "argwhere", "nonzero_numpy", "is_nonzero", "masked_scatter"),
    )
    if hasattr(torch.ops.aten, name)
    for packet in [getattr(torch.ops.aten, name)]
    for overload in (getattr(packet, which) for which in packet.overloads())
)


def reads_data(func: OpOverload, args: tuple[Any, ...]) -> bool:
    """Tell whether the operator does depend on values: an index of numbers picks as many rows as it has."""
    if func.overloadpacket is not torch.ops.aten.index:
        return True
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


# Recurrent layers, whose first dimension may be time: they run on the whole batch.
WHOLE_BATCH = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_cudnn_rnn", "_thnn_fused_lstm_cell")
    if hasattr(torch.ops.aten, name)
)

__all__ = ["BY_DATA", "WHOLE_BATCH", "reads_data"]
