"""What perceptrons that are one node of the autograd graph share: activations, derivatives, and when to be none."""

from collections.abc import Callable

import torch
from torch import Tensor

IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}
"""Activations by name; each overwrites what it is given."""
_RELU_BACKWARD = torch.ops.aten.threshold_backward.grad_input
_TANH_BACKWARD = torch.ops.aten.tanh_backward.grad_input


def back_through_activation(into: Tensor, output: Tensor, activation: str) -> Tensor:
    """Turn dL/d(what the activation gave), in place, into dL/d(what it got), and return it.

    Args:
        into: dL/d(what it gave), of any shape.
        output: what it gave, the same shape.
        activation: its name.
    """
    if activation == "relu":
        return _RELU_BACKWARD(into, output, 0, grad_input=into)
    return _TANH_BACKWARD(into, output, grad_input=into)


def transformed() -> bool:
    """Return whether ``torch.func`` (``grad``, ``vmap``, ``jvp``, …) transforms what runs now.

    A node with a derivative of its own lacks the rules that these need; plain operations have them all.
    """
    return torch._C._are_functorch_transforms_active()  # what autograd.Function asks; torch has no public way


__all__ = ["IN_PLACE", "back_through_activation", "transformed"]
