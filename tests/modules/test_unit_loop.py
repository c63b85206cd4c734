"""Units are pruned in a loop that somebody else wrote: sizes, optimizers, targets, resuming, refusals."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.moments import follow_removal
from budget_wrappers.modules.surgery import keep_units
from budget_wrappers.modules.unit_groups import chain_group, unit_groups
from budget_wrappers.modules.unit_loop import UnitPruning
from budget_wrappers.modules.unit_pruning import UnitPruner, UnitSchedule, parameters_at_most

UPDATES = 60
QUICK = UnitSchedule(start=0.2, end=0.8, prune_every=5)
ONE = torch.zeros(1, 3)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 3e-3),
    "Adam that is fused": lambda parameters: torch.optim.Adam(parameters, 3e-3, fused=True),
    "AMSGrad": lambda parameters: torch.optim.Adam(parameters, 3e-3, amsgrad=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 3e-3),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 1e-2),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, 1e-3, momentum=0.5, centered=True),
}


class Functional(nn.Module):
    """A network as CleanRL writes them: its activations are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 16), nn.Linear(16, 12)
        self.mean, self.log_std = nn.Linear(12, 2), nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.mean(x), self.log_std(x).clamp(-5, 2)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def functional() -> Functional:
    torch.manual_seed(0)
    return Functional()


def loss_of(network: nn.Module, number: int) -> torch.Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(number))
    out = network(x)
    out = out if isinstance(out, torch.Tensor) else torch.cat(out, 1)
    return (out - x[:, :1].tanh()).square().mean()


def update(network: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    loss_of(network, number).backward()
    optimizer.step()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def pruning_of(network: nn.Module, optimizer: Any = None, most: int | None = 60, **settings: Any) -> UnitPruning:
    optimizer = optimizer or torch.optim.Adam(network.parameters(), 3e-3)
    settings = {"total_updates": UPDATES, "schedule": QUICK, "generator": generator(), **settings}
    return UnitPruning(network, optimizer, ONE, max_parameters=most, **settings)


def train(pruning: UnitPruning, start: int = 0, stop: int = UPDATES) -> None:
    for number in range(start, stop):
        update(pruning.module, pruning.optimizer, number)
        pruning.step()


# ---- the engine, in a loop that holds on to its losses ------------------------------------------------------------


def test_a_layer_is_cut_while_the_graph_of_a_former_loss_is_alive() -> None:
    # A loop's `loss` is alive until the next one is assigned, after the next forward.
    first, second = nn.Linear(3, 6), nn.Linear(6, 1)
    loss = second(first(torch.ones(2, 3))).sum()
    loss.backward()
    keep_units(first, second, [0, 4])
    other = second(first(torch.ones(2, 3))).sum()
    other.backward()
    assert first.weight.grad.shape == (2, 3)
    assert second.weight.grad.shape == (1, 2)


def test_a_run_that_jumps_over_the_learning_ends_at_the_size_asked_for() -> None:
    network = small()
    groups = unit_groups(network, torch.zeros(1, 3))
    pruner = UnitPruner(network, groups, limit=parameters_at_most(41))
    pruner.advance(0.1, 1)
    pruner.advance(1.0, 2)
    assert pruner.stage == "fixed"
    assert pruner.gates.counts() == [8]


def test_a_module_that_a_meter_watches_has_its_units_and_charges_nothing_for_being_looked_at() -> None:
    network, meter = small(), ComputeMeter("looked at")
    with meter.watch(network):
        (group,) = unit_groups(network, ONE)
    assert (group.units, meter.totals["act"], meter.totals["learn"]) == (16, 0, 0)


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [20, 60, 150, 10_000])
def test_the_module_has_at_most_the_parameters_asked_for(most: int) -> None:
    pruning = pruning_of(functional(), most=most)
    train(pruning)
    left = sum(parameter.numel() for parameter in pruning.module.parameters())
    assert left == pruning.parameters <= most
    assert pruning.units == [pruning.module.fc1.out_features, pruning.module.fc2.out_features]
    assert pruning.stage == "fixed"


def test_flops_are_limited_instead() -> None:
    pruning = pruning_of(functional(), most=None, max_flops=100)
    train(pruning)
    one, two = pruning.units
    assert 2 * (3 * one + one * two + two * 4) <= 100


def test_a_penalty_alone_decides_how_small_it_gets() -> None:
    free, dear = (pruning_of(small(), most=None, penalty=price) for price in (1e-9, 1.0))
    train(free)
    train(dear)
    assert dear.units == [1]
    assert free.units[0] > 1


