"""Savings that run: the hidden units of a pruned network that nothing reaches, or that reach nothing, are taken out.

Weights that are 0 save no work on a dense kernel. A unit all of whose inputs have a weight of 0 says one constant,
which the biases of its readers can hold; a unit all of whose outputs have a weight of 0 changes no output.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.paths import path_ends
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.quiet import all_quiet
from budget_wrappers.modules.surgery import Kept, merged, remove_units
from budget_wrappers.modules.unit_group import Reader, UnitGroup
from budget_wrappers.modules.unit_groups import unit_groups
from budget_wrappers.modules.units import ungated


class DeadUnits(NamedTuple):
    """Which units of one group are dead.

    Attributes:
        no_input: no input of the network reaches the unit by weights that are not 0, ``(units,)``.
        no_output: the unit reaches no output of the network by weights that are not 0, ``(units,)``.
    """

    no_input: Tensor
    no_output: Tensor


def dead_units(network: nn.Module, *example_inputs: Any) -> dict[str, DeadUnits]:
    """Return the dead units of each hidden layer, by the layer's name as ``named_modules`` has it.

    A unit that reads nothing but units without inputs has none itself, and likewise for outputs, so that the answer
    does not change when dead units are removed.

    Args:
        network: of any kind; layers that ``unit_groups`` leaves alone are not in the answer.
        example_inputs: that the network takes, such as ``torch.zeros(1, observation_size)``.

    Raises:
        ConfigError: see ``unit_groups``; a network with gates on its units.
    """
    groups = _groups_of(network, example_inputs)
    return {group.name: dead for group, dead in _dead(groups).items()}


def compacted(network: nn.Module, *example_inputs: Any) -> nn.Module:
    """Return a copy of ``network`` without its dead units, which computes what the network computes when it acts.

    Outputs differ by rounding only: sums have fewer terms. The constant ``f(bias)`` of a unit without living inputs is
    read off while the copy runs in evaluation mode, and its product with the weights that read it joins their bias. So
    batch norms between the unit and its readers are part of the constant, and so are gates, which are folded away.
    These units stay: the first of a layer all of whose units are dead, and a unit without living inputs whose constant
    is not 0 where a reader has no bias of its own or is of a subclass of ``torch.nn.Linear``.

    Args:
        network: of any kind; it stays as it is. Layers that ``unit_groups`` leaves alone keep their units.
        example_inputs: that the network takes, of one row at least.

    Raises:
        ConfigError: see ``unit_groups``; inputs without rows.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).requires_grad_(False)
        >>> network[0].weight[0] = 0.0  # the first unit says relu(bias), whatever it is shown
        >>> network[2].weight[:, 1] = 0.0  # nothing reads the second
        >>> compacted(network, torch.zeros(1, 2))
        Sequential(
          (0): Linear(in_features=2, out_features=1, bias=True)
          (1): ReLU()
          (2): Linear(in_features=1, out_features=1, bias=True)
        )
    """
    an_instance("network", network, nn.Module, "a torch.nn.Module")
    try:
        copy = ungated(network)
    except Exception as error:  # whatever a foreign part raises
        raise ConfigError(
            f"a {type(network).__name__} cannot be copied ({error!r}): expected a module that copy.deepcopy takes; "
            "compact_ removes its units in place"
        ) from error
    _compact([copy], [_groups_of(copy, example_inputs)], example_inputs, {}, trains=False)
    return copy


def compact_(
    network: nn.Module,
    *example_inputs: Any,
    alike: Sequence[nn.Module] = (),
    beside: Mapping[str, Sequence[nn.Parameter]] | None = None,
) -> Kept:
    """Remove the dead units of a network that may train on, in place; the parameters stay the same objects.

    Outputs at this moment differ by rounding only, and the weights that stay have the gradients that they had. Two
    things are different in further training. A unit without living inputs still had a bias that learned; its constant
    now lies in the biases of its readers, which learn in its place. And weights that are 0 without a mask that holds
    them at 0 would have grown again. Units that ``compacted`` would keep stay here, too, and so does a unit without
    living inputs in front of a batch norm, which says another constant in training mode than in evaluation mode.

    Args:
        network: of any kind; see ``compacted``.
        example_inputs: that the network takes, of one row at least.
        alike: networks of the same structure, such as targets: a unit is removed where it is dead in all of them. An
            average that follows masked weights comes close to 0 and does not reach it: multiply it by the masks first.
        beside: parameters that have an entry for each unit of a layer, by the layer's name; they lose the same.

    Returns:
        What is left of each parameter that has become smaller, empty where none has. Optimizers, averages and masks
        have to be told: ``agent.structure_changed(kept)``.

    Raises:
        ConfigError: see ``unit_groups``; inputs without rows, gates on units, a network of ``alike`` of another
            structure, or a name in ``beside`` that is not that of a hidden layer. Nothing has changed then.
    """
    if not isinstance(alike, list | tuple):
        refuse("alike", alike, "a list of networks")
    networks = [network, *alike]
    groups = [_groups_of(own, example_inputs) for own in networks]
    here = [(group.name, group.units) for group in groups[0]]
    for own in groups[1:]:
        there = [(group.name, group.units) for group in own]
        if there != here:
            raise ConfigError(
                f"alike: a network whose hidden layers have {dict(there)} units: expected {dict(here)}, as in the "
                "network; pass its targets, or call compact_ for each network"
            )
    unknown = sorted(set(beside or ()) - {name for name, _ in here})
    if unknown:
        raise ConfigError(
            f"beside: {', '.join(map(repr, unknown))}: expected names of hidden layers, {', '.join(dict(here))}; "
            "dead_units lists them"
        )
    return _compact(networks, groups, example_inputs, dict(beside or {}), trains=True)


# ---- which units go -------------------------------------------------------------------------------------------------


def _groups_of(network: nn.Module, example_inputs: Sequence[Any]) -> list[UnitGroup]:
    """Return the groups of a network without gates."""
    an_instance("network", network, nn.Module, "a torch.nn.Module")
    for part in network.modules():
        if any(hasattr(hook, "gate") for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values())):
            raise ConfigError(
                f"a {type(network).__name__} with gates on its units: expected a network without, as a unit with a "
                "gate says no constant while it learns; compact ungated(network), or this one after UnitPruner.fix"
            )
    return unit_groups(network, *example_inputs)


def _dead(groups: Sequence[UnitGroup]) -> dict[UnitGroup, DeadUnits]:
    makers = [group.maker for group in groups]
    # In the order in which they run: each group stands after those that its maker reads.
    layers = list(dict.fromkeys([*makers, *(reader.layer for group in groups for reader in group.readers)]))
    place = {layer: number for number, layer in enumerate(layers)}
    reads: list[list[tuple[int, int]]] = [[] for _ in layers]
    for group in groups:
        for reader in group.readers:
            reads[place[reader.layer]].append((place[group.maker], reader.start))
    reached, wanted = path_ends([layer.weight.detach() for layer in layers], reads)
    return {group: DeadUnits(~reached[place[group.maker]], ~wanted[place[group.maker]]) for group in groups}


@torch.no_grad()
def _compact(
    networks: Sequence[nn.Module],
    groups: Sequence[Sequence[UnitGroup]],
    example_inputs: Sequence[Any],
    beside: Mapping[str, Sequence[nn.Parameter]],
    trains: bool,
) -> Kept:
    """Remove the units that are dead in every network until none is left that can go.

    Args:
        networks: of one structure.
        groups: of each network, in the same order.
        example_inputs: that they take.
        beside: see ``compact_``.
        trains: whether the networks train on.
    """
    several: list[Kept] = []
    while True:
        # More than once: a unit that had to stay as a layer read it that has no bias goes once that layer is gone.
        seen = [_seen(network, own, example_inputs) for network, own in zip(networks, groups, strict=True)]
        removable = zip(*(_removable(own, trains) for own in seen), strict=True)
        gone = [_all_but_one(torch.stack(own).all(0)) for own in removable]
        if not any(bool(own.any()) for own in gone):
            return merged(*several)
        for number, own_groups in enumerate(groups):
            _fold(seen[number], gone)
            keep = {group: ~own for group, own in zip(own_groups, gone, strict=True) if own.any()}
            own_beside = {group: beside[group.name] for group in keep if group.name in beside and number == 0}
            several.append(remove_units(keep, own_beside))


class _Seen(NamedTuple):
    """What is known of one network as it is now.

    Attributes:
        dead: units of each group.
        said: see ``_said``; empty where no unit is without living inputs.
        takes: layers whose bias can take what a unit says.
    """

    dead: dict[UnitGroup, DeadUnits]
    said: dict[Reader, Tensor]
    takes: set[nn.Linear]


def _seen(network: nn.Module, groups: Sequence[UnitGroup], example_inputs: Sequence[Any]) -> _Seen:
    dead = _dead(groups)
    constants = any(bool(own.no_input.any()) for own in dead.values())
    return _Seen(dead, _said(network, groups, example_inputs) if constants else {}, _with_own_bias(network))


def _removable(seen: _Seen, trains: bool) -> list[Tensor]:
    """Return for each group which of its units can go without a change of the outputs, ``(units,)``."""
    found = []
    for group, (no_input, no_output) in seen.dead.items():
        foldable = torch.zeros_like(no_input) if trains and group.norms else no_input
        for reader in group.readers:
            if seen.said and reader.layer not in seen.takes:
                foldable = foldable & (_columns(reader, group) * seen.said[reader] == 0).all(0)
        found.append(foldable | no_output)
    return found


def _all_but_one(gone: Tensor) -> Tensor:
    """Return ``gone`` with the first unit left where all of a layer's would go."""
    if gone.all():
        gone = gone.clone()
        gone[:1] = False
    return gone


