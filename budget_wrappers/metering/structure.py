"""What a module's FLOPs follow from beside its inputs' shapes: its layers, their weights, hooks and settings."""

from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import nn

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

_shape_of = attrgetter("shape")
_convolution = attrgetter("stride", "padding", "dilation", "groups", "kernel_size")


class Structure:
    """A picture of a module to compare it with at every forward, through whatever door it was changed.

    Args:
        module: a module, with everything inside.
    """

    __slots__ = ("_convolutions", "_dicts", "_kinds", "_modules", "_parameters", "_settings", "_shapes", "_sizes",
                 "_values", "_wholes")  # fmt: skip

    def __init__(self, module: nn.Module) -> None:
        self._modules = list(module.modules())
        self._kinds = list(map(type, self._modules))
        # The first say what there is, and the values of the others are what counts.
        self._wholes = [
            part
            for one in self._modules
            for part in (one.__dict__, one._modules, one._parameters, one._forward_hooks, one._forward_pre_hooks)
        ]
        self._sizes = list(map(len, self._wholes))
        self._dicts = [part for one in self._modules for part in (one._modules, one._parameters) if part]
        self._values = list(chain.from_iterable(map(dict.values, self._dicts)))
        self._parameters = [
            parameter for one in self._modules for parameter in one._parameters.values() if parameter is not None
        ]
        self._shapes = list(map(_shape_of, self._parameters))
        self._convolutions = [one for one in self._modules if isinstance(one, nn.modules.conv._ConvNd)]
        self._settings = list(map(_convolution, self._convolutions))

    def holds(self) -> bool:
        """Tell whether the module is still what it was."""
        return (
            list(map(len, self._wholes)) == self._sizes
            and all(map(is_, chain.from_iterable(map(dict.values, self._dicts)), self._values))
            and list(map(_shape_of, self._parameters)) == self._shapes
            and list(map(type, self._modules)) == self._kinds
            and (not self._convolutions or list(map(_convolution, self._convolutions)) == self._settings)
        )


def is_static(module: nn.Module) -> bool:
    """Tell whether the FLOPs of ``module`` are known to follow from the shapes of its inputs."""
    if "forward" in vars(module) or not all(getattr(hook, OURS, False) for hook in _hooks(module)):
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
