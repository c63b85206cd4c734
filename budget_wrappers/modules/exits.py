"""A network with early exits: one trunk, an output after some of its layers, a gate at each exit but the last.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks". ``K`` exits, ``B`` rows.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from budget_wrappers.arguments import a_count, a_flag, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.exit_forward import exit_outputs
from budget_wrappers.functional.gates import budget_log_odds
from budget_wrappers.modules.units import as_read, only_gated, read_weight

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}

WIDEST = 2**24
"""The widest layer."""


class ExitOutputs(NamedTuple):
    """What all exits say.

    Attributes:
        output: of every exit, shape ``(K, B, outputs)``.
        logits: of every gate, shape ``(B, K − 1)``; a gate opens with probability ``sigmoid(logit)``.
    """

    output: Tensor
    logits: Tensor


class EarlyExitNetwork(nn.Module):
    """A perceptron with several exits.

    ``forward`` runs all of them, as training needs. Acting runs stage after stage and stops at the first gate that
    opens: ``budget_wrappers.deploy.numpy_exits`` and ``leave`` do not do the work behind it.

    Gate and head of an exit are one linear layer, ``exits[i]``, its last row the gate, so that both are one product
    where both run. While acting they are two: the head runs where its gate has opened only.

    Args:
        inputs: size of a row.
        outputs: size of each exit's output.
        hidden: widths of the trunk's layers.
        exit_after: hidden layers before each exit, strictly ascending; 0 is an exit on the input itself. The trunk ends
            at the last exit. By default there is an exit after every layer, the input among them.
        activation: after each hidden layer.
        reads_budget: whether the last number of a row is the budget that the gates are to keep, in [0, 1]. Its log-odds
            are taken off every gate's logit: a gate that has learned nothing else opens with probability 1 − b, which
            no linear layer on b could say. It costs no matrix product.

    Attributes:
        depths: ``exit_after`` as it was resolved.
        flops: FLOPs of acting that leaves at each exit, the gates on the way included, ``(K,)``; ``matmul`` convention.
        parts: stages with their layers, and exits, as ``as_made`` found them: another object once one was replaced.

    Raises:
        ConfigError: exits that are not strictly ascending, negative, or deeper than the trunk; another activation.
    """

    static_flops = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        exit_after: Sequence[int] | None = None,
        activation: Literal["relu", "tanh"] = "relu",
        reads_budget: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("inputs", inputs), ("outputs", outputs)):
            a_count(name, size, 1, WIDEST)
        if not isinstance(hidden, list | tuple):
            refuse("hidden", hidden, "widths of the hidden layers")
        hidden = tuple(a_count("hidden", width, 1, WIDEST) for width in hidden)
        reads_budget = a_flag("reads_budget", reads_budget)
        self.depths = resolved_depths(len(hidden), exit_after)
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise ConfigError(f"activation={activation!r}: expected one of {', '.join(_ACTIVATIONS)}")
        self.inputs, self.outputs, self.activation, self.reads_budget = inputs, outputs, activation, reads_budget
        widths = [inputs, *hidden]
        self.stages = nn.ModuleList()
        self.exits = nn.ModuleList()
        for number, (before, depth) in enumerate(itertools.pairwise((0, *self.depths))):
            layers = itertools.pairwise(widths[before : depth + 1])
            parts = [part for size in layers for part in (nn.Linear(*size), _ACTIVATIONS[activation]())]
            self.stages.append(nn.Sequential(*parts))
            gate = int(number < len(self.depths) - 1)
            self.exits.append(nn.Linear(widths[depth], outputs + gate))
        self._layers = tuple(after - before for before, after in itertools.pairwise((0, *self.depths)))
        self.parts: tuple[tuple[tuple[nn.Module, ...], ...], tuple[nn.Module, ...]] = (), ()

    @property
    def flops(self) -> tuple[int, ...]:
        """FLOPs of one row that leaves at each exit."""
        spent, found = 0, []
        for number, (stage, layer) in enumerate(zip(self.stages, self.exits, strict=True)):
            layers = [part for part in stage.modules() if isinstance(part, nn.Linear)]
            spent += sum(2 * part.in_features * part.out_features for part in layers)
            if number < len(self.exits) - 1:
                spent += 2 * layer.in_features  # its gate
            found.append(spent + 2 * layer.in_features * self.outputs)
        return tuple(found)

    def forward(self, x: Tensor) -> ExitOutputs:
        """Return what every exit and gate says of ``x`` ``(B, inputs)``."""
        parameters = self._tensors()
        if parameters is not None:
            output, logits = exit_outputs(x, self.activation, self._layers, self.outputs, parameters)
        else:
            output, logits = self._layer_by_layer(x)
        return ExitOutputs(output, logits - budget_log_odds(x[:, -1:]) if self.reads_budget else logits)

    def _layer_by_layer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, logits = [], []
        for stage, layer in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            said = layer(x)
            outputs.append(said[:, : self.outputs])
            logits.append(said[:, self.outputs :])
        return torch.stack(outputs), torch.cat(logits, 1)

    def as_made(self) -> bool:
        """Tell whether the stages still are linear layers, each with its activation, and exits linear layers.

        Whatever evaluates the weights by itself must ask: it would pass over a part that it does not know.
        """
        stages = tuple(self.stages._modules.values())
        parts = tuple([(stage, *stage._modules.values()) for stage in stages]), tuple(self.exits._modules.values())
        if parts != self.parts:
            kinds = (nn.Linear, _ACTIVATIONS[self.activation])
            for (stage, *inner), layers in zip(parts[0], self._layers, strict=True):
                made = type(stage) is nn.Sequential and len(inner) == 2 * layers
                if not made or any(type(part) is not kinds[place % 2] for place, part in enumerate(inner)):
                    return False
            if any(type(layer) is not nn.Linear for layer in parts[1]):
                return False
            self.parts = parts
        return True

    def plain(self) -> bool:
        """Tell whether the network is as it was made and no forward hook is to see a stage or a layer of one run."""
        if not self.as_made():
            return False
        for stage in self.parts[0]:
            for part in stage:
                if part._forward_pre_hooks or part._forward_hooks:
                    return False
        return True

    def _tensors(self) -> list[Tensor] | None:
        """Return weight and bias of each layer in the order they run, or ``None`` where layers were hooked or changed.

        A hook is to see its layer run, and a parametrised layer makes its weight when it runs.
        """
        if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu") or not self.as_made():
            return None
        found: list[Tensor] = []
        for stage, layer in zip(*self.parts, strict=True):
            for part in (*stage, layer):
                if not hooked(part):
                    found += part._parameters.values()
                elif isinstance(part, nn.Linear) and only_gated(part) and not backward_hooked(part):
                    found += [read_weight(part), part.bias]  # gates on units
                else:
                    return None
        plain = len(found) == 2 * (sum(self._layers) + len(self._layers)) and all(one is not None for one in found)
        return found if plain else None

    @torch.no_grad()
    def leave(self, x: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output of the exit that each row leaves at, and which one; deeper stages see the rest only.

        Args:
            x: shape ``(B, inputs)``.
            draws: uniform in [0, 1), shape ``(B, K − 1)``: gate i opens where its probability is above draw i. By
                default gates open from a probability of ½ on.

        Returns:
            ``(B, outputs)`` and ``(B,)``.
        """
        output = x.new_empty(len(x), self.outputs)
        taken = torch.full((len(x),), len(self.exits) - 1, device=x.device)
        inside = torch.arange(len(x), device=x.device)
        odds = budget_log_odds(x[:, -1]) if self.reads_budget else None
        for number, (stage, layer) in enumerate(zip(self.stages, self.exits, strict=True)):
            x = stage(x)
            read, weight, bias = as_read(layer, x), layer.weight, layer.bias
            if number < len(self.exits) - 1:
                logit = torch.addmv(bias[-1:].expand(len(x)), read, weight[-1])
                logit = logit if odds is None else logit - odds[inside]
                out = logit >= 0 if draws is None else torch.sigmoid(logit) > draws[inside, number]
                taken[inside[out]] = number
                output[inside[out]] = nn.functional.linear(read[out], weight[:-1], bias[:-1])
                x, inside = x[~out], inside[~out]
                if not len(inside):
                    return output, taken
            else:
                output[inside] = nn.functional.linear(read, weight, bias)
        return output, taken

    @torch.no_grad()
    def every(self, x: Tensor) -> Tensor:
        """Return the output of each exit, ``(K, B, outputs)``; no gate is asked."""
        outputs = []
        for stage, layer in zip(self.stages, self.exits, strict=True):
            x = stage(x)
            read = as_read(layer, x)
            outputs.append(nn.functional.linear(read, layer.weight[: self.outputs], layer.bias[: self.outputs]))
        return torch.stack(outputs)

    @torch.no_grad()
    def at(self, x: Tensor, exit_index: int) -> Tensor:
        """Return the output of one exit, ``(B, outputs)``; no gate is asked, no other head and nothing deeper runs.

        Args:
            x: shape ``(B, inputs)``.
            exit_index: 0 … K − 1.

        Raises:
            IndexError: there is no such exit.
        """
        require_exit(exit_index, len(self.exits))
        for stage in itertools.islice(self.stages, exit_index + 1):
            x = stage(x)
        layer = self.exits[exit_index]
        return nn.functional.linear(as_read(layer, x), layer.weight[: self.outputs], layer.bias[: self.outputs])

    def last(self, x: Tensor) -> Tensor:
        """Return the output of the last exit, ``(B, outputs)``; no gate is asked and no other head runs."""
        return self.at(x, len(self.exits) - 1)


