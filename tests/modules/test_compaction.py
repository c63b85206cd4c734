"""Compacting: a pruned network without its dead units says what it said, and costs what its widths cost."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agents.dqn import DuelingQNetwork
from agents.nets.mlp import MLP
from agents.nets.networks import Critic
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import magnitude_masks
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.modules.compaction import compact_, compacted, dead_units
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.unit_groups import unit_groups
from budget_wrappers.modules.units import gated
from tests.modules.networks import NETWORKS, inputs, network

ROWS = 1_000

# ---- the law, on random networks ------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[list[int], str], nn.Module]] = {
    "perceptron": lambda hidden, activation: MLP((3, *hidden, 2), activation),
    "values": lambda hidden, activation: DuelingQNetwork(3, 4, hidden, activation),
    "critic": lambda hidden, activation: Critic(3, 2, hidden, activation, heads=2),
    "exits": lambda hidden, activation: EarlyExitNetwork(3, 2, hidden, activation=activation),
}


def drawn(kind: str, seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a random network of a random sparsity, float64 in every second case, and rows that it takes."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    hidden = [draw.randint(1, 40) for _ in range(draw.randint(1, 3))]
    made = KINDS[kind](hidden, draw.choice(["relu", "tanh"])).to((torch.float32, torch.float64)[seed % 2])
    masked(made, draw.uniform(0.5, 0.99), draw.choice(["erk", "uniform"]))
    sizes = (3, 2) if kind == "critic" else (3,)
    return made, tuple(torch.randn(ROWS, size).to(next(made.parameters())) for size in sizes)


@torch.no_grad()
def masked(module: nn.Module, sparsity: float, distribution: Any = "erk") -> None:
    weights = [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    masks = magnitude_masks(weights, sparsity, [torch.ones_like(weight) for weight in weights], distribution)
    for weight, mask in zip(weights, masks, strict=True):
        weight.mul_(mask)


@torch.no_grad()
def answer(module: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
    """Return everything that a network says, as one vector."""
    output = module(*given)
    return torch.cat([part.flatten() for part in (output if isinstance(output, tuple) else (output,))])


def same(one: Tensor, other: Tensor) -> None:
    """Compare to 1e-6 of the largest number, to 1e-12 in float64."""
    within = (1e-12 if one.dtype == torch.float64 else 1e-6) * float(one.abs().max())
    torch.testing.assert_close(other, one, rtol=0.0, atol=within)


def products(module: nn.Module) -> int:
    """Return the FLOPs of one row by the widths: each layer of these networks runs once."""
    return sum(2 * part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("kind", KINDS)
def test_a_compacted_network_says_what_it_said_and_costs_what_its_widths_cost(kind: str, seed: int) -> None:
    module, rows = drawn(kind, seed)
    row = tuple(torch.zeros_like(given[:1]) for given in rows)
    before, widths = answer(module, rows), [part.weight.shape for part in module.modules() if hasattr(part, "weight")]
    small = compacted(module, *row)
    same(before, answer(small, rows))
    assert count_flops(small, *row) == products(small) <= products(module)
    # Nothing dead is left, but the one unit of a layer that is dead as a whole.
    for dead in dead_units(small, *row).values():
        assert len(dead.no_input) == 1 or not (dead.no_input | dead.no_output).any()
    # The network that was given is as it was.
    assert widths == [part.weight.shape for part in module.modules() if hasattr(part, "weight")]
    assert torch.equal(answer(module, rows), before)


def test_most_of_the_random_networks_have_dead_units() -> None:
    drawn_networks = [drawn(kind, seed)[0] for kind in KINDS if kind != "critic" for seed in range(10)]
    smaller = [products(compacted(own, zeros_for(own))) < products(own) for own in drawn_networks]
    assert sum(smaller) > len(smaller) / 2


def zeros_for(module: nn.Module) -> Tensor:
    return torch.zeros(1, 3, dtype=next(module.parameters()).dtype)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sparsity", [0.6, 0.9])
def test_networks_of_every_kind_can_be_compacted(name: str, sparsity: float) -> None:
    module = network(name).double()
    masked(module, sparsity)
    rows = tuple(given.double() for given in inputs(name, ROWS))
    small = compacted(module, *(given[:1] for given in rows))
    same(answer(module, rows), answer(small, rows))


@pytest.mark.parametrize("seed", range(20))
def test_a_unit_is_dead_as_the_function_has_it(seed: int) -> None:
    """The oracle asks values and derivatives: a unit without inputs never varies, one without outputs has a slope of 0.

    Of tanh neither happens to a living unit, as its slope is nowhere 0.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    module = MLP((3, *(draw.randint(2, 12) for _ in range(3)), 2), "tanh").double()
    masked(module, draw.uniform(0.7, 0.95))
    x, units = torch.randn(50, 3, dtype=torch.float64), []
    for part in module:
        x = part(x)
        if isinstance(part, nn.Tanh):
            units.append(x)
    slopes = torch.autograd.grad(x.sum(), units, allow_unused=True, materialize_grads=True)
    for (no_input, no_output), own, slope in zip(
        dead_units(module, torch.zeros(1, 3, dtype=torch.float64)).values(), units, slopes, strict=True
    ):
        assert torch.equal(no_input, ((own - own[0]).abs() < 1e-12).all(0))  # rows of a product round apart
        assert torch.equal(no_output, (slope == 0).all(0))


