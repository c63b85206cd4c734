"""Compacting in place, while a network trains: the same objects, the same gradients, a record of what is left."""

import copy

import pytest
import torch
from torch import Tensor, nn

from agents import DQN
from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from budget_wrappers.errors import ConfigError
from budget_wrappers.modules.compaction import compact_
from tests.agents.small import make_env
from tests.modules.networks import network, said
from tests.modules.test_compaction import ROWS, answer, masked, products, same


def pruned(seed: int = 0, sparsity: float = 0.8) -> MLP:
    torch.manual_seed(seed)
    made = MLP((3, 12, 10, 2), "tanh").double()
    masked(made, sparsity, "uniform")
    return made


X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).double()
ROW = torch.zeros(1, 3).double()


def gradients(module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(module(X).square().sum(), list(module.parameters())))


def test_in_place_the_parameters_are_the_same_objects_and_what_stays_has_its_gradients() -> None:
    module, before = pruned(), pruned()
    parameters, slopes = list(module.parameters()), gradients(before)
    kept = compact_(module, ROW)
    assert module.sizes[1] < 12
    assert module.sizes[2] < 10
    assert all(one is other for one, other in zip(parameters, module.parameters(), strict=True))
    same(answer(before, (X,)), answer(module, (X,)))
    for parameter, old, slope, now in zip(parameters, before.parameters(), slopes, gradients(module), strict=True):
        for axis, index in kept.get(parameter, ()):
            old, slope = old.index_select(axis, index), slope.index_select(axis, index)
        torch.testing.assert_close(now, slope, rtol=0.0, atol=1e-12)
        if parameter.dim() == 2:  # biases have taken constants
            assert torch.equal(parameter, old)


def test_the_record_tells_an_optimizer_which_moments_stay() -> None:
    module, before = pruned(), pruned()
    optimizer, other = FusedAdam(module, lr=1e-3), FusedAdam(before, lr=1e-3)
    for own, network_ in ((optimizer, module), (other, before)):
        own.apply([torch.ones_like(parameter) for parameter in network_.parameters()])
    for own in (module, before):
        masked(own, 0.8, "uniform")
    kept = compact_(module, ROW)
    optimizer.follow(kept)
    optimizer.descend(module(X).square().mean())
    assert {parameter.shape for parameter in module.parameters()} == {
        optimizer.state[parameter]["exp_avg"].shape for parameter in module.parameters()
    }


def test_a_unit_goes_only_if_it_is_dead_in_every_network_alike() -> None:
    online, target = MLP((3, 6, 2), "relu").requires_grad_(False), MLP((3, 6, 2), "relu").requires_grad_(False)
    online[0].weight[:4] = 0.0  # 0, 1, 2, 3 read nothing
    target[2].weight[:, 2:5] = 0.0  # 2, 3, 4 are not read
    theta, theta_of_target = (nn.Parameter(torch.arange(6.0)) for _ in range(2))
    x = torch.randn(ROWS, 3)
    before = [answer(own, (x,)) for own in (online, target)]
    kept = compact_(online, torch.zeros(1, 3), alike=[target], beside={"0": [theta, theta_of_target]})
    assert online.sizes == target.sizes == (3, 4, 2)
    for own, said_before in zip((online, target), before, strict=True):
        same(said_before, answer(own, (x,)))
    assert theta.tolist() == theta_of_target.tolist() == [0.0, 1.0, 4.0, 5.0]
    small = {theta, theta_of_target, *(own for net in (online, target) for own in (net[0].weight, net[0].bias))}
    assert set(kept) == small | {online[2].weight, target[2].weight}


@pytest.mark.parametrize("seed", range(10))
def test_networks_alike_say_what_they_said(seed: int) -> None:
    online, target, third = pruned(seed), pruned(seed + 100, 0.9), pruned(seed, 0.9)
    before = [answer(own, (X,)) for own in (online, target, third)]
    compact_(online, ROW, alike=[target, third])
    assert online.sizes == target.sizes == third.sizes
    for own, said_before in zip((online, target, third), before, strict=True):
        same(said_before, answer(own, (X,)))


def test_a_network_without_dead_units_stays_to_the_bit() -> None:
    module = network("perceptron")
    before = said(module, "perceptron")
    assert compact_(module, torch.zeros(1, 3)) == {}
    assert torch.equal(said(module, "perceptron"), before)


def test_an_agent_goes_on_after_its_networks_were_compacted() -> None:
    settings = {"net_arch": (16, 16), "batch_size": 8, "learning_starts": 10, "buffer_size": 100, "seed": 0}
    agent = DQN(make_env("CartPole-v1"), **settings).learn(30)
    for own in (agent.q_network, agent.target_network):
        masked(own, 0.9, "uniform")
    x = torch.randn(ROWS, 4)
    before, flops = [answer(own, (x,)) for own in (agent.q_network, agent.target_network)], agent.flops_per_action
    kept = compact_(agent.q_network, *agent.example_inputs("q_network"), alike=[agent.target_network])
    agent.structure_changed(kept)
    for own, said_before in zip((agent.q_network, agent.target_network), before, strict=True):
        same(said_before, answer(own, (x,)))
    assert agent.flops_per_action == products(agent.q_network) < flops
    agent.learn(30)
    assert agent.num_updates > 0


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_networks_that_are_not_alike_are_refused_and_nothing_has_changed() -> None:
    module = pruned()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(
        ConfigError, match=r"alike: a network whose hidden layers have .* expected \{'0': 12, '2': 10\}"
    ):
        compact_(module, ROW, alike=[MLP((3, 12, 9, 2), "tanh").double()])
    with pytest.raises(ConfigError, match="beside: 'no': expected names of hidden layers, 0, 2"):
        compact_(module, ROW, beside={"no": []})
    with pytest.raises(ConfigError, match=r"(?s)alike=.*: expected a list of networks"):
        compact_(module, ROW, alike=module)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected one row at least"):
        compact_(module, ROW[:0])
    with pytest.raises(ConfigError, match="expected inputs that it takes"):
        compact_(module, torch.zeros(1, 4).double())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
