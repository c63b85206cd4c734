"""What a module's FLOPs follow from beside its inputs' shapes: its layers, their weights, hooks and settings."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Layers of torch whose FLOPs depend on more than shapes: padding that attention may drop, clusters of targets.
_DATA_DEPENDENT = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.AdaptiveLogSoftmaxWithLoss,
)

OURS = "is_budget_hook"
"""An attribute of every hook of a watch, so that it is told from others' hooks, which may run anything."""

_GLOBAL_HOOKS = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)


class Structure:
    """A picture of a module to compare it with at every forward, through whatever door it was changed.

    Args:
        module: a module, with everything inside.
    """

    __slots__ = ("_empty", "_filled", "_kinds", "_modules", "_numbers", "_readers", "_settings", "_sizes")
    __slots__ += ("_values", "_views", "_weights")

    def __init__(self, module: nn.Module) -> None:
        self._modules = list(module.modules())
        self._kinds = list(map(type, self._modules))
        parts = [
            part for one in self._modules for part in (one._modules, one._parameters, one._forward_hooks,
                                                       one._forward_pre_hooks)
        ]  # fmt: skip
        self._empty = [part for part in parts if not part]
        # What a module has beside these; a forward of its own, for one.
        self._filled = [*_GLOBAL_HOOKS] + [one.__dict__ for one in self._modules] + [part for part in parts if part]
        self._sizes = list(map(len, self._filled))
        # Layers and weights, by identity.
        self._views = [part.values() for one in self._modules for part in (one._modules, one._parameters) if part]
        self._values = list(chain.from_iterable(self._views))
        # A weight whose data was replaced is the same object. A product's FLOPs follow from how many numbers it has.
        self._weights = [value for value in self._values if isinstance(value, Tensor) and value.dim() > 1]
        self._numbers = list(map(_numel, self._weights))
        self._readers = [(attrgetter(*names), one) for one in self._modules if (names := _settings_of(one))]
        self._settings = [read(one) for read, one in self._readers]

    def holds(self) -> bool:
        """Tell whether the module is still what it was."""
        return (
            not any(self._empty)
            and list(map(len, self._filled)) == self._sizes
            and all(map(is_, chain.from_iterable(self._views), self._values))
            and list(map(_numel, self._weights)) == self._numbers
            and list(map(type, self._modules)) == self._kinds
            and (not self._readers or [read(one) for read, one in self._readers] == self._settings)
        )


def _settings_of(module: nn.Module) -> list[str]:
    """Return the attributes of one of torch's layers that its FLOPs follow from, beside its weights."""
    if not type(module).__module__.startswith("torch.nn.modules.") or isinstance(module, nn.Linear):
        return []
    names = [name for name in getattr(type(module), "__constants__", ()) if hasattr(module, name)]
    return [] if type(module).__module__.endswith((".activation", ".dropout")) else names


_numel = torch._C.TensorBase.numel


def is_static(module: nn.Module) -> bool:
    """Tell whether the FLOPs of ``module`` are known to follow from the shapes of its inputs."""
    if (
        "forward" in vars(module)
        or any(_GLOBAL_HOOKS)
        or not all(getattr(hook, OURS, False) for hook in _hooks(module))
    ):
        return False
    declared = getattr(type(module), "static_flops", None)
    if declared is not None:
        return bool(declared)
    if not type(module).__module__.startswith("torch.nn.modules.") or isinstance(module, _DATA_DEPENDENT):
        return False
    return all(map(is_static, module.children()))


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield from module._forward_hooks.values()
    yield from module._forward_pre_hooks.values()


__all__ = ["OURS", "Structure", "is_static"]