# ---- by hand --------------------------------------------------------------------------------------------------------


def by_hand() -> nn.Sequential:
    """Return f(x) = w·relu(x·[1, 0, 1] + [0, 2, 0]) + b, w = [1, 3, 0] and b = ½: unit 1 is constant, 2 is not read."""
    made = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1)).requires_grad_(False)
    made[0].weight.copy_(torch.tensor([[1.0], [0.0], [1.0]]))
    made[0].bias.copy_(torch.tensor([0.0, 2.0, 0.0]))
    made[2].weight.copy_(torch.tensor([[1.0, 3.0, 0.0]]))
    made[2].bias.fill_(0.5)
    return made


def test_what_a_unit_without_inputs_says_joins_the_bias_of_its_reader() -> None:
    module = by_hand()
    (dead,) = dead_units(module, torch.zeros(1, 1)).values()
    assert dead.no_input.tolist() == [False, True, False]
    assert dead.no_output.tolist() == [False, False, True]
    small = compacted(module, torch.zeros(1, 1))
    assert small[0].weight.tolist() == [[1.0]]
    assert small[2].weight.tolist() == [[1.0]]
    assert small[2].bias.tolist() == [0.5 + 3 * 2.0]  # ½ + 3·relu(2)


def test_removals_pass_on_to_both_sides() -> None:
    # 0 → 1 → 2 is a chain: unit 0 of the first layer alone reads nothing, so unit 0 of the second says a constant, too;
    # unit 1 of the third is not read, so unit 1 of the second, which only it reads, has no output.
    module = MLP((1, 3, 3, 3, 1), "tanh").requires_grad_(False)
    for layer in module.linears:
        layer.weight.copy_(torch.eye(*layer.weight.shape) if layer.weight.shape[1] > 1 else 1.0)
    first, *_, last = module.linears
    first.weight[0] = 0.0
    last.weight.copy_(torch.tensor([[1.0, 0.0, 1.0]]))
    found = dead_units(module, torch.zeros(1, 1))
    assert [dead.no_input.tolist() for dead in found.values()] == [[True, False, False]] * 3
    assert [dead.no_output.tolist() for dead in found.values()] == [[False, True, False]] * 3
    small, x = compacted(module, torch.zeros(1, 1)), torch.randn(ROWS, 1)
    assert small.sizes == (1, 1, 1, 1, 1)
    same(answer(module, (x,)), answer(small, (x,)))


def test_one_unit_stays_in_a_layer_that_is_dead_as_a_whole() -> None:
    module = MLP((3, 8, 6, 2), "relu").requires_grad_(False)
    module.linears[1].weight.zero_()
    small, x = compacted(module, torch.zeros(1, 3)), torch.randn(ROWS, 3)
    assert small.sizes == (3, 1, 1, 2)
    same(answer(module, (x,)), answer(small, (x,)))
    assert (answer(small, (x,)).view(ROWS, 2).std(0) == 0).all()


