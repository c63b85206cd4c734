"""The gradient step of all members at once: batched products as one node of the graph, one call of Adam's kernel.

At the sizes of control policies a member's step is dispatch, not arithmetic, which K members then share.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agents.nets.members import Members
from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam, fused_step
from budget_wrappers.functional.one_node import IN_PLACE, back_through_activation

TINY = 400
"""Multiplications in a product below which torch's batched one takes another way (``at::native::bmm`` on the CPU)."""


class BatchedPerceptron(torch.autograd.Function):
    """``y_k = W_{k,L} · f(… f(W_{k,1} · x + b_{k,1}) …) + b_{k,L}`` of K perceptrons as one node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        """Return ``(K, B, outputs)`` for ``x`` ``(B, inputs)``, weights ``(K, out, in)`` and biases ``(K, out)``."""
        f, inputs = IN_PLACE[activation], [x.expand(len(parameters[0]), *x.shape)]
        for layer in range(0, len(parameters), 2):
            y = torch.baddbmm(parameters[layer + 1].unsqueeze(1), inputs[-1], parameters[layer].transpose(1, 2))
            if layer < len(parameters) - 2:
                inputs.append(f(y))
        ctx.activation = activation
        ctx.save_for_backward(*inputs, *parameters[::2])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the parameters' gradients; ``x`` has none."""
        depth = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        gradients: list[Tensor] = []
        for layer in reversed(range(depth)):
            gradients += [gradient.sum(1), _outer_sums(gradient, inputs[layer])]
            if layer > 0:
                back = torch.bmm(gradient, weights[layer])
                gradient = back_through_activation(back, inputs[layer], ctx.activation)
        return None, None, *gradients[::-1]


def _outer_sums(gradient: Tensor, x: Tensor) -> Tensor:
    """Return ``gradientᵀ · x`` of each member, the product that a single perceptron takes: see ``perceptron``."""
    if x.shape[2] < gradient.shape[2]:
        return torch.bmm(x.transpose(1, 2), gradient).transpose(1, 2)
    return torch.bmm(gradient.transpose(1, 2), x)


def batches_as_one_by_one(net: MLP, rows: int) -> bool:
    """Tell whether batched products round as products one by one do: torch takes another way for tiny ones."""
    return rows * min(layer.weight.numel() for layer in net.linears) >= TINY


class StepTogether:
    """Asks all members of a population of perceptrons at once, and takes their gradient steps.

    Args:
        members: of a window that is a perceptron.
        net: the window's perceptron.

    Attributes:
        version: of the members whose tensors are looked up here.
    """

    def __init__(self, members: Members, net: MLP) -> None:
        self._members, self._activation, self.version = members, net.activation, members.version
        self._parameters, self._moments = members.of_layers(net)
        count = members.count
        self._leaves = [stack.detach().requires_grad_() for stack in self._parameters]
        self._views = [
            [stack[member] for member in range(count) for stack in stacks]
            for stacks in (self._parameters, self._moments[0], self._moments[1])
        ]
        self._steps = [members.steps[member] for member in range(count) for _ in self._parameters]

    def __call__(self, x: Tensor) -> Tensor:
        """Return what each member says, ``(K, B, outputs)``, for ``x`` ``(B, inputs)``."""
        return BatchedPerceptron.apply(x, self._activation, *self._leaves)

    def descend(self, loss: Tensor, optimizer: FusedAdam, max_norm: float | None) -> None:
        """Take every member's step down the sum of their losses, as ``optimizer`` would take each of them.

        Args:
            loss: a scalar.
            optimizer: of the window, whose settings hold.
            max_norm: bound of the Euclidean norm of each member's own gradient, ``None`` for none.
        """
        gradients = torch.autograd.grad(loss, self._leaves)
        if max_norm is not None:
            gradients = self._clipped(gradients, max_norm)
        parameters, first, second = self._views
        every = [gradient[member] for member in range(self._members.count) for gradient in gradients]
        self._members.steps.add_(1)
        with torch.no_grad():
            fused_step(optimizer.param_groups[0], parameters, every, first, second, self._steps)

    def _clipped(self, gradients: Sequence[Tensor], max_norm: float) -> list[Tensor]:
        count = self._members.count
        norms = torch._foreach_norm([gradient[member] for member in range(count) for gradient in gradients])
        norm = torch.stack([torch.linalg.vector_norm(own) for own in torch.stack(norms).view(count, -1)])
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        return [gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1))) for gradient in gradients]


class MeanDescent:
    """An optimizer beside the window's whose parameters all members share: it steps once, down the members' mean loss.

    Args:
        optimizer: of the parameters.
        count: members that give gradients before it steps.
    """

    def __init__(self, optimizer: Any, count: int) -> None:
        self.optimizer, self.parameters, self._count = optimizer, optimizer.parameters, count
        self._given: list[Sequence[Tensor]] = []

    def apply(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients of one member's loss; of the last one, step."""
        self._given.append(gradients)
        if len(self._given) == self._count:
            together = [torch.stack(own).mean(0) for own in zip(*self._given, strict=True)]
            self.optimizer.apply(together)


__all__ = ["BatchedPerceptron", "MeanDescent", "StepTogether", "batches_as_one_by_one"]
