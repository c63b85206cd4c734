"""Gates on hidden units: each unit is multiplied by ``ξ ~ Bernoulli(θ)`` while it learns, by θ where it acts.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks" (XiNet). The gates stand beside a network,
as masks do: hooks on its linear layers multiply what they read. The network keeps its parameters, their names and its
optimizer, and a gate whose θ are 1 changes no bit of what it says.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import an_instance
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.units import draw_units
from budget_wrappers.modules.surgery import put_data
from budget_wrappers.modules.unit_group import UnitGroup
from budget_wrappers.modules.unit_groups import unit_groups


class _Gate:
    """What the units of one group are multiplied by in the pass that runs now.

    Args:
        theta: θ of the units.
        generator: of the draws.
    """

    def __init__(self, theta: nn.Parameter, generator: torch.Generator | None) -> None:
        self.theta, self.generator = theta, generator
        self.factor: Tensor = theta.detach()

    def settle(self, training: bool) -> None:
        """Draw for this pass if the network learns in it, else take θ.

        It learns if its module is in training mode, gradients are on and θ requires one: so a network that a loss
        updates draws, and targets, the loss's other networks and everything that acts do not.
        """
        if training and self.theta.requires_grad and torch.is_grad_enabled():
            uniform = torch.rand(self.theta.shape, generator=self.generator, device=self.theta.device)
            self.factor = draw_units(self.theta, uniform)
        else:
            self.factor = self.theta.detach()


class _Makes:
    """Forward hook of the layer that makes the units: it settles what they are multiplied by."""

    def __init__(self, gate: _Gate) -> None:
        self.gate = gate

    def __call__(self, layer: nn.Module, given: Any, output: Any) -> None:
        self.gate.settle(layer.training)


class _Reads:
    """Forward pre-hook of a layer that reads the units: it multiplies them.

    Args:
        gate: of the units.
        start: the layer's first input that is one of them.
    """

    def __init__(self, gate: _Gate, start: int) -> None:
        self.gate, self.start = gate, start

    def factors(self, inputs: int) -> Tensor:
        """Return what each of ``inputs`` inputs of the layer is multiplied by, ``(inputs,)``; 1 for other inputs."""
        factor = self.gate.factor
        after = inputs - self.start - len(factor)
        if self.start or after:
            factor = nn.functional.pad(factor, (self.start, after), value=1.0)
        return factor

    def __call__(self, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (given[0] * self.factors(given[0].shape[-1]), *given[1:])


class UnitGates(nn.Module):
    """The θ of every group of a network, and the hooks that multiply its units.

    Made with θ = 1, fixed, and without hooks: nothing about the network has changed. ``attach`` puts the hooks on,
    ``learn`` lets θ learn. One draw serves all rows of a forward pass, and all layers that read a unit.

    Args:
        groups: of one network, as ``unit_groups`` finds them.
        generator: of the draws, on the network's device; by default torch's own.

    Attributes:
        groups: as given.
        theta: θ of each group, ``(units,)``.

    Raises:
        ConfigError: no groups.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> gates = gated(network, torch.zeros(1, 3))
        >>> [group.units for group in gates.groups]
        [8]
    """

    def __init__(self, groups: Sequence[UnitGroup], generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.groups = tuple(groups)
        if not self.groups:
            raise ConfigError(
                "a network without hidden units that only linear layers read: expected one hidden layer at least"
            )
        ones = (torch.ones_like(group.maker.weight[:, 0], requires_grad=False) for group in self.groups)
        self.theta = nn.ParameterList(nn.Parameter(one.detach(), requires_grad=False) for one in ones)
        self._gates = [_Gate(theta, generator) for theta in self.theta]
        self.attached = False

    def attach(self) -> None:
        """Multiply the units from now on."""
        if self.attached:
            return
        for group, gate in zip(self.groups, self._gates, strict=True):
            group.maker.register_forward_hook(_Makes(gate))
            for reader in group.readers:
                reader.layer.register_forward_pre_hook(_Reads(gate, reader.start))
        self.attached = True

    def detach(self) -> None:
        """Multiply nothing from now on."""
        for group in self.groups:
            for layer in (group.maker, *(reader.layer for reader in group.readers)):
                for hooks in (layer._forward_hooks, layer._forward_pre_hooks):
                    for key in [key for key, hook in hooks.items() if getattr(hook, "gate", None) in self._gates]:
                        del hooks[key]
        self.attached = False

    def learn(self, on: bool = True) -> None:
        """Let θ learn, or fix it."""
        for theta in self.theta:
            theta.requires_grad_(on)

    def expected(self) -> list[Tensor]:
        """Return the expected number of units of each group, differentiable in θ."""
        return [theta.sum() for theta in self.theta]

    def counts(self) -> list[int]:
        """Return how many units each group has."""
        return [group.units for group in self.groups]

    def follow(self) -> None:
        """Take over that units were removed: hooks read at other places.

        A θ of another length than its group's becomes 1 for each unit.
        """
        for group, theta in zip(self.groups, self.theta, strict=True):
            if len(theta) != group.units:
                put_data(theta, theta.data.new_ones(group.units))
        if self.attached:
            self.detach()
            self.attach()
        for gate in self._gates:
            gate.factor = gate.theta.detach()


def gated(
    network: nn.Module,
    *example_inputs: Any,
    groups: Sequence[UnitGroup] | None = None,
    generator: torch.Generator | None = None,
) -> UnitGates:
    """Put gates on the hidden units of ``network``, in place, and return them; their θ are 1 and fixed.

    Args:
        network: of any kind; see ``unit_groups``.
        example_inputs: that it takes, by which its groups are found.
        groups: those to use instead.
        generator: see ``UnitGates``.

    Raises:
        ConfigError: no hidden units; see ``unit_groups``.
    """
    gates = UnitGates(unit_groups(network, *example_inputs) if groups is None else groups, generator)
    gates.attach()
    return gates


@torch.no_grad()
def ungated(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` without gates that says what it says in evaluation mode.

    θ is folded into the columns that read the units, so that the copy is an ordinary network of the same sizes.
    """
    an_instance("network", network, nn.Module, "a torch.nn.Module")
    plain = copy.deepcopy(network)
    for layer in plain.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(evaluated_weight(layer))
        for key, hook in _own_hooks(layer):
            for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
                if hooks.get(key) is hook:
                    del hooks[key]
    return plain