def test_no_gate_is_left_in_the_end() -> None:
    pruning = pruning_of(functional())
    train(pruning)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in pruning.module.modules())


def test_a_pruned_network_solves_what_one_unit_can_solve() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    pruning = pruning_of(network, torch.optim.Adam(network.parameters(), 1e-2), 11, total_updates=600)
    train(pruning, 0, 600)
    assert pruning.units == [2]
    assert loss_of(network, -1).item() < 0.02  # 0.4 for a constant


def test_before_learning_begins_nothing_changes_to_the_bit() -> None:
    pruned, plain = functional(), functional()
    pruning, optimizer = pruning_of(pruned), torch.optim.Adam(plain.parameters(), 3e-3)
    state = torch.get_rng_state()
    for number in range(int(0.2 * UPDATES) - 1):
        update(plain, optimizer, number)
    train(pruning, 0, int(0.2 * UPDATES) - 1)
    assert all(map(torch.equal, pruned.state_dict().values(), plain.state_dict().values()))
    assert torch.equal(torch.get_rng_state(), state)


def test_finish_decides_at_once() -> None:
    pruning = pruning_of(small(), most=41)
    pruning.finish()
    assert (pruning.units, pruning.stage, pruning.finish()) == ([8], "fixed", None)


# ---- the loop's optimizer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_stay_at_the_places_that_stay(name: str) -> None:
    network = small()
    optimizer = OPTIMIZERS[name](network.parameters())
    for number in range(3):
        update(network, optimizer, number)
    parameters = list(network.parameters())
    before = {parameter: copy.copy(optimizer.state[parameter]) for parameter in parameters}
    keep = torch.tensor([0, 3, 15])
    follow_removal(optimizer, keep_units(network[0], network[2], keep))
    rows, bias, columns, output = parameters
    for parameter, index in ((rows, (keep,)), (bias, (keep,)), (columns, (slice(None), keep)), (output, ())):
        for key, value in optimizer.state[parameter].items():
            old = before[parameter][key]
            assert value is None or torch.equal(value, old[index] if old.dim() else old)
    assert optimizer.param_groups[0]["params"] == parameters
    update(network, optimizer, 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_usual_optimizer_goes_on_through_all_removals(name: str) -> None:
    network = functional()
    pruning = pruning_of(network, OPTIMIZERS[name](network.parameters()))
    train(pruning)
    assert pruning.parameters <= 60
    for parameter in network.parameters():
        for value in pruning.optimizer.state[parameter].values():
            assert value is None or value.dim() == 0 or value.shape == parameter.shape


def test_the_hook_of_the_optimizer_does_what_step_does() -> None:
    called, hooked = pruning_of(functional()), pruning_of(functional())
    train(called)
    hooked.optimizer.register_step_post_hook(hooked.hook)
    for number in range(UPDATES):
        update(hooked.module, hooked.optimizer, number)
    assert all(map(torch.equal, called.module.state_dict().values(), hooked.module.state_dict().values()))


def test_a_second_call_with_the_same_record_changes_nothing() -> None:
    network = small()
    optimizer = torch.optim.Adam(network.parameters())
    update(network, optimizer, 0)
    kept = keep_units(network[0], network[2], [1, 2])
    follow_removal(optimizer, kept)
    once = copy.deepcopy(optimizer.state_dict()["state"])
    follow_removal(optimizer, kept)
    again = optimizer.state_dict()["state"]
    assert all(torch.equal(again[number]["exp_avg"], once[number]["exp_avg"]) for number in once)


# ---- other networks ------------------------------------------------------------------------------------------------


def test_a_loss_that_runs_through_the_network_leaves_nothing_on_its_thetas() -> None:
    pruning = pruning_of(small())
    train(pruning, 0, 20)
    assert pruning.stage == "learning"
    x = torch.ones(4, 3, requires_grad=True)
    with pruning.evaluating():
        first, second = pruning.module(x), pruning.module(x)
        first.sum().backward()
    assert torch.equal(first, second)
    assert all(theta.grad is None for theta in pruning.gates.theta)
    assert x.grad.abs().sum() > 0
    pruning.module(x).sum().backward()
    assert all(theta.grad is not None for theta in pruning.gates.theta)


def test_targets_lose_the_same_units_and_their_thetas_follow() -> None:
    network = functional()
    target = copy.deepcopy(network)
    pruning = pruning_of(network, targets=target)
    (gates,) = pruning.pruner.target_gates
    for number in range(UPDATES):
        update(network, pruning.optimizer, number)
        pruning.step()
        with torch.no_grad():
            for own, other in zip(network.parameters(), target.parameters(), strict=True):
                other.lerp_(own, 0.5)
        pruning.follow_targets(0.5)
        if number == 30:
            assert not torch.equal(gates.theta[0], pruning.gates.theta[0])
            torch.testing.assert_close(gates.theta[0], pruning.gates.theta[0].detach(), atol=0.3, rtol=0)
    assert [value.shape for value in target.state_dict().values()] == [
        value.shape for value in network.state_dict().values()
    ]
    assert not any(part._forward_hooks for part in target.modules())


def test_groups_said_by_hand_are_found_in_targets_by_name() -> None:
    network = small()
    groups = [chain_group([network[0], network[1]], [network[2]])]
    pruning = pruning_of(network, most=41, groups=groups, targets=[copy.deepcopy(network)])
    train(pruning)
    assert [gates.counts() for gates in (pruning.gates, *pruning.pruner.target_gates)] == [pruning.units] * 2


# ---- resuming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [5, 30, 59])
def test_a_run_that_is_resumed_ends_as_one_that_was_not_interrupted(at: int) -> None:
    whole = pruning_of(functional(), targets=functional())
    train(whole, 0, at)
    state = copy.deepcopy(
        (whole.state_dict(), whole.module.state_dict(), whole.optimizer.state_dict(), whole_generator(whole))
    )
    train(whole, at)
    resumed = pruning_of(functional(), targets=functional())
    resumed.load_state_dict(state[0])
    resumed.module.load_state_dict(state[1])
    resumed.optimizer.load_state_dict(state[2])
    whole_generator(resumed, state[3])
    train(resumed, at)
    assert all(map(torch.equal, whole.module.state_dict().values(), resumed.module.state_dict().values()))


def whole_generator(pruning: UnitPruning, state: torch.Tensor | None = None) -> torch.Tensor:
    """Return the state of the generator of the draws, after putting one in."""
    generator = pruning.gates._gates[0].generator
    return generator.get_state() if state is None else generator.set_state(state).get_state()


def test_a_state_of_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("a state of [16, 12] units with 0 targets: expected at most [16]")):
        pruning_of(small()).load_state_dict(pruning_of(functional()).state_dict())


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_updates": 0}, "total_updates=0: expected at least 1"),
        ({"most": -3}, "max_parameters=-3: expected a size above 0"),
        ({"max_flops": 3}, "max_flops=3: expected None beside max_parameters=60"),
        ({"most": None}, "no max_parameters, max_flops or penalty: expected one of them"),
        ({"penalty": 0.0}, "penalty=0.0: expected a price above 0"),
        ({"learning_rate": "quick"}, "learning_rate='quick': expected 'auto' or a number above 0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: expected 'auto' or a number above 0"),
        ({"schedule": 0.3}, "schedule=0.3: expected a UnitSchedule"),
        ({"generator": 3}, "generator=3: expected a torch.Generator"),
        ({"targets": nn.Linear(3, 1)}, "a target Linear without a counterpart of '0'"),
        ({"targets": "copy"}, "targets='c': expected torch modules"),
        ({"groups": [3]}, "groups=3: expected groups of units"),
        ({"groups": []}, "expected one hidden layer at least"),
    ],
)
def test_bad_input_is_named_with_what_was_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pruning_of(small(), **settings)


def test_a_size_below_the_smallest_network_is_infeasible() -> None:
    with pytest.raises(InfeasibleBudgetError, match="5 parameters: expected 6 at least"):
        pruning_of(small(), most=5)


def test_an_optimizer_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected the weight of 0 among them.*pass the optimizer that steps"):
        pruning_of(small(), torch.optim.Adam(small().parameters()))


def test_a_module_that_never_trains_is_named() -> None:
    pruning = pruning_of(small())
    pruning.module.eval()
    with pytest.raises(ConfigError, match=r"no gradient has reached .* the 16 units .*call module.train\(\)"):
        train(pruning)


def test_an_optimizer_whose_state_cannot_be_cut_is_refused_before_anything_is_removed() -> None:
    network = small()
    optimizer = torch.optim.Adafactor(network.parameters())
    pruning = pruning_of(network, optimizer)
    with pytest.raises(ConfigError, match=r"Adafactor keeps 'row_var', a tensor of shape \(16, 1\).*use Adam"):
        train(pruning)
    assert pruning.units == [16]
