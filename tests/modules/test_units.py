"""Gates: when they draw, what they multiply, and that θ of 1 and fixed change no bit."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.nets.mlp import MLP, smallest_value, squared_error
from budget_wrappers.deploy.engines import ENGINES
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.units import UnitGates, gated, ungated
from tests.modules.networks import NETWORKS, inputs, network, said


def gates_on(name: str, module: nn.Module, seed: int = 0) -> UnitGates:
    return gated(module, *inputs(name, 1), generator=torch.Generator().manual_seed(seed))


def set_theta(gates: UnitGates, seed: int = 3, low: float = 0.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for theta in gates.theta:
        theta.data = low + (1 - low) * torch.rand(theta.shape, generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_theta_of_one_changes_no_bit(name: str) -> None:
    module = network(name)
    before = said(module, name)
    gates = gates_on(name, module)
    assert torch.equal(said(module, name), before)
    gates.learn()
    module.train(name != "batch norm")
    assert torch.equal(said(module, name), before)  # each unit of θ = 1 is drawn


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_is_the_network_with_theta_folded_into_what_reads_the_units(name: str) -> None:
    module = network(name)
    gates = gates_on(name, module)
    set_theta(gates)
    by_hand = network(name)
    parts = dict(by_hand.named_modules())
    names = {part: key for key, part in module.named_modules()}
    with torch.no_grad():
        for group, theta in zip(gates.groups, gates.theta, strict=True):
            for reader in group.readers:
                columns = slice(reader.start, reader.start + group.units)
                parts[names[reader.layer]].weight[:, columns] *= theta
    torch.testing.assert_close(said(module, name), said(by_hand, name), rtol=1e-5, atol=1e-6)
    folded = ungated(module)
    torch.testing.assert_close(said(folded, name), said(by_hand, name), rtol=1e-6, atol=1e-7)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in folded.modules())
    assert folded.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pass_that_learns_draws_each_unit_once_for_all_rows_and_readers(name: str) -> None:
    module = network(name)
    gates = gates_on(name, module)
    set_theta(gates, low=0.3)
    gates.learn()
    for part in module.modules():
        part.training = not isinstance(part, nn.BatchNorm1d)
    drawn = said(module, name)
    factors = [gate.factor.detach() for gate in gates._gates]
    assert all(set(factor.tolist()) <= {0.0, 1.0} for factor in factors)
    # The same numbers as a network whose θ are what was drawn.
    for theta, factor in zip(gates.theta, factors, strict=True):
        theta.data = factor
    gates.learn(False)
    torch.testing.assert_close(said(module, name), drawn, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hand_written_pass_and_the_layer_by_layer_one_agree_with_gates(name: str) -> None:
    """A hook that does nothing makes every network run layer by layer; draws and gradients are the same."""
    results = []
    for hooked in (False, True):
        module = network(name).train()
        for part in module.modules():
            part.training = not isinstance(part, nn.BatchNorm1d)
        gates = gates_on(name, module)
        set_theta(gates, low=0.3)
        gates.learn()
        if hooked:
            for part in module.modules():
                if isinstance(part, nn.Linear):
                    part.register_forward_hook(lambda *_: None)
        output = said(module, name)
        weights = torch.linspace(-1, 1, len(output))
        found = torch.autograd.grad((weights * output).sum(), [*module.parameters(), *gates.theta])
        results.append([output, *found])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "numpy", "onnxruntime"])
def test_engines_evaluate_with_theta(engine: str) -> None:
    pytest.importorskip(engine)
    module = network("perceptron")
    set_theta(gates_on("perceptron", module))
    x = inputs("perceptron")[0]
    evaluate = ENGINES[engine](module.linears, "tanh")
    np.testing.assert_allclose(evaluate(x.numpy()), module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


# ---- when a gate draws ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.booleans(), st.booleans(), st.booleans())
def test_a_gate_draws_if_and_only_if_its_module_trains_gradients_are_on_and_theta_requires_one(
    training: bool, gradients: bool, learns: bool
) -> None:
    module = network("perceptron").train(training)
    gates = gates_on("perceptron", module)
    for theta in gates.theta:
        theta.data.fill_(0.5)
    gates.learn(learns)
    with torch.set_grad_enabled(gradients):
        module(torch.ones(1, 3))
    drawn = [set(gate.factor.tolist()) <= {0.0, 1.0} for gate in gates._gates]
    assert drawn == [training and gradients and learns] * 2


def twins() -> tuple[list[MLP], list[UnitGates]]:
    members = [network("perceptron", seed).train() for seed in range(2)]
    gates = [gates_on("perceptron", member, seed) for seed, member in enumerate(members)]
    for own in gates:
        set_theta(own, low=0.3)
        own.learn()
    return members, gates


def test_a_loss_that_updates_critics_draws_and_reaches_theta() -> None:
    members, gates = twins()
    loss = squared_error(members, torch.ones(5, 3), torch.zeros(5, 2))
    slopes = torch.autograd.grad(loss, [theta for own in gates for theta in own.theta])
    assert all(slope.abs().sum() > 0 for slope in slopes)
    assert all(set(gate.factor.tolist()) <= {0.0, 1.0} for own in gates for gate in own._gates)


def test_critics_that_only_judge_neither_draw_nor_learn() -> None:
    members, gates = twins()
    action = torch.zeros(2, 5, 1, requires_grad=True)
    value = smallest_value(members, torch.ones(5, 2), action)
    assert all(gate.factor is not None and torch.equal(gate.factor, gate.theta) for own in gates for gate in own._gates)
    assert torch.autograd.grad(value.sum(), action)[0].abs().sum() > 0
    evaluated = smallest_value([ungated(member) for member in members], torch.ones(5, 2), action)
    torch.testing.assert_close(value, evaluated)


def test_critics_that_only_judge_do_not_draw_layer_by_layer_either() -> None:
    members, _ = twins()
    for member in members:
        member[0].register_forward_hook(lambda *_: None)
    action = torch.zeros(2, 5, 1, requires_grad=True)
    value = smallest_value(members, torch.ones(5, 2), action)
    evaluated = smallest_value([ungated(member) for member in members], torch.ones(5, 2), action)
    torch.testing.assert_close(value, evaluated)
    assert all(member.training for member in members)


def test_a_copy_draws_by_itself() -> None:
    module = network("perceptron").train()
    gates = gates_on("perceptron", module)
    set_theta(gates)
    gates.learn()
    other = copy.deepcopy(module)
    for member in (module, other):  # the copy has θ and a generator of its own, in the same state
        member.first = said(member, "perceptron")
    assert torch.equal(module.first, other.first)
    gates.theta[0].data.zero_()
    assert not torch.equal(said(module.eval(), "perceptron"), said(other.eval(), "perceptron"))


def test_detached_gates_leave_no_trace() -> None:
    module = network("dueling")
    seen: list[int] = []
    module.trunk[0][0].register_forward_hook(lambda *_: seen.append(1))
    gates = gates_on("dueling", module)
    set_theta(gates)
    gates.detach()
    plain = network("dueling")
    assert torch.equal(said(module, "dueling"), said(plain, "dueling"))
    assert seen  # hooks of others stay


def test_a_network_without_hidden_units_is_refused() -> None:
    with pytest.raises(ConfigError, match="one hidden layer at least"):
        gated(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3))