# ---- for passes that evaluate weights by themselves -----------------------------------------------------------------


def _own_hooks(layer: nn.Module) -> Iterator[tuple[int, Any]]:
    """Yield the hooks of gates on one layer."""
    for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(hook, _Makes | _Reads):
                yield key, hook


def only_gated(layer: nn.Module) -> bool:
    """Tell whether the forward hooks on a layer are those of gates."""
    for hook in layer._forward_pre_hooks.values():
        if type(hook) is not _Reads:
            return False
    for hook in layer._forward_hooks.values():  # noqa: SIM110  asked at every pass
        if type(hook) is not _Makes:
            return False
    return True


def read_weight(layer: nn.Linear, frozen: bool = False) -> Tensor:
    """Return the weight of a layer with what its gates multiply its inputs by, as if the layer ran now.

    Args:
        layer: whose hooks are those of gates.
        frozen: whether the pass is one in which nothing is drawn.
    """
    weight = layer.weight
    for reads in layer._forward_pre_hooks.values():
        weight = weight * reads.factors(weight.shape[1])
    for makes in layer._forward_hooks.values():
        makes.gate.settle(layer.training and not frozen)
    return weight


@torch.no_grad()
def evaluated_weight(layer: nn.Linear) -> Tensor:
    """Return the weight of a layer with the θ of its gates in it: what it does where nothing is drawn."""
    weight = layer.weight.detach()
    for _, hook in _own_hooks(layer):
        if isinstance(hook, _Reads):
            hook.gate.factor = hook.gate.theta.detach()
            weight = weight * hook.factors(weight.shape[1])
    return weight


def as_read(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``x`` as a linear layer reads it: multiplied by its gates."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, _Reads):
            x = x * hook.factors(x.shape[-1])
    return x


def thetas_read(layer: nn.Linear) -> nn.Parameter | None:
    """Return the θ by which all inputs of a layer are multiplied, ``None`` where none are.

    Raises:
        ConfigError: only some inputs are.
    """
    found = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _Reads)]
    if not found:
        return None
    if len(found) > 1 or len(found[0].gate.theta) != layer.weight.shape[1]:
        raise ConfigError("a layer that reads units beside other inputs: expected gates on all of them")
    return found[0].gate.theta


__all__ = ["UnitGates", "as_read", "evaluated_weight", "gated", "only_gated", "read_weight", "thetas_read", "ungated"]
