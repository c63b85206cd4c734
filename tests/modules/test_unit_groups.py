"""The hidden units of a network are found by watching it run: who makes them, who reads them, and where."""

import functools
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.unit_groups import chain_group, unit_groups
from tests.modules.networks import NETWORKS, inputs, network, said

FOUND = {
    "perceptron": {"0": (8, ["2"]), "2": (6, ["4"])},
    "gaussian": {"net.0": (8, ["net.2"]), "net.2": (6, ["net.4"])},
    "deterministic": {"net.0": (8, ["net.2"]), "net.2": (6, ["net.4"])},
    "critic": {
        "members.0.0": (8, ["members.0.2"]),
        "members.0.2": (6, ["members.0.4"]),
        "members.1.0": (8, ["members.1.2"]),
        "members.1.2": (6, ["members.1.4"]),
    },
    "values": {"net.0": (8, ["net.2"]), "net.2": (6, ["net.4"])},
    "dueling": {
        "trunk.0.0": (8, ["advantage.0", "value.0"]),
        "advantage.0": (6, ["advantage.2"]),
        "value.0": (6, ["value.2"]),
    },
    "exits": {"stages.1.0": (8, ["exits.1", "stages.2.0"]), "stages.2.0": (6, ["exits.2"])},
    "sparse exits": {
        "stages.1.0": (8, ["exits.1", "stages.2.0"]),
        "stages.2.0": (6, ["stages.2.2"]),
        "stages.2.2": (5, ["exits.2"]),
    },
    "batch norm": {"0": (8, ["3"]), "3": (6, ["5"])},
    "functions": {"fc1": (8, ["fc2"]), "fc2": (6, ["log_std", "mean"])},
    "joined": {"left": (8, ["top"]), "right": (6, ["top"])},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gradients", [True, False])
def test_every_hidden_layer_is_a_group_with_all_its_readers(name: str, gradients: bool) -> None:
    module = network(name)
    names = {part: key for key, part in module.named_modules()}
    with torch.set_grad_enabled(gradients):
        groups = unit_groups(module, *inputs(name, 1))
    assert {g.name: (g.units, sorted(names[r.layer] for r in g.readers)) for g in groups} == FOUND[name]


def test_units_beside_other_inputs_know_where_they_begin() -> None:
    starts = {group.name: group.readers[0].start for group in unit_groups(network("joined"), torch.zeros(1, 3))}
    assert starts == {"left": 2, "right": 10}


def test_batch_norms_belong_to_the_units_that_they_normalise() -> None:
    module = network("batch norm")
    groups = unit_groups(module, torch.zeros(2, 3))
    assert [group.norms for group in groups] == [(module[1],), ()]


class Foreign(nn.Module):
    """A layer whose units are also added to something."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.third(x + torch.relu(self.second(x)))


@pytest.mark.parametrize(
    "module",
    [
        Foreign(),
        nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(3, 8), nn.Softmax(1), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
    ],
    ids=["residual", "layer norm", "softmax", "output"],
)
def test_units_that_go_anywhere_else_are_left_alone(module: nn.Module) -> None:
    assert unit_groups(module, torch.zeros(1, 3)) == []


def test_a_layer_that_runs_twice_is_left_alone() -> None:
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(3, 2))
    assert unit_groups(module, torch.zeros(1, 3)) == []


def test_the_module_runs_in_evaluation_mode_and_is_left_as_it_was() -> None:
    module = network("batch norm").train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert len(unit_groups(module, torch.zeros(1, 3))) == 2
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_another_thread_sees_nothing_of_it() -> None:
    """Watching is a mode of the thread that watches: a network elsewhere runs as it does, and joins no group."""
    inside, over, other = threading.Event(), threading.Event(), network("perceptron", seed=5)

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network("perceptron")

        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            assert over.wait(10)
            return self.net(x)

    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(g.name for g in unit_groups(Waits(), torch.zeros(1, 3))))
    thread.start()
    assert inside.wait(10)
    before = other(torch.ones(1, 3))
    over.set()
    thread.join()
    assert found == ["net.0", "net.2"]
    assert torch.equal(other(torch.ones(1, 3)), before)


def test_layers_that_do_not_run_as_they_are_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    for number in (0, 2):
        parametrizations.spectral_norm(module[number])
    with pytest.raises(ConfigError, match="before it is compiled or parametrised"):
        unit_groups(module, torch.zeros(1, 3))


def test_a_group_said_by_hand_is_the_one_that_is_found() -> None:
    module = network("batch norm")
    by_hand = chain_group([module[0], module[1], module[2]], [module[3]], "0")
    found = unit_groups(module, torch.zeros(1, 3))[0]
    assert (by_hand.maker, by_hand.norms, by_hand.readers[0].layer) == (
        found.maker,
        found.norms,
        found.readers[0].layer,
    )


def test_groups_by_hand_that_cannot_be_are_refused() -> None:
    layer, reader = nn.Linear(3, 8), nn.Linear(8, 2)
    with pytest.raises(ConfigError, match=r"a torch\.nn\.Linear first"):
        chain_group([nn.ReLU()], [reader])
    with pytest.raises(ConfigError, match="each unit by itself"):
        chain_group([layer, nn.LayerNorm(8)], [reader])
    with pytest.raises(ConfigError, match="a reader of 7 inputs: expected the 8 units"):
        chain_group([layer], [nn.Linear(7, 2)])


class Two(nn.Module):
    """Two layers, joined as ``way`` says."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.c, self.way = nn.Linear(3, 8), nn.Linear(8, 2), way

    def forward(self, x: Tensor) -> Any:
        if self.way == "functional maker":
            return self.c(torch.relu(nn.functional.linear(x, self.a.weight, self.a.bias)))
        h = torch.relu(self.a(x))
        if self.way == "returned":
            return self.c(h), h
        if self.way == "returned by name":
            return {"output": self.c(h), "hidden": h}
        if self.way == "written to":
            h[:, 0] = 1.0
        if self.way == "left torch":
            return self.c(h) + float(h.numpy().sum())
        if self.way == "functional reader":
            return nn.functional.linear(h, self.c.weight, bias=self.c.bias)
        if self.way == "another shape":
            return self.c(h.view(-1, 8))
        if self.way == "by keyword":
            return self.c(input=h)
        if self.way == "its bias is used":
            return self.c(h) + self.a.bias.sum()
        if self.way == "tied":
            return nn.functional.linear(self.c(h), self.a.weight.t()[:, :2])
        return self.c(h)


WAYS = ["returned", "returned by name", "written to", "left torch", "functional reader", "functional maker"]
WAYS += ["another shape", "by keyword", "its bias is used", "tied"]


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_seen_is_tried_and_left_alone(way: str) -> None:
    assert unit_groups(Two(way), torch.zeros(1, 3)) == []


def test_a_group_that_holds_is_found_beside_one_that_does_not() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), Two("left torch"))
    assert [group.name for group in unit_groups(module, torch.zeros(1, 3))] == ["0"]


