"""Multilayer perceptrons with a hand-written backward pass: fewer dispatches, the same numbers.

A stack of ``Linear`` and activation is one node of the autograd graph instead of four a layer. At the sizes of
control policies (batch 256, 2×256) a third of an eager update's time is dispatch, which this removes; the matrix
products themselves are torch's.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh"]

_FORWARD: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}


class _Scratch(threading.local):
    """Two matrices of a thread, handed out in turn for what does not outlive one forward or backward pass.

    Fresh memory is cold memory: for matrices of 256×256 writing into it takes longer than an activation's arithmetic.
    """

    def __init__(self) -> None:
        self._flat: list[Tensor] = [torch.empty(0), torch.empty(0)]
        self._turn = 0

    def next(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Return an uninitialised ``(rows, columns)``, not the one handed out last."""
        self._turn ^= 1
        flat = self._flat[self._turn]
        if flat.numel() < rows * columns or flat.dtype != like.dtype or flat.device != like.device:
            flat = self._flat[self._turn] = like.new_empty(rows * columns)
        return flat[: rows * columns].view(rows, columns)


_scratch = _Scratch()


def _back_through_layer(gradient: Tensor, weight: Tensor, output: Tensor, activation: str) -> Tensor:
    """Return dL/d(what the activation got) from dL/d(next layer's output); ``output`` is what the activation gave."""
    into = _scratch.next(gradient.shape[0], weight.shape[1], gradient)
    if weight.shape[0] == 1:
        torch.mul(gradient, weight, out=into)
    else:
        torch.mm(gradient, weight, out=into)
    if activation == "relu":
        return torch.ops.aten.threshold_backward.grad_input(into, output, 0, grad_input=into)
    return torch.ops.aten.tanh_backward.grad_input(into, output, grad_input=into)


def _evaluate(x: Tensor, activation: str, parameters: Sequence[Tensor], keep: list[Tensor] | None) -> Tensor:
    """Return the perceptron's output; hidden activations are appended to ``keep``, or live in scratch without it."""
    f, last = _FORWARD[activation], len(parameters) - 2
    for layer in range(0, last, 2):
        weight = parameters[layer]
        if keep is None:
            into = _scratch.next(x.shape[0], weight.shape[0], x)
            x = f(torch.addmm(parameters[layer + 1], x, weight.t(), out=into))
        else:
            keep.append(x := f(torch.addmm(parameters[layer + 1], x, weight.t())))
    return torch.addmm(parameters[last + 1], x, parameters[last].t())


def _outer_sum(gradient: Tensor, x: Tensor) -> Tensor:
    """Return ``gradientᵀ · x``; as the transpose of ``xᵀ · gradient`` where ``x`` is narrow, in half the time."""
    return (x.t() @ gradient).t() if x.shape[1] < gradient.shape[1] else gradient.t() @ x


