"""The sparse engine: the numbers of the dense one, the faster product of each layer, and no stale copy of a weight."""

import copy
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from budget_wrappers.deploy import sparse_engine, sparse_weight
from budget_wrappers.deploy.engines import ENGINES, EnginePolicy
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.deploy.sparse_engine import SparsePerceptron, ratio_in_turns
from budget_wrappers.deploy.sparse_weight import SparseWeight
from budget_wrappers.errors import ConfigError, MissingExtraError
from budget_wrappers.modules.surgery import remove_units
from budget_wrappers.modules.unit_groups import unit_groups
from budget_wrappers.modules.units import gated
from budget_wrappers.policies.retrofit import TrainedActor

ALL = [True, True, True]
X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


def pruned(sparsity: float = 0.7, activation: str = "relu", seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    made = MLP((3, 30, 20, 4), activation)
    with torch.no_grad():
        for layer in made.linears:
            layer.weight.mul_(torch.rand_like(layer.weight) >= sparsity)
    return made


def dense(module: MLP, x: np.ndarray = X) -> np.ndarray:
    return NumpyPerceptron(module.linears, module.activation)(x)


def alone(engine: Callable[[np.ndarray], np.ndarray], x: np.ndarray = X) -> np.ndarray:
    """Return what an engine says of rows that it is given one by one."""
    return np.concatenate([engine(row[None]) for row in x])


def same(said: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(said, expected, rtol=0.0, atol=1e-6 * float(np.abs(expected).max()))


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("sparse", [ALL, [False, True, False], None])
def test_numbers_are_those_of_the_dense_engine(activation: str, sparsity: float, sparse: Any) -> None:
    module = pruned(sparsity, activation)
    engine = SparsePerceptron(module.linears, activation, sparse)
    assert alone(engine).dtype == np.float32
    same(alone(engine), dense(module))
    same(engine(X), dense(module))  # several rows
    assert engine(X[:0]).shape == (0, 4)


def test_numbers_are_the_same_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pruned()
    by_kernel = alone(SparsePerceptron(module.linears, "relu", ALL))
    monkeypatch.setattr(sparse_weight, "_kernel", lambda: None)
    np.testing.assert_array_equal(alone(SparsePerceptron(module.linears, "relu", ALL)), by_kernel)


@pytest.mark.parametrize("broken", [None, lambda *arguments: None, lambda too_few: None])
def test_a_kernel_of_another_kind_is_not_used(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    from scipy.sparse import _sparsetools

    if broken is None:
        monkeypatch.delattr(_sparsetools, "csr_matvec")
    else:
        monkeypatch.setattr(_sparsetools, "csr_matvec", broken)
    assert sparse_weight._kernel.__wrapped__() is None


def test_the_kernel_of_this_scipy_is_used() -> None:
    assert sparse_weight._kernel() is not None


def test_double_weights_and_layers_without_bias_are_evaluated_as_they_are() -> None:
    layers = [nn.Linear(3, 8, bias=False).double(), nn.Linear(8, 2).double()]
    engine = SparsePerceptron(layers, "tanh", [True, True])
    same(alone(engine), NumpyPerceptron(layers, "tanh")(X))
    assert engine(X[:1]).dtype == np.float64


def test_gates_on_units_multiply_by_their_theta() -> None:
    module = pruned(0.5)
    gates = gated(module, torch.zeros(1, 3))
    for theta in gates.theta:
        theta.data = torch.linspace(0.0, 1.0, len(theta))
    engine = SparsePerceptron(module.linears, "relu", ALL)
    same(alone(engine), module(torch.as_tensor(X)).detach().numpy())
    gates.theta[0].data.fill_(0.5)  # in place: followed
    same(alone(engine), module(torch.as_tensor(X)).detach().numpy())


def test_a_policy_acts_through_it() -> None:
    module = pruned()
    actor = TrainedActor.of_module(nn.Sequential(*module), spaces.Discrete(4), "argmax")
    policy = EnginePolicy(actor, "sparse")
    assert ENGINES["sparse"] is SparsePerceptron
    assert [int(policy.predict(row)[0]) for row in X] == dense(module).argmax(1).tolist()


# ---- the choice -----------------------------------------------------------------------------------------------------


def test_the_faster_product_of_each_layer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sparse takes half the time in the second layer, twice the time in the others.
    def seconds(copies: Sequence[SparseWeight | None]) -> float:
        factors = (2.0, 0.5, 2.0)
        return sum(1.0 if own is None else factor for own, factor in zip(copies, factors, strict=True))

    monkeypatch.setattr(SparsePerceptron, "_timed", lambda self, row, copies: copies)
    monkeypatch.setattr(sparse_engine, "ratio_in_turns", lambda before, after: seconds(after) / seconds(before))
    engine = SparsePerceptron(pruned(0.9).linears, "relu")
    assert engine.sparse_layers == (False, True, False)


def test_a_layer_with_more_weights_than_zeros_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_engine, "ratio_in_turns", lambda before, after: 0.1)
    module = pruned(0.9)
    with torch.no_grad():
        module.linears[1].weight.fill_(1.0)
    assert SparsePerceptron(module.linears, "relu").sparse_layers == (True, False, True)


@pytest.mark.parametrize(("ratio", "sparse"), [(0.94, True), (0.96, False), (1.5, False)])
def test_a_gain_within_the_noise_is_none(monkeypatch: pytest.MonkeyPatch, ratio: float, sparse: bool) -> None:
    monkeypatch.setattr(sparse_engine, "ratio_in_turns", lambda before, after: ratio)
    assert SparsePerceptron(pruned(0.9).linears, "relu").sparse_layers == (sparse,) * 3


def test_the_ratio_is_the_median_of_neighbouring_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]

    def takes(durations: list[int]) -> Callable[[], None]:
        left = list(durations)

        def call() -> None:
            now[0] += left.pop(0)

        return call

    monkeypatch.setattr(sparse_engine.time, "perf_counter_ns", lambda: now[0])
    # One turn of warm-up, then ratios of 2, 3 and ½; the machine is ten times as slow in the second.
    assert ratio_in_turns(takes([1, 10, 100, 10]), takes([99, 20, 300, 5]), turns=3) == 2.0


# ---- following ------------------------------------------------------------------------------------------------------


def test_a_step_of_any_optimizer_is_seen() -> None:
    for optimizer_of in (
        lambda module: torch.optim.Adam(module.parameters()),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
    ):
        module = pruned()
        engine, optimizer = SparsePerceptron(module.linears, "relu", ALL), optimizer_of(module)
        module(torch.as_tensor(X)).square().sum().backward()
        optimizer.step()
        same(alone(engine), dense(module))


def test_a_step_that_torch_does_not_count_is_seen() -> None:
    module = pruned()
    engine, optimizer = SparsePerceptron(module.linears, "relu", ALL), FusedAdam(module, lr=1e-2)
    versions = [layer.weight._version for layer in module.linears]
    before = alone(engine)
    optimizer.descend(module(torch.as_tensor(X)).square().sum())
    if versions != [layer.weight._version for layer in module.linears]:
        pytest.skip("this torch counts the writes of fused kernels")
    assert np.abs(dense(module) - before).max() > 1e-3
    same(alone(engine), dense(module))


@torch.no_grad()
def test_a_single_write_is_seen_where_torch_counts_it_and_after_follow_elsewhere() -> None:
    module = pruned(activation="tanh", seed=1)
    engine, weight = SparsePerceptron(module.linears, "tanh", ALL), module.linears[1].weight
    before = dense(module)
    row, column = (weight != 0).nonzero()[1].tolist()  # not among the 64 of about 180 that are compared
    weight[row, column] = 5.0
    assert np.abs(dense(module) - before).max() > 1e-3
    same(alone(engine), dense(module))
    weight.data[row, column] = -5.0
    engine.follow()
    same(alone(engine), dense(module))


def test_other_memory_other_sizes_and_loaded_weights_are_followed() -> None:
    module = pruned()
    engine = SparsePerceptron(module.linears, "relu", ALL)
    module.load_state_dict(pruned(0.8, seed=1).state_dict())
    same(alone(engine), dense(module))
    module.linears[1].weight.data = torch.ones(20, 30)
    same(alone(engine), dense(module))
    (first, *_) = unit_groups(module, torch.zeros(1, 3))
    remove_units({first: range(7)})
    same(alone(engine), dense(module))
    assert engine.sparse_layers == (True, True, True)


def test_a_network_that_is_pruned_later_is_tried_at_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_engine, "ratio_in_turns", lambda before, after: 0.5)
    module = pruned(0.0)
    engine = SparsePerceptron(module.linears, "relu")
    assert engine.sparse_layers == (False, False, False)
    with torch.no_grad():
        module.linears[1].weight[:, 3:] = 0.0
    same(alone(engine), dense(module))
    engine.follow()
    assert engine.sparse_layers == (False, True, False)
    same(alone(engine), dense(module))