def hooked(module: nn.Module) -> bool:
    """Tell whether somebody is to see ``module`` run, forward or backward."""
    return bool(module._forward_pre_hooks or module._forward_hooks) or backward_hooked(module)


def backward_hooked(module: nn.Module) -> bool:
    """Tell whether somebody is to see the backward pass of ``module``."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def resolved_depths(layers: int, exit_after: Sequence[int] | None) -> tuple[int, ...]:
    """Return ``exit_after``, or an exit after each of ``layers`` layers and one before them.

    Raises:
        ConfigError: exits that are not strictly ascending, negative, or deeper than the trunk.
    """
    depths = tuple(range(layers + 1)) if exit_after is None else tuple(exit_after)
    whole = all(isinstance(depth, int | np.integer) and not isinstance(depth, bool) for depth in depths)
    legal = whole and all(0 <= depth <= layers for depth in depths)
    if not depths or not legal or any(a >= b for a, b in itertools.pairwise(depths)):
        raise ConfigError(
            f"exit_after={exit_after!r}: expected different depths of 0 to {layers} in ascending order, one at least; "
            "0 is an exit on the observation itself"
        )
    return tuple(map(int, depths))


def require_exit(exit_index: int, exits: int) -> None:
    """Raise unless ``exit_index`` is one of ``exits``, counted from 0.

    Raises:
        IndexError: it is not.
    """
    if not 0 <= exit_index < exits:
        raise IndexError(f"exit_index={exit_index!r}: expected 0, the first exit, to {exits - 1}, the last one")


__all__ = ["EarlyExitNetwork", "ExitOutputs", "resolved_depths"]
