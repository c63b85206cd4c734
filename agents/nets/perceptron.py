"""The passes of perceptrons as single nodes of the autograd graph, with their derivatives written out.

A stack of ``Linear`` and activation is one node instead of four a layer. At the sizes of control policies (batch 256,
2×256) a third of an eager update's time is dispatch, which this removes; the matrix products themselves are torch's.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from budget_wrappers.functional.one_node import IN_PLACE, back_through_activation


class _Scratch(threading.local):
    """Two matrices of each width, handed out in turn for what does not outlive one forward or backward pass.

    Fresh memory is cold memory: for matrices of 256×256 writing into it takes longer than an activation's arithmetic.
    """

    def __init__(self) -> None:
        self._matrices: dict[tuple[int, torch.dtype, torch.device, int], Tensor] = {}
        self._turn = 0

    def next(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Return an uninitialised ``(rows, columns)``, not the one handed out last."""
        self._turn ^= 1
        key = columns, like.dtype, like.device, self._turn
        matrix = self._matrices.get(key)
        if matrix is None or matrix.shape[0] < rows:
            with torch.inference_mode(False):  # or it could be written to in that mode only
                matrix = self._matrices[key] = like.new_empty(rows, columns)
        return matrix if matrix.shape[0] == rows else matrix[:rows]


_scratch = _Scratch()


def evaluate(x: Tensor, activation: str, parameters: Sequence[Tensor], keep: list[Tensor] | None) -> Tensor:
    """Return the perceptron's output; hidden activations are appended to ``keep``, or live in scratch without it."""
    f = IN_PLACE[activation]
    for layer in range(0, len(parameters) - 2, 2):
        weight, bias = parameters[layer], parameters[layer + 1]
        if keep is None:
            x = f(linear(x, weight, bias, out=_scratch.next(x.shape[0], weight.shape[0], x)))
        else:
            keep.append(x := f(linear(x, weight, bias)))
    return linear(x, parameters[-2], parameters[-1])


def _back_through_layer(gradient: Tensor, weight: Tensor, output: Tensor, activation: str) -> Tensor:
    """Return dL/d(what the activation got) from dL/d(next layer's output); ``output`` is what the activation gave."""
    into = _scratch.next(gradient.shape[0], weight.shape[1], gradient)
    if weight.shape[0] == 1:
        torch.mul(gradient, weight, out=into)
    else:
        torch.mm(gradient, weight, out=into)
    return back_through_activation(into, output, activation)


def _back_through_weights(
    gradient: Tensor, inputs: Sequence[Tensor], weights: Sequence[Tensor], activation: str
) -> tuple[list[Tensor], Tensor]:
    """Return ``[dW_1, db_1, dW_2, …]`` and dL/d(what the first activation got) from dL/dy.

    Args:
        gradient: dL/dy, shape ``(B, outputs)``.
        inputs: of each layer.
        weights: of each layer.
        activation: between layers.
    """
    gradients: list[Tensor] = []
    for layer in reversed(range(len(weights))):
        gradients += [gradient.sum(0), _outer_sum(gradient, inputs[layer])]
        if layer > 0:
            gradient = _back_through_layer(gradient, weights[layer], inputs[layer], activation)
    return gradients[::-1], gradient


def _outer_sum(gradient: Tensor, x: Tensor) -> Tensor:
    """Return ``gradientᵀ · x``; as the transpose of ``xᵀ · gradient`` where ``x`` is narrow, in half the time."""
    if x.shape[1] < gradient.shape[1]:
        return torch.mm(x.t(), gradient).t()
    return torch.mm(gradient.t(), x)


