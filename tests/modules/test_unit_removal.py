"""Removing units whose θ are 0 changes nothing that stays: outputs, moments, masks, later updates, counts."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import PolynomialSchedule
from budget_wrappers.metering import count_flops
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.masks import ScheduledMasks
from budget_wrappers.modules.surgery import keep_units, remove_units
from budget_wrappers.modules.unit_groups import unit_groups
from budget_wrappers.modules.unit_size import NetworkSize
from budget_wrappers.modules.units import UnitGates, gated
from tests.modules.networks import NETWORKS, inputs, network, said


def some_dead(name: str, module: nn.Module, seed: int = 4) -> tuple[UnitGates, dict[Any, Tensor]]:
    """Return gates some of whose θ are 0, the others 1, and which units stay; each group keeps one at least."""
    gates = gated(module, *inputs(name, 1), generator=torch.Generator().manual_seed(0))
    generator, keep = torch.Generator().manual_seed(seed), {}
    for group, theta in zip(gates.groups, gates.theta, strict=True):
        theta.data = (torch.rand(theta.shape, generator=generator) < 0.6).float()
        theta.data[0] = 1.0
        keep[group] = theta.data.bool()
    return gates, keep


def beside(gates: UnitGates) -> dict[Any, list[nn.Parameter]]:
    return {group: [theta] for group, theta in zip(gates.groups, gates.theta, strict=True)}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_after_a_removal_are_those_of_theta_0(name: str) -> None:
    module = network(name)
    gates, keep = some_dead(name, module)
    before = said(module, name)
    kept = remove_units(keep, beside(gates))
    gates.follow()
    torch.testing.assert_close(said(module, name), before, rtol=1e-6, atol=1e-6)
    gates.detach()  # all θ that stayed are 1
    torch.testing.assert_close(said(module, name), before, rtol=1e-6, atol=1e-6)
    assert gates.counts() == [int(own.sum()) for own in keep.values()]
    assert [len(theta) for theta in gates.theta] == gates.counts()
    assert all(parameter in kept for parameter in gates.theta if len(parameter) < 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_removals_are_one(name: str) -> None:
    once, twice = network(name), network(name)
    gates, keep = some_dead(name, once)
    remove_units(keep)
    gates.detach()
    second = unit_groups(twice, *inputs(name, 1))
    # First all that go but the last of them in each group, then the rest.
    halves = []
    for own in keep.values():
        gone = (~own).nonzero().flatten().tolist()
        first = own.clone()
        first[gone[-1:]] = True
        halves.append((first, own[first]))
    remove_units({group: half[0] for group, half in zip(second, halves, strict=True)})
    remove_units({group: half[1] for group, half in zip(second, halves, strict=True)})
    assert torch.equal(said(twice, name), said(once, name))


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_flops_counted_are_those_of_the_formula(name: str) -> None:
    module = network(name)
    gates, keep = some_dead(name, module)
    size = NetworkSize(module, gates.groups)

    def parameters() -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    def flops() -> int:
        if isinstance(module, EarlyExitNetwork):
            return max(module.flops)
        return count_flops(module, *inputs(name, 1))

    assert (size.parameters(gates.counts()), size.flops(gates.counts())) == (parameters(), flops())
    at_theta = [float(theta.detach().sum()) for theta in gates.theta]
    expected = size.parameters(at_theta), size.flops(at_theta)
    remove_units(keep, beside(gates))
    gates.detach()
    assert (size.parameters(gates.counts()), size.flops(gates.counts())) == (parameters(), flops())
    assert expected == (parameters(), flops())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_slopes_of_the_size_are_what_one_unit_costs(name: str) -> None:
    module = network(name)
    groups = unit_groups(module, *inputs(name, 1))
    size, counts = NetworkSize(module, groups), [group.units for group in groups]
    for number in range(len(groups)):
        fewer = [count - (place == number) for place, count in enumerate(counts)]
        removed = network(name)
        own = unit_groups(removed, *inputs(name, 1))
        remove_units({own[number]: list(range(counts[number] - 1))})
        assert size.parameters(fewer) == sum(parameter.numel() for parameter in removed.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_moments_and_masks_are_the_old_ones_at_the_kept_places(name: str) -> None:
    module = network(name)
    optimizer = FusedAdam([{"params": module}], lr=1e-2)
    masks = ScheduledMasks(module, PolynomialSchedule(0.0, 1.0, 0.4))
    masks.grow(1.0, due=True)
    for _ in range(3):
        optimizer.descend(said(module, name).square().sum())
    old = {p: {key: optimizer.state[p][key].clone() for key in ("exp_avg", "exp_avg_sq")} for p in module.parameters()}
    before = {key: own.clone() for key, own in masks.state_dict().items()}
    weights = {key: part.weight for key, part in module.named_modules() if isinstance(part, nn.Linear)}
    gates, keep = some_dead(name, module)
    kept = remove_units(keep, beside(gates))
    gates.detach()
    optimizer.follow(kept)
    masks.follow(kept)
    for parameter, moments in old.items():
        for key, moment in moments.items():
            for axis, index in kept.get(parameter, ()):
                moment = moment.index_select(axis, index)
            assert torch.equal(optimizer.state[parameter][key], moment)
    for key, weight in weights.items():
        mask = before[f"of_{key.replace('.', '_')}"]
        for axis, index in kept.get(weight, ()):
            mask = mask.index_select(axis, index)
        assert torch.equal(masks.state_dict()[f"of_{key.replace('.', '_')}"], mask)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "batch norm"])
def test_fifty_further_updates_give_the_same_surviving_weights(name: str) -> None:
    """θ = 0 multiplies a unit's output by 0, so that the weights into it get no gradient, and those out of it none."""
    stays, goes = network(name).train(), network(name).train()
    results = []
    for module, removed in ((stays, False), (goes, True)):
        optimizer = FusedAdam([{"params": module}], lr=1e-3)
        for _ in range(5):
            optimizer.descend(said(module, name).square().sum())
        gates, keep = some_dead(name, module)
        if removed:
            optimizer.follow(remove_units(keep, beside(gates)))
            gates.follow()
        for number in range(50):
            target = torch.sin(torch.tensor(0.1 * number))
            optimizer.descend((said(module, name) - target).square().sum())
        results.append((gates, keep, dict(module.named_parameters())))
    groups = {group.name: own for group, own in results[0][1].items()}
    assert [len(theta) for theta in results[1][0].theta] == [int(own.sum()) for own in groups.values()]
    # Outputs are functions of what survives alone: of the larger network θ = 0 hides the rest.
    torch.testing.assert_close(said(stays, name), said(goes, name), rtol=1e-4, atol=1e-4)
    for key, parameter in results[1][2].items():
        other = results[0][2][key]
        for index in _axes(key, stays, results[0][0]):
            other = other.index_select(index[0], index[1])
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-4)


