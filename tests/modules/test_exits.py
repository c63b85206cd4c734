"""Early exits: acting gives what the exit taken says, and does none of the work behind it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from budget_wrappers.deploy.numpy_exits import NumpyExits
from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import count_flops
from budget_wrappers.modules.exits import EarlyExitNetwork

INPUTS, OUTPUTS = 5, 3
shapes = st.tuples(
    st.lists(st.integers(1, 7), min_size=0, max_size=3), st.integers(0, 1_000), st.sampled_from(["relu", "tanh"])
)


def network_of(
    hidden: list[int], seed: int, activation: str, exit_after: list[int] | None = None, reads_budget: bool = False
) -> EarlyExitNetwork:
    torch.manual_seed(seed)
    return EarlyExitNetwork(INPUTS, OUTPUTS, hidden, exit_after, activation, reads_budget)


def forced(network: EarlyExitNetwork, exit_index: int) -> EarlyExitNetwork:
    """Let every row leave at one exit, and make whatever lies behind it give NaN."""
    with torch.no_grad():
        for number, layer in enumerate(network.exits[:-1]):
            layer.bias[-1] = 1e6 if number == exit_index else -1e6
        for stage, layer in list(zip(network.stages, network.exits, strict=True))[exit_index + 1 :]:
            for parameter in (*stage.parameters(), *layer.parameters()):
                parameter.fill_(float("nan"))
    return network


@settings(max_examples=80, deadline=None)
@given(shape=shapes, rows=st.integers(0, 9), reads_budget=st.booleans())
def test_acting_says_what_the_exit_taken_says_in_torch_and_numpy(shape: tuple, rows: int, reads_budget: bool) -> None:
    network = network_of(*shape, reads_budget=reads_budget)
    x, draws = torch.randn(rows, INPUTS), torch.rand(rows, len(network.exits) - 1)
    x[:, -1] = torch.rand(rows)
    output, logits = network(x)
    opened = torch.cat([torch.sigmoid(logits) > draws, torch.ones(rows, 1, dtype=torch.bool)], 1)
    first = opened.float().argmax(1)
    expected = output[first, torch.arange(rows)]
    said, taken = network.leave(x, draws)
    assert torch.equal(taken, first)
    assert torch.allclose(said, expected, atol=1e-5)
    engine = NumpyExits(network)
    said, taken = engine.leave(x.numpy(), draws.numpy())
    assert np.array_equal(taken, first.numpy())
    np.testing.assert_allclose(said, expected.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(engine.every(x.numpy()), output.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(engine.last(x.numpy()), output[-1].detach().numpy(), atol=1e-5)
    for number, said in enumerate(output):
        np.testing.assert_allclose(engine.at(x.numpy(), number), said.detach().numpy(), atol=1e-5)
        assert torch.allclose(network.at(x, number), said, atol=1e-5)
    assert torch.allclose(network.every(x), output, atol=1e-5)
    assert torch.allclose(network.last(x), output[-1], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, rows=st.integers(1, 9))
def test_what_runs_is_what_the_exits_taken_cost(shape: tuple, rows: int) -> None:
    network = network_of(*shape)
    x, draws = torch.randn(rows, INPUTS), torch.rand(rows, len(network.exits) - 1)
    with FlopCounterMode(display=False) as counter:
        _, taken = network.leave(x, draws)
    # torch's counter knows no product of a matrix and a vector: gates are added by hand
    gates = sum(2 * layer.in_features * int((taken >= n).sum()) for n, layer in enumerate(network.exits[:-1]))
    assert counter.get_total_flops() + gates == sum(network.flops[k] for k in taken.tolist())
    assert count_flops(lambda: network.leave(x, draws)) == sum(network.flops[k] for k in taken.tolist())


def test_costs_are_those_of_the_stages_passed_the_gates_asked_and_one_head() -> None:
    network = EarlyExitNetwork(17, 12, [256, 256])
    # the observation itself: gate 2·17, head 2·17·12; then layers 2·17·256, 2·256², gate 2·256, heads 2·256·12
    first, second = 2 * 17, 2 * 17 * 256 + 2 * 256
    assert network.flops == (
        first + 2 * 17 * 12,
        first + second + 2 * 256 * 12,
        first + second + 2 * 256 * 256 + 2 * 256 * 12,
    )


@pytest.mark.parametrize("exit_index", [0, 1, 2])
@pytest.mark.parametrize("rows", [1, 4])
def test_nothing_behind_an_open_gate_is_computed(exit_index: int, rows: int) -> None:
    network = forced(network_of([6, 6], 0, "relu"), exit_index)
    x = torch.randn(rows, INPUTS)
    for draws in (None, torch.rand(rows, 2)):
        assert torch.isfinite(network.leave(x, draws)[0]).all()
        said, taken = NumpyExits(network).leave(x.numpy(), None if draws is None else draws.numpy())
        assert np.isfinite(said).all()
        assert taken.tolist() == [exit_index] * rows


@pytest.mark.parametrize("exit_index", [0, 1, 2])
def test_an_exit_that_is_asked_for_runs_nothing_behind_it_and_no_gate(exit_index: int) -> None:
    network = forced(network_of([6, 6], 0, "relu"), exit_index)
    with torch.no_grad():
        for layer in network.exits[:-1]:  # gates, which stand in the last row, and the heads passed
            layer.weight[OUTPUTS:].fill_(float("nan"))
        for layer in network.exits[:exit_index]:
            layer.weight.fill_(float("nan"))
    x = torch.randn(4, INPUTS)
    assert torch.isfinite(network.at(x, exit_index)).all()
    assert np.isfinite(NumpyExits(network).at(x.numpy(), exit_index)).all()
    # layers 2·5·6 and 2·6·6 as far as they are passed, then one head: 2·5·3 on the input, else 2·6·3
    by_hand = (2 * 5 * 3, 2 * 5 * 6 + 2 * 6 * 3, 2 * 5 * 6 + 2 * 6 * 6 + 2 * 6 * 3)
    assert count_flops(network.at, x[:1], exit_index) == by_hand[exit_index]


@pytest.mark.parametrize("exit_after", [[0], [2], [0, 2], [1, 3], [0, 1, 2, 3]])
def test_any_ascending_subset_of_depths_is_legal(exit_after: list[int]) -> None:
    network = network_of([4, 5, 6], 0, "tanh", exit_after)
    output, logits = network(torch.randn(7, INPUTS))
    assert (output.shape, logits.shape) == ((len(exit_after), 7, OUTPUTS), (7, len(exit_after) - 1))
    # The trunk ends at the last exit.
    assert sum(len(stage) for stage in network.stages) == 2 * exit_after[-1]
    assert count_flops(network, torch.randn(1, INPUTS)) >= network.flops[-1]


@pytest.mark.parametrize("exit_after", [[], [0, 0], [1, 0], [-1, 1], [0, 4], [0.5]])
def test_other_exits_are_refused(exit_after: list) -> None:
    with pytest.raises(ConfigError, match="expected different depths of 0 to 3 in ascending order"):
        network_of([4, 4, 4], 0, "relu", exit_after)


def test_the_engine_follows_steps_of_the_module_and_copies_its_copy() -> None:
    network = network_of([4], 0, "relu")
    both = {"network": network, "engine": NumpyExits(network)}
    twin = copy.deepcopy(both)
    x = torch.randn(3, INPUTS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    network.exits[1].weight = torch.nn.Parameter(network.exits[1].weight.detach().clone())
    for pair in (both, twin):
        expected = pair["network"](x).output.detach().numpy()
        np.testing.assert_allclose(pair["engine"].every(x.numpy()), expected, atol=1e-5)
    assert not np.allclose(both["engine"].every(x.numpy()), twin["engine"].every(x.numpy()))


def test_a_pickled_engine_says_the_same() -> None:
    engine = NumpyExits(network_of([4], 0, "relu"))
    x = np.ones((2, INPUTS), np.float32)
    assert np.array_equal(pickle.loads(pickle.dumps(engine)).every(x), engine.every(x))


def test_gradients_reach_the_trunk_from_every_exit_and_gate() -> None:
    network = network_of([4, 4], 1, "tanh")
    output, logits = network(torch.randn(6, INPUTS))
    for said in (output[1], output[2], logits[:, 1]):
        gradient = torch.autograd.grad(said.sum(), network.stages[1][0].weight, retain_graph=True)[0]
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full_backward_pre", "full_backward"])
def test_a_hook_on_a_stage_sees_it_run(kind: str) -> None:
    network, seen = EarlyExitNetwork(3, 2, [4, 4]), []
    x = torch.randn(5, 3, requires_grad=True)
    expected = network(x)
    getattr(network.stages[1], f"register_{kind}_hook")(lambda *given: seen.append(kind))
    said = network(x)
    said.output.sum().backward()
    assert seen == [kind]
    torch.testing.assert_close(said, expected)


def test_depths_of_numpy_s_are_whole_numbers_and_booleans_are_not() -> None:
    for depths in (np.array([0, 2]), [np.int64(0), np.int32(2)]):
        found = EarlyExitNetwork(3, 2, [4, 4], depths).depths
        assert found == (0, 2)
        assert {type(depth) for depth in found} == {int}
    for depths in ([False, True], np.array([False, True]), [0.0, 1.0], ["0"]):
        with pytest.raises(ConfigError, match="expected different depths of 0 to 2"):
            EarlyExitNetwork(3, 2, [4, 4], depths)


def test_an_activation_that_no_engine_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="activation='gelu': expected one of relu, tanh"):
        EarlyExitNetwork(3, 2, [4, 4], activation="gelu")


@pytest.mark.parametrize("exit_index", [-1, 3])
def test_an_exit_that_is_not_there_is_named(exit_index: int) -> None:
    network = EarlyExitNetwork(3, 2, [4, 4])
    for at, x in ((network.at, torch.zeros(1, 3)), (NumpyExits(network).at, np.zeros((1, 3), np.float32))):
        with pytest.raises(IndexError, match=f"exit_index={exit_index}: expected 0, the first exit, to 2"):
            at(x, exit_index)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, layerwise=st.booleans())
def test_a_gate_that_has_learned_nothing_opens_with_what_the_budget_leaves(shape: tuple, layerwise: bool) -> None:
    network = network_of(*shape, reads_budget=True)
    with torch.no_grad():
        for layer in network.exits[:-1]:
            layer.weight[-1], layer.bias[-1] = 0.0, 0.0
    if layerwise:
        network.exits[-1].register_forward_hook(lambda *_: None)  # who watches a layer sees it run
    x = torch.randn(5, INPUTS)
    x[:, -1] = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    # 1 − b, but for the hundredth that is left to chance at the ends
    expected = torch.tensor([[0.99], [0.8], [0.5], [0.1], [0.01]]).expand(5, len(network.exits) - 1)
    assert torch.allclose(torch.sigmoid(network(x).logits), expected, atol=1e-6)


def test_a_budget_costs_no_matrix_product_and_reaches_the_gates_alone() -> None:
    plain, reading = (network_of([8, 8], 0, "relu", reads_budget=reads) for reads in (False, True))
    assert reading.flops == plain.flops
    x = torch.rand(6, INPUTS)
    assert torch.equal(reading(x).output, plain(x).output)
    odds = torch.log(x[:, -1:] / (1 - x[:, -1:]))
    inner = ((x[:, -1] > 0.01) & (x[:, -1] < 0.99)).numpy()
    difference = (plain(x).logits - reading(x).logits).detach().numpy()
    np.testing.assert_allclose(difference[inner], np.broadcast_to(odds, (6, 2))[inner], atol=1e-5)


@pytest.mark.parametrize("reads_budget", [False, True])
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_row_alone_leaves_where_it_leaves_among_others(activation: str, drawn: bool, reads_budget: bool) -> None:
    torch.manual_seed(0)
    engine = NumpyExits(EarlyExitNetwork(5, 2, [8, 8], [0, 1, 2], activation, reads_budget))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    draws = rng.random((60, 2), dtype=np.float32) if drawn else None
    said, taken = engine.leave(x, draws)
    assert not drawn or set(taken.tolist()) == {0, 1, 2}
    for row in range(60):
        one, exit_index = engine.leave(x[row : row + 1], None if draws is None else draws[row : row + 1])
        assert exit_index.tolist() == [taken[row]]
        np.testing.assert_allclose(one, said[row : row + 1], rtol=1e-5, atol=1e-6)
