"""Parts that were put into what acts are not skipped: fast engines evaluate what they know and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents.methods.exits import Exits
from agents.nets.networks import GaussianActor
from tests.agents.test_structure import X, charged, make


def put_in(layer: Callable[[], nn.Module], place: int) -> Callable[[Any], None]:
    return lambda agent: agent.policy.net.insert(place, layer()) and None


def put_into_a_stage(layer: Callable[[], nn.Module]) -> Callable[[Any], None]:
    return lambda agent: agent.policy.stages[1].append(layer()) and None


def plus_one(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    return output + 1


# 2·(3·16 + 16·16 + 16·2) = 672; another layer of 16·16 is 512 more.
@pytest.mark.parametrize(
    ("change", "flops"),
    [
        (put_in(nn.Tanh, 1), 672),
        (put_in(nn.Tanh, 0), 672),
        (put_in(nn.Tanh, 5), 672),
        (put_in(lambda: nn.LayerNorm(16), 1), 672),
        (put_in(lambda: nn.Linear(16, 16), 2), 1184),
        (lambda agent: agent.policy.net.__setitem__(1, nn.Tanh()), 672),
        (lambda agent: agent.policy.net[0].register_forward_hook(plus_one), 672),
        (lambda agent: agent.policy.net.register_forward_hook(plus_one), 672),
        (lambda agent: agent.policy.net.register_forward_pre_hook(lambda net, given: (given[0] + 1,)), 672),
    ],
)
def test_a_part_put_into_an_actor_is_not_skipped(change: Callable[[Any], Any], flops: int) -> None:
    torch.manual_seed(0)
    agent = make().learn(30)
    before = agent.act(X.numpy(), True)
    change(agent)
    with torch.no_grad():
        expected = torch.tanh(agent.policy(X)[0][0]).numpy()
    acted: list[np.ndarray] = []
    assert charged(agent, "act", lambda: acted.append(agent.act(X.numpy(), True))) == 32 * flops
    np.testing.assert_allclose(acted[0], expected, atol=1e-6)
    assert agent.flops_per_action == flops
    assert np.abs(expected - before).max() > 1e-3


GATES = (6, 38, 38)
"""FLOPs of the gates on the way to each exit: 2·3, and 2·16 more. A policy that another agent chooses asks none."""


# To leave after one layer costs 2·(3 + 3·16 + 16 + 16·2) = 198, after two 710; another layer of 16·16 is 512 more.
@pytest.mark.parametrize(
    ("change", "flops"),
    [
        (put_into_a_stage(nn.Tanh), (18, 198, 710)),
        (put_into_a_stage(lambda: nn.LayerNorm(16)), (18, 198, 710)),
        (put_into_a_stage(lambda: nn.Linear(16, 16)), (18, 710, 1222)),
        (lambda agent: agent.policy.stages[1].register_forward_hook(plus_one), (18, 198, 710)),
        (lambda agent: agent.policy.stages[1][0].register_forward_hook(plus_one), (18, 198, 710)),
    ],
)
def test_a_part_put_between_exits_is_not_skipped(change: Callable[[Any], Any], flops: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    agent = make(methods=[Exits(gate="threshold")]).learn(30)
    made_before = agent.exit_policy()
    before = made_before.exits[2](X[0].numpy())
    change(agent)
    with torch.no_grad():
        output, taken = agent.policy.leave(X)
        every = torch.tanh(agent.policy(X).output.chunk(2, -1)[0])
    spent = charged(agent, "act", lambda: agent.predict(X.numpy()))
    assert spent == np.array(flops)[taken].sum()
    assert agent.exits.flops == flops
    np.testing.assert_allclose(agent.act(X.numpy(), True), torch.tanh(output.chunk(2, -1)[0]), atol=1e-6)
    # Each exit by itself, which another agent chooses: Pendulum's torque is twice the action.
    for policy in (made_before, agent.exit_policy()):
        for number, one in enumerate(policy.exits):
            np.testing.assert_allclose(one(X[0].numpy()), 2 * every[number, 0].numpy(), atol=1e-6)
    assert np.abs(made_before.exits[2](X[0].numpy()) - before).max() > 1e-4
    costs = [one.flops for one in agent.exit_policy().exits]
    assert costs == [spent - gates for spent, gates in zip(flops, GATES, strict=True)]


class Doubled(GaussianActor):
    """An actor that does something else with its perceptron."""

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = super().forward(observation)
        return 2 * mean + 1, log_std


def test_an_actor_with_a_forward_of_its_own_is_not_run_by_numpy() -> None:
    agent = make(actor=lambda o, a, config: Doubled(o, a, config.net_arch, config.activation)).learn(30)
    with torch.no_grad():
        expected = torch.tanh(agent.policy(X)[0][0]).numpy()
    assert agent.numpy_forward is None
    np.testing.assert_allclose(agent.act(X.numpy(), True), expected, atol=1e-6)
    assert charged(agent, "act", lambda: agent.predict(X.numpy())) == 32 * 672


def test_a_part_put_into_critics_is_not_skipped_by_what_the_actor_learns_from() -> None:
    agent = make().learn(30)
    for critic in (agent.critic, agent.target_critic):
        for member in critic.members:
            member.append(nn.Tanh())
    action = torch.rand(1, 32, 1) * 2 - 1
    values = agent.critic(X, action[0])
    torch.testing.assert_close(agent.critic.smallest_of_own_actions(X, action), values.amin(0))
    assert values.abs().max() <= 1
    agent.learn(25)
