"""Multilayer perceptrons with a hand-written backward pass: fewer dispatches, the same numbers.

An ordinary ``nn.Sequential`` whose passes are those of ``agents.nets.perceptron`` as long as it is plain.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents.config import Activation
from agents.nets.perceptron import Perceptron, SmallestValue, SquaredError, evaluate, own_head
from budget_wrappers.functional.one_node import transformed
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.modules.units import only_gated, read_weight

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(nn.Sequential):
    """``Linear``, activation, …, ``Linear``.

    An ordinary ``nn.Sequential`` to whoever reads, saves, prunes or counts it. Its forward pass runs as one autograd
    node, as long as it is plain: with hooks on its layers, parametrised ones, parts of another kind or order, or under
    ``torch.func``, it runs as any ``nn.Sequential`` does.

    Args:
        sizes: widths from input to output, at least two.
        activation: ``"relu"`` or ``"tanh"``, between layers, none after the last.

    Attributes:
        parts: layers and activations as ``plain`` found them last: another object once one of them was replaced.
    """

    static_flops = True

    def __init__(self, sizes: Sequence[int], activation: Activation = "relu") -> None:
        make = _ACTIVATIONS[activation]
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            parts += [nn.Linear(before, after), make()]
        super().__init__(*parts[:-1])
        self.activation = activation
        self.parts: tuple[nn.Module, ...] = tuple(parts[:-1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths from input to output, as they are now."""
        linears = self.linears
        return (linears[0].in_features, *(layer.out_features for layer in linears))

    @property
    def linears(self) -> list[nn.Linear]:
        """The linear layers from input to output."""
        return [part for part in self if isinstance(part, nn.Linear)]

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(*list(self)[index])
        return super().__getitem__(index)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, shape ``(..., sizes[-1])``, for ``x`` of shape ``(..., sizes[0])``."""
        tensors = self.tensors()
        return super().forward(x) if tensors is None else self._run(x, tensors)

    def frozen(self, x: Tensor) -> Tensor:
        """Return ``forward(x)`` without gradients to the parameters."""
        tensors = self.tensors(frozen=True)
        if tensors is None:
            detached = {name: tensor.detach() for name, tensor in self.named_parameters()}
            if not self._has_gates():
                return torch.func.functional_call(self, detached, (x,))
            with evaluating(self):
                return torch.func.functional_call(self, detached, (x,))
        return self._run(x, [tensor.detach() for tensor in tensors])

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return getattr(next(reversed(self._modules.values())), "out_features", None) or self.linears[-1].out_features

    def plain(self, gates: bool = False) -> bool:
        """Tell whether linear layers and activations take turns, as they were made, and no hook is to see them run.

        Fused passes and acting engines evaluate the weights by themselves and must ask: they would skip other parts.

        Args:
            gates: whether a perceptron with gates on its units counts as plain, for a caller that multiplies by them.
        """
        parts = tuple(self._modules.values())
        if parts != self.parts and not self._as_made(parts):
            return False
        for part in parts:  # a loop without calls: it runs at every action
            if (part._forward_pre_hooks or part._forward_hooks) and not (gates and only_gated(part)):
                return False
        return True

    def _has_gates(self) -> bool:
        """Tell whether there are gates among the hooks on its layers."""
        hooks = (hook for part in self for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values()))
        return any(hasattr(hook, "gate") for hook in hooks)

    def _as_made(self, parts: tuple[nn.Module, ...]) -> bool:
        kinds = (nn.Linear, _ACTIVATIONS[self.activation])
        if len(parts) % 2 == 0 or any(type(part) is not kinds[place % 2] for place, part in enumerate(parts)):
            return False
        self.parts = parts
        return True

    def tensors(self, frozen: bool = False) -> list[Tensor] | None:
        """Return ``[W_1, b_1, W_2, b_2, …]``, or ``None`` where the perceptron is not plain or is transformed.

        Gates on units are in the weights that read them: what the list says is what the layers would do now.

        Args:
            frozen: whether no parameter learns in the pass that the list is for.
        """
        parts = tuple(self._modules.values())
        if transformed() or (parts != self.parts and not self._as_made(parts)):
            return None
        found: list[Tensor] = []
        for part in parts:
            if part._forward_pre_hooks or part._forward_hooks:
                if not (isinstance(part, nn.Linear) and only_gated(part) and part.bias is not None):
                    return None
                found += [read_weight(part, frozen), part.bias]
            else:
                found += part._parameters.values()
        # A parametrised layer does not hold its weight, but makes it when it runs.
        return found if len(found) == len(parts) + 1 else None

    def _run(self, x: Tensor, parameters: list[Tensor]) -> Tensor:
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            y = Perceptron.apply(rows, self.activation, *parameters)
        else:
            y = evaluate(rows, self.activation, parameters, None)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])


def squared_error(members: Sequence[MLP], x: Tensor, target: Tensor) -> Tensor:
    """Return ``½ Σ_m Σ_i mean_B (members[m](x)_i − y_i)²``, differentiable in the members' parameters alone.

    Args:
        members: perceptrons of the same sizes and activation.
        x: shape ``(B, inputs)``.
        target: y, shape ``(B, outputs)``.
    """
    parameters = [member.tensors() for member in members]
    if None in parameters:
        return sum((member(x) - target).square().sum() for member in members) * (0.5 / len(x))
    every = [tensor for own in parameters for tensor in own]
    return SquaredError.apply(x, target, members[0].activation, len(members), *every)


def smallest_value(members: Sequence[MLP], observation: Tensor, action: Tensor) -> Tensor:
    """Return ``min_m members[m]([observation, action_i])_i``, ``(K, B)``, differentiable in ``action`` alone.

    Args:
        members: perceptrons of the same sizes and activation, of K outputs, or of one for any number of actions.
        observation: shape ``(B, O)``.
        action: shape ``(K, B, A)``.
    """
    parameters = [member.tensors(frozen=True) for member in members]
    heads = members[0].outputs if parameters[0] is None else parameters[0][-1].shape[0]
    count, rows, width = action.shape
    flat = action.reshape(-1, width)
    x = torch.cat([observation.repeat(count, 1) if count > 1 else observation, flat], 1)
    if None in parameters:
        outputs = (own_head(member.frozen(x), heads) for member in members)
        smallest = functools.reduce(torch.minimum, outputs)
    elif torch.is_grad_enabled():
        smallest = SmallestValue.apply(x.detach(), flat, heads, members[0].activation, parameters)
    else:
        outputs = (own_head(evaluate(x, members[0].activation, own, None), heads) for own in parameters)
        smallest = functools.reduce(torch.minimum, outputs)
    return smallest.view(count, rows)
