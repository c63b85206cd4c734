"""Taking units out of layers: outputs stay where the units were dead, parameters stay the same objects."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.nets.mlp import MLP
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.surgery import keep_units, merged

KEEP = [0, 2, 3, 6]
DEAD = [1, 4, 5, 7]


def perceptron(sizes: tuple[int, ...] = (3, 8, 5, 2)) -> MLP:
    torch.manual_seed(0)
    return MLP(sizes, "relu")


@torch.no_grad()
def without_outgoing(consumers: list[nn.Linear], dead: list[int]) -> None:
    for consumer in consumers:
        consumer.weight[:, dead] = 0.0


# ---- outputs ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(units=st.integers(1, 12), data=st.data(), activation=st.sampled_from(["relu", "tanh"]))
def test_outputs_stay_if_nothing_reads_the_removed_units(units: int, data: st.DataObject, activation: str) -> None:
    keep = sorted(data.draw(st.sets(st.integers(0, units - 1), min_size=1)))
    torch.manual_seed(units)
    network = MLP((3, units, 4, 2), activation)
    first, second, _ = network.linears
    without_outgoing([second], [unit for unit in range(units) if unit not in keep])
    x = torch.randn(9, 3)
    before = network(x)
    keep_units(first, second, keep)
    torch.testing.assert_close(network(x), before, atol=1e-6, rtol=1e-5)
    assert network.sizes == (3, len(keep), 4, 2)


def test_outputs_stay_if_the_removed_units_always_give_zero() -> None:
    network = perceptron()
    first, second, _ = network.linears
    with torch.no_grad():
        first.weight[DEAD], first.bias[DEAD] = 0.0, -1.0  # relu(−1) = 0, whatever reads it
    x = torch.randn(9, 3)
    before = network(x)
    keep_units(first, second, KEEP)
    torch.testing.assert_close(network(x), before, atol=1e-6, rtol=1e-5)


def test_rows_and_columns_left_are_those_kept() -> None:
    network = perceptron()
    first, second, third = network.linears
    old = copy.deepcopy([first, second, third])
    keep_units(first, second, KEEP)
    assert torch.equal(first.weight, old[0].weight[KEEP])
    assert torch.equal(first.bias, old[0].bias[KEEP])
    assert torch.equal(second.weight, old[1].weight[:, KEEP])
    assert torch.equal(second.bias, old[1].bias)
    assert torch.equal(third.weight, old[2].weight)
    sizes = [(layer.in_features, layer.out_features) for layer in network.linears]
    assert sizes == [(3, 4), (4, 5), (5, 2)]


def test_every_layer_that_reads_the_units_loses_them() -> None:
    network = EarlyExitNetwork(3, 2, (8, 8))
    layer, consumers = network.stages[1][0], [network.stages[2][0], network.exits[1]]
    without_outgoing(consumers, DEAD)
    x = torch.randn(9, 3)
    before = network(x)
    keep_units(layer, consumers, KEEP)
    after = network(x)
    torch.testing.assert_close(after.output, before.output, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after.logits, before.logits, atol=1e-6, rtol=1e-5)
    # An exit is a head of 2 and a gate, the last one has no gate: 2·(3·1 + 3·2) = 18 at once; one layer of 3·4 and a
    # gate and a head on 4 more: 2·3 + 2·(12 + 4 + 8) = 54; and 4·8 and a head on 8: 2·3 + 2·(12 + 4 + 32 + 16) = 134.
    assert network.flops == (18, 54, 134)


def test_a_layer_without_a_bias_has_its_weight_cut() -> None:
    first, second = nn.Linear(3, 8, bias=False), nn.Linear(8, 2)
    kept = keep_units(first, second, KEEP)
    assert first.weight.shape == (4, 3)
    assert list(kept) == [first.weight, second.weight]


# ---- parameters and the record ------------------------------------------------------------------------------------


def test_parameters_stay_the_same_objects_and_keep_no_gradient() -> None:
    network = perceptron()
    network(torch.randn(4, 3)).sum().backward()
    before = list(network.parameters())
    first, second, third = network.linears
    keep_units(first, second, KEEP)
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_contiguous() for p in network.parameters())
    assert [p.grad is None for p in network.parameters()] == [True, True, True, False, False, False]
    assert third.weight.grad is not None


def test_the_smaller_network_learns() -> None:
    network = perceptron()
    keep_units(*network.linears[:2], KEEP)
    network(torch.randn(4, 3)).square().sum().backward()
    assert [p.grad.shape for p in network.parameters()] == [p.shape for p in network.parameters()]


def test_the_record_has_dimension_and_indices_of_each_parameter_that_lost_something() -> None:
    network = perceptron()
    first, second, _ = network.linears
    kept = keep_units(first, second, KEEP)
    found = {parameter: [(axis, index.tolist()) for axis, index in cuts] for parameter, cuts in kept.items()}
    assert found == {first.weight: [(0, KEEP)], first.bias: [(0, KEEP)], second.weight: [(1, KEEP)]}
    assert all(index.dtype == torch.int64 for cuts in kept.values() for _, index in cuts)


def test_merged_records_are_applied_in_their_order() -> None:
    network = perceptron()
    first, second, third = network.linears
    old = {p: p.detach().clone() for p in network.parameters()}
    kept = merged(keep_units(first, second, KEEP), keep_units(second, third, [1, 4]), keep_units(first, second, [0, 3]))
    # The last removal counts the units that the first had left: of KEEP = 0, 2, 3, 6 these are 0 and 6.
    for parameter, before in old.items():
        for axis, index in kept.get(parameter, ()):
            before = before.index_select(axis, index)
        assert torch.equal(before, parameter)
    assert [len(kept.get(p, ())) for p in network.parameters()] == [2, 2, 3, 1, 1, 0]
    assert torch.equal(first.weight, old[first.weight][[0, 6]])
    assert merged() == {}


def test_merging_leaves_the_records_as_they_were() -> None:
    network = perceptron()
    first, second, third = network.linears
    one, other = keep_units(first, second, KEEP), keep_units(second, third, [1, 4])
    merged(one, other)
    assert [len(cuts) for cuts in (*one.values(), *other.values())] == [1] * 6


@pytest.mark.parametrize(
    "keep",
    [
        KEEP,
        tuple(KEEP),
        torch.tensor(KEEP),
        torch.tensor(KEEP, dtype=torch.int32),
        torch.tensor([unit in KEEP for unit in range(8)]),
        [unit in KEEP for unit in range(8)],
    ],
)
def test_units_may_be_named_by_index_or_by_a_boolean_each(keep: Any) -> None:
    network, expected = perceptron(), perceptron().linears[0].weight[KEEP]
    keep_units(*network.linears[:2], keep)
    assert torch.equal(network.linears[0].weight, expected)


def test_all_units_kept_change_nothing() -> None:
    network, x = perceptron(), torch.randn(4, 3)
    before = network(x)
    keep_units(*network.linears[:2], range(8))
    assert torch.equal(network(x), before)


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keep",
    [
        [],
        [False] * 8,
        [0, 8],
        [-1, 2],
        [2, 0],
        [1, 1],
        torch.zeros(8, dtype=torch.bool),
        [True] * 7,
        [True] * 9,
        [0.5, 1.5],
        torch.tensor([1.0, 2.0]),
        torch.tensor([[0, 1], [2, 3]]),
        torch.tensor(3),
    ],
)
def test_units_that_cannot_be_kept_are_refused_and_nothing_is_changed(keep: Any) -> None:
    network = perceptron()
    before = [p.detach().clone() for p in network.parameters()]
    message = "of a layer of 8 units: expected ascending indices of 0 to 7, one at least, or a boolean for each unit"
    with pytest.raises(ConfigError, match=message):
        keep_units(*network.linears[:2], keep)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def test_a_layer_that_does_not_read_the_units_is_refused_and_nothing_is_changed() -> None:
    network = perceptron()
    first, second, third = network.linears
    message = "a following layer of 5 inputs: expected the 8 units of the layer before; pass the layers that read it"
    with pytest.raises(ConfigError, match=message):
        keep_units(first, [second, third], KEEP)
    assert network.sizes == (3, 8, 5, 2)
    assert first.weight.shape == (8, 3)
