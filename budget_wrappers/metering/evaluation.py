"""Evaluation mode around acting: dropout is off, and batch statistics are read and not written."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*roots: object) -> Iterator[None]:
    """Run modules in evaluation mode, and put every part of them back into the mode that it was in.

    The flag of each part is set directly: ``train()`` of some classes does more than set it (it merges the weights of
    adapters), and would put all parts into one mode, where a frozen part may be in another.

    Args:
        roots: modules, with everything inside them; other objects are left alone.
    """
    switched = [part for root in roots if isinstance(root, nn.Module) for part in root.modules() if part.training]
    for part in switched:
        part.training = False
    try:
        yield
    finally:
        for part in switched:
            part.training = True


_SAME_IN_BOTH_MODES = (
    nn.Linear, nn.Bilinear, nn.Identity, nn.Flatten, nn.Unflatten, nn.Embedding, nn.Sequential, nn.ModuleList,
    nn.ModuleDict, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Softplus, nn.Softmax, nn.LogSoftmax, nn.LayerNorm, nn.RMSNorm,
    nn.GroupNorm, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


def mode_dependent(root: nn.Module) -> tuple[nn.Module, ...]:
    """Return the parts of ``root`` that may compute something else in training mode.

    Dropout and batch normalisation do; of a class that torch does not define it is unknown, so it counts as one.
    """
    return tuple(part for part in root.modules() if type(part) not in _SAME_IN_BOTH_MODES)


__all__ = ["evaluating", "mode_dependent"]