def test_a_constant_that_no_bias_can_hold_stays_unless_it_is_0() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)).requires_grad_(False)
    module[0].weight[:2] = 0.0
    module[0].bias.copy_(torch.tensor([1.0, -1.0, 0.0]))  # relu: 1 stays, 0 goes
    small, x = compacted(module, torch.zeros(1, 2)), torch.randn(ROWS, 2)
    assert small[0].bias.tolist() == [1.0, 0.0]
    same(answer(module, (x,)), answer(small, (x,)))


def test_a_unit_that_had_to_stay_goes_with_the_layer_that_read_it() -> None:
    # The first unit says 1 to a layer without bias whose only unit that reads it says a constant itself: that one goes
    # into the last bias, and then nothing reads the first.
    module = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 1))
    module.requires_grad_(False)
    module[0].weight.copy_(torch.tensor([[0.0], [1.0]]))
    module[2].weight.copy_(torch.eye(2))
    small, x = compacted(module, torch.zeros(1, 1)), torch.randn(ROWS, 1)
    assert [part.out_features for part in small if isinstance(part, nn.Linear)] == [1, 1, 1]
    same(answer(module, (x,)), answer(small, (x,)))


class Shared(nn.Module):
    """Two readers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.right.bias = self.left.bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return torch.cat([self.left(x), self.right(x)], 1)


class Scaled(nn.Linear):
    """Adds its bias twice: what joins it would count twice."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, 2 * self.bias)


@pytest.mark.parametrize(
    "module",
    [
        Shared(),
        nn.Sequential(nn.Linear(2, 4), nn.Tanh(), Scaled(4, 2)),
    ],
    ids=["a bias of two layers", "a bias that counts twice"],
)
def test_a_constant_stays_where_a_bias_would_not_say_the_same(module: nn.Module) -> None:
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    with torch.no_grad():
        layers[0].weight[0] = 0.0  # says a constant that is read
        for reader in layers[1:]:
            reader.weight[:, 1] = 0.0  # not read: goes in any case
    small = compacted(module, torch.zeros(1, 2))
    assert unit_groups(small, torch.zeros(1, 2))[0].units == 3
    x = torch.randn(ROWS, 2)
    same(answer(module, (x,)), answer(small, (x,)))


def test_batch_norms_are_part_of_the_constant() -> None:
    module = network("batch norm").double()
    with torch.no_grad():
        module[0].weight[:3] = 0.0
    x, calm = torch.randn(ROWS, 3).double(), torch.zeros(1, 3).double()
    small = compacted(module, calm)
    # The layer that reads them has no bias: they stay, as silu(norm(bias)) is not 0.
    assert small[0].out_features == 8
    module[3].bias = nn.Parameter(torch.zeros(6).double())
    small = compacted(module, calm)
    assert small[0].out_features == small[1].num_features == len(small[1].running_mean) == 5
    same(answer(module, (x,)), answer(small, (x,)))
    # In place the network may go on in training mode, where the norm says another constant.
    assert compact_(module, calm) == {}


def test_gates_are_folded_into_the_copy() -> None:
    module = network("perceptron")
    gates = gated(module, torch.zeros(1, 3))
    gates.theta[0].data[:3], gates.theta[1].data[:2] = 0.0, 0.5
    small, x = compacted(module, torch.zeros(1, 3)), torch.randn(ROWS, 3)
    assert small.sizes == (3, 5, 6, 2)
    same(answer(module, (x,)), answer(small, (x,)))
    for refused in (dead_units, compact_):
        with pytest.raises(ConfigError, match="with gates on its units: expected a network without"):
            refused(module, torch.zeros(1, 3))


def test_looking_for_constants_charges_nothing_and_leaves_no_hook() -> None:
    module, meter = by_hand(), ComputeMeter()
    meter.watch(module, "policy")
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    module.train()
    compacted(module, torch.zeros(1, 1))
    compact_(module, torch.zeros(1, 1))
    assert meter.totals["act"] == meter.totals["learn"] == 0
    assert hooks == [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    assert all(part.training for part in module.modules())


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    module = by_hand()
    module.lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be copied"):
        compacted(module, torch.zeros(1, 1))
