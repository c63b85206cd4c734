"""The state of any torch optimizer after units were removed: moments stay with the weights that stay."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.surgery import Kept


@torch.no_grad()
def follow_removal(optimizer: torch.optim.Optimizer, kept: Kept) -> None:
    """Cut the state of ``optimizer`` to what is left of its parameters, in place.

    Every tensor of a parameter's former shape is cut as the parameter was: both moments of Adam, the momentum of SGD,
    the averages of RMSprop. Counters of steps stay. The groups keep their parameters, which are the same objects.
    A second call with the same record changes nothing.

    Args:
        optimizer: of ``torch.optim``, or one that keeps its state as those do.
        kept: what is left of each parameter, as ``remove_units`` tells; parameters of others are passed over.

    Raises:
        ConfigError: a tensor of another shape, which cannot be cut.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if parameter in kept and state:
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape != parameter.shape and value.dim() > 0:
                        state[name] = _cut(optimizer, name, value, parameter, kept[parameter])


def _cut(
    optimizer: torch.optim.Optimizer, name: str, value: Tensor, parameter: Tensor, kept: tuple[tuple[int, Tensor], ...]
) -> Tensor:
    cut = value
    for dimension, index in kept:
        if cut.dim() != parameter.dim() or cut.shape[dimension] <= int(index[-1]):
            raise _unknown(optimizer, name, value)
        cut = cut.index_select(dimension, index)
    if cut.shape != parameter.shape:
        raise _unknown(optimizer, name, value)
    return cut


def require_followable(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Raise unless all that ``optimizer`` keeps of ``parameters`` can be cut with them.

    Raises:
        ConfigError: it keeps lists, or tensors of other shapes than the parameters'.
    """
    for parameter in parameters:
        for name, value in optimizer.state.get(parameter, {}).items():
            scalar = value is None or isinstance(value, int | float | str)
            tensor = isinstance(value, Tensor) and (value.dim() == 0 or value.shape == parameter.shape)
            if not scalar and not tensor:
                raise _unknown(optimizer, name, value)


def _unknown(optimizer: torch.optim.Optimizer, name: str, value: Any) -> ConfigError:
    what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return ConfigError(
        f"{type(optimizer).__name__} keeps {name!r}, {what}, for a parameter of another shape: expected one number, or "
        "one number for each weight, which can be removed with it; use Adam, AdamW, SGD or RMSprop"
    )


__all__ = ["follow_removal", "require_followable"]