class _Perceptron(torch.autograd.Function):
    """``y = W_L · f(… f(W_1 · x + b_1) …) + b_L`` as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        inputs = [x]
        y = _evaluate(x, activation, parameters, inputs)
        ctx.activation = activation
        ctx.save_for_backward(*inputs, *parameters[::2])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        depth = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        for_weights = ctx.needs_input_grad[2]
        gradients: list[Tensor | None] = [None] * (2 * depth)
        for layer in reversed(range(depth)):
            if for_weights:
                gradients[2 * layer] = _outer_sum(gradient, inputs[layer])
                gradients[2 * layer + 1] = gradient.sum(0)
            if layer > 0:
                gradient = _back_through_layer(gradient, weights[layer], inputs[layer], ctx.activation)
        return (gradient @ weights[0] if ctx.needs_input_grad[0] else None), None, *gradients


class _SmallestValue(torch.autograd.Function):
    """Row-wise minimum of several frozen critics; backward to the action, through the critic that was smallest.

    The gradient of a minimum is 0 for every other member, so each member back-propagates the rows where it won:
    M members cost one member's backward pass. The numbers are those of ``torch.stack(...).min(0)``.
    """

    @staticmethod
    def forward(
        ctx: Any, observation: Tensor, action: Tensor, activation: str, members: int, *parameters: Tensor
    ) -> Tensor:
        x, per_member = torch.cat([observation, action], 1), len(parameters) // members
        saved: list[Tensor] = []
        outputs = [
            _evaluate(x, activation, parameters[start : start + per_member], saved)
            for start in range(0, len(parameters), per_member)
        ]
        smallest, winner = torch.cat(outputs, 1).min(1, keepdim=True)
        ctx.activation, ctx.members, ctx.before = activation, members, observation.shape[1]
        ctx.save_for_backward(winner, *saved, *parameters[::2])
        return smallest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        winner, *rest = ctx.saved_tensors
        depth = (len(rest) // ctx.members + 1) // 2
        hidden, weights = rest[: ctx.members * (depth - 1)], rest[ctx.members * (depth - 1) :]
        to_action = None
        for member in range(ctx.members):
            own = weights[member * depth : (member + 1) * depth]
            activations = hidden[member * (depth - 1) : (member + 1) * (depth - 1)]
            rows = (winner[:, 0] == member).nonzero()[:, 0] if ctx.members > 1 else None
            g = gradient if rows is None else gradient.index_select(0, rows)
            for layer in reversed(range(1, depth)):
                h = activations[layer - 1] if rows is None else activations[layer - 1].index_select(0, rows)
                g = _back_through_layer(g, own[layer], h, ctx.activation)
            g = g @ own[0][:, ctx.before :]
            if rows is None:
                to_action = g
            else:
                to_action = gradient.new_empty(gradient.shape[0], g.shape[1]) if to_action is None else to_action
                to_action.index_copy_(0, rows, g)
        return None, to_action, *([None] * (len(ctx.needs_input_grad) - 2))


class MLP(nn.Sequential):
    """``Linear``, activation, …, ``Linear``.

    An ordinary ``nn.Sequential`` to whoever reads, saves, prunes or counts it; its forward pass runs as one autograd
    node. Hooks on its layers do not fire, hooks on itself do.

    Args:
        sizes: widths from input to output, at least two.
        activation: ``"relu"`` or ``"tanh"``, between layers, none after the last.
    """

    static_flops = True

    def __init__(self, sizes: Sequence[int], activation: Activation = "relu") -> None:
        make = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            parts += [nn.Linear(before, after), make()]
        super().__init__(*parts[:-1])
        self.activation = activation
        self.sizes = tuple(sizes)

    @property
    def linears(self) -> list[nn.Linear]:
        """The linear layers from input to output."""
        return [part for part in self if isinstance(part, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, shape ``(..., sizes[-1])``, for ``x`` of shape ``(..., sizes[0])``."""
        return self._run(x, self._tensors())

    def frozen(self, x: Tensor) -> Tensor:
        """Return ``forward(x)`` without gradients to the parameters."""
        return self._run(x, [tensor.detach() for tensor in self._tensors()])

    def _tensors(self) -> list[Tensor]:
        """Return ``[W_1, b_1, W_2, b_2, …]``; ``parameters()`` takes longer than a small layer does."""
        return [tensor for part in self._modules.values() for tensor in part._parameters.values()]

    def _run(self, x: Tensor, parameters: list[Tensor]) -> Tensor:
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            y = _Perceptron.apply(rows, self.activation, *parameters)
        else:
            y = _evaluate(rows, self.activation, parameters, None)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])


def smallest_value(members: Sequence[MLP], observation: Tensor, action: Tensor) -> Tensor:
    """Return ``min_m members[m]([observation, action])``, shape ``(B, 1)``, differentiable in ``action`` alone.

    Args:
        members: perceptrons of one output and one activation.
        observation: shape ``(B, O)``.
        action: shape ``(B, A)``.
    """
    parameters = [tensor.detach() for member in members for tensor in member._tensors()]
    return _SmallestValue.apply(observation, action, members[0].activation, len(members), *parameters)