def _axes(key: str, module: nn.Module, gates: UnitGates) -> list[tuple[int, Tensor]]:
    """Return the rows and columns of a parameter that survive."""
    parts = dict(module.named_modules())
    layer, kind = key.rsplit(".", 1)
    found: list[tuple[int, Tensor]] = []
    for group, theta in zip(gates.groups, gates.theta, strict=True):
        index = theta.detach().nonzero().flatten()
        if parts[layer] is group.maker:
            found.append((0, index))
    if kind == "weight":
        columns = torch.ones(parts[layer].weight.shape[1], dtype=torch.bool)
        for group, theta in zip(gates.groups, gates.theta, strict=True):
            for reader in group.readers:
                if reader.layer is parts[layer]:
                    columns[reader.start : reader.start + group.units] = theta.detach().bool()
        found.append((1, columns.nonzero().flatten()))
    return found


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "batch norm"])
def test_a_loss_of_before_that_is_still_held_does_not_stand_in_the_way(name: str) -> None:
    module = network(name).train()
    held = said(module, name).square().sum()
    gates, keep = some_dead(name, module)
    remove_units(keep, beside(gates))
    gates.follow()
    loss = said(module, name).square().sum()
    loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in module.parameters())
    del held


# ---- what cannot be removed -----------------------------------------------------------------------------------------


def test_one_group_alone_is_cut_as_keep_units_cuts_it() -> None:
    one, other = network("perceptron"), network("perceptron")
    first = unit_groups(one, torch.zeros(1, 3))[0]
    kept = remove_units({first: [0, 3, 7]})
    keep_units(other[0], other[2], [0, 3, 7])
    assert torch.equal(said(one, "perceptron"), said(other, "perceptron"))
    assert [len(cuts) for cuts in kept.values()] == [1, 1, 1]


def test_a_group_beside_other_inputs_may_vanish() -> None:
    module = network("joined")
    left, right = unit_groups(module, torch.zeros(1, 3))
    remove_units({left: []})
    assert module.top.weight.shape == (2, 8)
    assert right.readers[0].start == 2
    remove_units({right: [1, 2]})
    assert module.top.weight.shape == (2, 4)
    assert said(module, "joined").isfinite().all()


def test_a_layer_that_would_read_nothing_is_refused_and_nothing_has_changed() -> None:
    module = network("perceptron")
    first, second = unit_groups(module, torch.zeros(1, 3))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError, match="one that stays at least"):
        remove_units({first: [0, 1], second: []})
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("keep", [[8], [-1], [1, 0], [0, 0], [0.5], [True, False]])
def test_what_is_no_choice_of_units_is_refused(keep: list[Any]) -> None:
    module = MLP((3, 8, 2))
    with pytest.raises(ConfigError, match="of the 8 units of 0: expected ascending indices of 0 to 7"):
        remove_units({unit_groups(module, torch.zeros(1, 3))[0]: keep})