def test_hooks_that_cannot_be_copied_stand_in_nobody_s_way() -> None:
    module, seen = network("dueling"), []
    held = {1: 2}.values()  # nobody copies these

    def hook(*_: Any) -> None:
        seen.append(held)

    module.trunk[0][0].register_forward_hook(functools.partial(hook, held))
    assert [group.units for group in unit_groups(module, torch.zeros(1, 3))] == [8, 6, 6]
    assert torch.equal(said(module, "dueling"), said(network("dueling"), "dueling"))
    assert seen


class Draws(nn.Module):
    """Its output has noise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.randn(2)


def test_a_module_that_draws_is_tried_with_the_same_draws_and_nobody_s_are_moved() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert [group.name for group in unit_groups(Draws(), torch.zeros(1, 3))] == ["net.0"]
    torch.manual_seed(7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batch_norms_of_another_axis_and_shared_ones_are_left_alone() -> None:
    over_time = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(8, 2)).eval()
    assert unit_groups(over_time, torch.zeros(2, 5, 3)) == []
    norm = nn.BatchNorm1d(8)
    shared = nn.Sequential(nn.Linear(3, 8), norm, nn.ReLU(), nn.Linear(8, 8), norm, nn.ReLU(), nn.Linear(8, 2)).eval()
    assert unit_groups(shared, torch.zeros(2, 3)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is imported
def test_a_compiled_module_and_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="before it is compiled"):
        unit_groups(torch.compile(Two("plain")), torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="cannot run on the example inputs"):
        unit_groups(Two("plain"), torch.zeros(1, 4))
    with pytest.raises(ConfigError, match="cannot run on the example inputs"):
        unit_groups(Two("plain"))
