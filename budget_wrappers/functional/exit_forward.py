"""All exits of a perceptron as one node of the autograd graph: fewer dispatches, the same numbers.

At the sizes of control policies an eager backward pass through K exits is mostly bookkeeping. ``B`` rows, ``K`` exits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from budget_wrappers.functional.one_node import IN_PLACE, back_through_activation, transformed


def exit_outputs(
    x: Tensor, activation: str, stages: Sequence[int], outputs: int, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what every exit and every gate says, differentiable once; any number of times under ``torch.func``.

    Args:
        x: shape ``(B, inputs)``.
        activation: ``"relu"`` or ``"tanh"``, after each hidden layer.
        stages: hidden layers before each exit and after the one before it, ``K`` numbers.
        outputs: size of each exit's output.
        parameters: weight and bias of each layer, stage by stage, an exit's after those of its stage; the row after
            its outputs is an exit's gate.

    Returns:
        ``(K, B, outputs)`` and the gates' logits, ``(B, K − 1)``.
    """
    if torch.is_grad_enabled() and not transformed():
        return _EveryExit.apply(x, activation, tuple(stages), outputs, *parameters)
    return _evaluate(x, activation, stages, outputs, parameters, [])


def _evaluate(
    x: Tensor, activation: str, stages: Sequence[int], outputs: int, parameters: Sequence[Tensor], keep: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the same; what each layer was given is appended to ``keep``."""
    f, given = IN_PLACE[activation], iter(parameters)
    said = []
    for layers in stages:
        for _ in range(layers):
            keep.append(x)
            x = f(linear(x, next(given), next(given)))
        keep.append(x)
        said.append(linear(x, next(given), next(given)))
    return torch.stack([part[:, :outputs] for part in said]), torch.cat([part[:, outputs:] for part in said], 1)


class _EveryExit(torch.autograd.Function):
    """``exit_outputs`` with its derivatives written out."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activation: str, stages: tuple[int, ...], outputs: int, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs: list[Tensor] = []
        result = _evaluate(x, activation, stages, outputs, parameters, inputs)
        ctx.activation, ctx.stages = activation, stages
        ctx.save_for_backward(*inputs, *parameters[::2])
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_output: Tensor, to_logits: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked once: checkpointing allows no more
        inputs, weights = list(saved[: len(saved) // 2]), list(saved[len(saved) // 2 :])
        gradients: list[Tensor] = []
        flowing: Tensor | None = None  # dL/d(what an exit and the stage behind it were given)
        for number in reversed(range(len(ctx.stages))):
            gradient = to_output[number]
            if number < len(ctx.stages) - 1:
                gradient = torch.cat([gradient, to_logits[:, number : number + 1]], 1)
            x, weight = inputs.pop(), weights.pop()
            gradients += [gradient.sum(0), gradient.t() @ x]
            if inputs or ctx.needs_input_grad[0]:
                flowing = gradient @ weight if flowing is None else torch.addmm(flowing, gradient, weight)
            for _ in range(ctx.stages[number]):
                flowing = back_through_activation(flowing, x, ctx.activation)
                x, weight = inputs.pop(), weights.pop()
                gradients += [flowing.sum(0), flowing.t() @ x]
                flowing = flowing @ weight if inputs or ctx.needs_input_grad[0] else flowing
        return flowing if ctx.needs_input_grad[0] else None, None, None, None, *gradients[::-1]


__all__ = ["exit_outputs"]