class Perceptron(torch.autograd.Function):
    """``y = W_L · f(… f(W_1 · x + b_1) …) + b_L`` as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        inputs = [x]
        y = evaluate(x, activation, parameters, inputs)
        ctx.activation = activation
        ctx.save_for_backward(*inputs, *parameters[::2])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, activation = ctx.saved_tensors, ctx.activation
        depth = len(saved) // 2
        inputs, weights = saved[:depth], saved[depth:]
        gradients: list[Tensor | None] = [None] * (2 * depth)
        if any(ctx.needs_input_grad[2:]):
            gradients, gradient = _back_through_weights(gradient, inputs, weights, activation)
        else:
            for layer in reversed(range(1, depth)):
                gradient = _back_through_layer(gradient, weights[layer], inputs[layer], activation)
        return (gradient @ weights[0] if ctx.needs_input_grad[0] else None), None, *gradients


class SquaredError(torch.autograd.Function):
    """``½ Σ_m Σ_i mean_B (f_m(x)_i − y_i)²`` of several perceptrons ``f_m`` as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, activation: str, members: int, *parameters: Tensor) -> Tensor:
        inputs: list[Tensor] = []
        errors = []
        for own in _shares(parameters, members):
            inputs.append(x)
            errors.append(evaluate(x, activation, own, inputs).sub_(target))
        ctx.activation = activation
        ctx.save_for_backward(*errors, *inputs, *parameters[::2])
        return torch.cat(errors).square_().sum().mul_(0.5 / len(x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        depth = (len(ctx.needs_input_grad) - 4) // 2
        errors, inputs, weights = saved[: -2 * depth], saved[-2 * depth : -depth], saved[-depth:]
        scale = gradient / len(errors[0])
        gradients: list[Tensor] = []
        shares = zip(errors, _shares(inputs, len(errors)), _shares(weights, len(errors)), strict=True)
        for error, own_inputs, own_weights in shares:
            gradients += _back_through_weights(error * scale, own_inputs, own_weights, ctx.activation)[0]
        return None, None, None, None, *gradients


class SmallestValue(torch.autograd.Function):
    """Row-wise minimum of several frozen critics; backward to the action, through the critic that was smallest.

    The gradient of a minimum is 0 for every other member, so each member back-propagates the rows where it won:
    M members cost one member's backward pass. The numbers are those of ``torch.stack(...).min(0)``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, action: Tensor, heads: int, activation: str, members: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        hidden: list[Tensor] = []
        outputs = [own_head(evaluate(x, activation, parameters, hidden), heads) for parameters in members]
        smallest, winner = torch.cat(outputs, 1).min(1, keepdim=True)
        ctx.activation, ctx.members, ctx.heads, ctx.action_size = activation, len(members), heads, action.shape[1]
        weights = [weight for parameters in members for weight in parameters[::2]]
        ctx.save_for_backward(winner, *hidden, *weights)
        return smallest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        winner, *saved = ctx.saved_tensors
        split = (len(saved) - ctx.members) // 2
        to_action = None
        shares = zip(_shares(saved[:split], ctx.members), _shares(saved[split:], ctx.members), strict=True)
        for member, (hidden, weights) in enumerate(shares):
            rows = (winner.view(-1) == member).nonzero().view(-1) if ctx.members > 1 else None
            g = gradient if rows is None else gradient.index_select(0, rows)
            for layer in reversed(range(1, len(weights))):
                h = hidden[layer - 1] if rows is None else hidden[layer - 1].index_select(0, rows)
                weight = weights[layer]
                if ctx.heads > 1 and layer == len(weights) - 1:
                    every = torch.arange(len(gradient), device=g.device) if rows is None else rows
                    # The head of each row stands where an ordinary layer has one row of weights for all.
                    weight = weight.index_select(0, every * ctx.heads // len(gradient))
                    g = back_through_activation(g * weight, h, ctx.activation)
                else:
                    g = _back_through_layer(g, weight, h, ctx.activation)
            g = g @ weights[0][:, -ctx.action_size :]
            if rows is None:
                return None, g, None, None, None
            to_action = gradient.new_empty(gradient.shape[0], g.shape[1]) if to_action is None else to_action
            to_action.index_copy_(0, rows, g)
        return None, to_action, None, None, None


def own_head(output: Tensor, heads: int) -> Tensor:
    """Return head i's number of the i-th share of the rows, ``(rows, 1)``, from ``(rows, heads)``."""
    if heads == 1:
        return output
    return output.view(heads, -1, heads).diagonal(dim1=0, dim2=2).t().reshape(-1, 1)


def _shares(tensors: Sequence[Tensor], members: int) -> list[Sequence[Tensor]]:
    """Return ``tensors`` cut into ``members`` equal runs."""
    each = len(tensors) // members
    return [tensors[start : start + each] for start in range(0, len(tensors), each)]


__all__ = ["Perceptron", "SmallestValue", "SquaredError", "evaluate", "own_head"]