def test_the_choice_is_measured_again_only_if_the_number_of_zeros_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def ratio(before: Any, after: Any) -> float:
        asked.append(0.5)
        return 0.5

    monkeypatch.setattr(sparse_engine, "ratio_in_turns", ratio)
    module = pruned(0.9)
    engine = SparsePerceptron(module.linears, "relu")
    assert len(asked) == 3
    with torch.no_grad():
        module.linears[1].weight.mul_(2.0)
    same(alone(engine), dense(module))
    assert len(asked) == 3
    with torch.no_grad():
        module.linears[1].weight[0] = 0.0
    same(alone(engine), dense(module))
    assert len(asked) == 6


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_made_with_the_module_follows_the_copy(copied: Callable[[Any], Any]) -> None:
    module = pruned()
    engine = SparsePerceptron(module.linears, "relu", ALL)
    other, other_engine = copied((module, engine))
    with torch.no_grad():
        other.linears[1].weight.mul_(3.0)
    same(alone(other_engine), dense(other))
    same(alone(engine), dense(module))
    assert np.abs(dense(module) - dense(other)).max() > 1e-3


def test_weights_without_a_counter_or_in_columns_are_read() -> None:
    module = pruned()
    with torch.inference_mode():
        for layer in module.linears:
            layer.weight = nn.Parameter(layer.weight.clone(), requires_grad=False)
    module.linears[1].weight.data = module.linears[1].weight.data.t().contiguous().t()
    engine = SparsePerceptron(module.linears, "relu", ALL)
    same(alone(engine), dense(module))
    module.linears[1].weight.data.mul_(2.0)  # not counted
    same(alone(engine), dense(module))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_scipy_is_needed_by_sparse_layers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert SparsePerceptron(pruned(0.0).linears, "relu").sparse_layers == (False, False, False)
    with pytest.raises(MissingExtraError, match=r"engine='sparse' needs scipy.*pip install scipy"):
        SparsePerceptron(pruned(0.9).linears, "relu")


def test_a_choice_for_other_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sparse=\[True\]: expected True or False for each of 3 layers"):
        SparsePerceptron(pruned().linears, "relu", [True])