# ---- constants ------------------------------------------------------------------------------------------------------


def _fold(seen: _Seen, gone: Sequence[Tensor]) -> None:
    """Add the constants of the units that are about to go to the biases of their readers."""
    for (group, (no_input, _)), own in zip(seen.dead.items(), gone, strict=True):
        constant = no_input & own
        for reader in group.readers:
            if constant.any() and reader.layer in seen.takes:
                added = _columns(reader, group)[:, constant].double() @ seen.said[reader][constant].double()
                reader.layer.bias.copy_(reader.layer.bias.double() + added)


def _columns(reader: Reader, group: UnitGroup) -> Tensor:
    """Return the weights by which a layer reads the units of a group, ``(outputs, units)``."""
    return reader.layer.weight[:, reader.start : reader.start + group.units]


def _with_own_bias(network: nn.Module) -> set[nn.Linear]:
    """Return the layers that add their bias to their product and to nothing else."""
    layers = [part for part in network.modules() if isinstance(part, nn.Linear) and part.bias is not None]
    owners = Counter(layer.bias for layer in layers)
    return {layer for layer in layers if type(layer) is nn.Linear and owners[layer.bias] == 1}


class _Listens:
    """Forward pre-hook that keeps the first row that a layer is given."""

    row: Tensor

    def __call__(self, layer: nn.Module, given: tuple[Any, ...]) -> None:
        rows = given[0].detach().reshape(-1, given[0].shape[-1]) if given[0].numel() else given[0][:0]
        if not len(rows):
            raise ConfigError(
                f"example inputs by which a layer is given {tuple(given[0].shape)}: expected one row at least; pass "
                "torch.zeros(1, observation_size)"
            )
        self.row = rows[0].clone()


def _said(network: nn.Module, groups: Sequence[UnitGroup], example_inputs: Sequence[Any]) -> dict[Reader, Tensor]:
    """Return the units as each reader is given them on the first row of the example, ``(units,)``; evaluation mode."""
    listening = {reader.layer: _Listens() for group in groups for reader in group.readers}
    handles = [layer.register_forward_pre_hook(hook) for layer, hook in listening.items()]
    try:
        with evaluating(network), torch.no_grad(), all_quiet():
            network(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {
        reader: listening[reader.layer].row[reader.start : reader.start + group.units]
        for group in groups
        for reader in group.readers
    }


__all__ = ["DeadUnits", "compact_", "compacted", "dead_units"]
