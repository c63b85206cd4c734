"""Episodes in which somebody acted and nothing was charged: who is told, and of what."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor, nn

from agents import DQN
from budget_wrappers.errors import ComputeWarning
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics
from budget_wrappers.wrappers import vector as vectors
from tests.wrappers.acting import WRAPS, acts, small, step
from tests.wrappers.environments import SpacesEnv


class Agent(nn.Module):
    """Acts by a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Linear(3, 2)

    def act(self, x: Tensor) -> Tensor:
        return self.actor(x)


@contextmanager
def told() -> Iterator[list[str]]:
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += [str(warning.message) for warning in caught if issubclass(warning.category, ComputeWarning)]


def episode(
    meter: ComputeMeter, act: Callable[[], Any], wrap: Callable[..., gym.Env] = RecordComputeStatistics
) -> None:
    env = wrap(SpacesEnv(end_at=3), meter=meter)
    env.reset(seed=0)
    for _ in range(3):
        act()
        step(env)


def another_method(meter: ComputeMeter) -> Callable[[], Any]:
    agent = Agent()
    meter.watch(agent)
    return torch.no_grad()(lambda: agent.act(torch.zeros(1, 3)))


def forward_itself(meter: ComputeMeter) -> Callable[[], Any]:
    net = nn.Sequential(nn.Linear(3, 2))
    meter.watch(net)
    return torch.no_grad()(lambda: net.forward(torch.zeros(1, 3)))


def hooks_cleared(meter: ComputeMeter) -> Callable[[], Any]:
    net = nn.Linear(3, 2)
    meter.watch(net)
    net._forward_hooks.clear()
    return lambda: acts(net)


def a_copy(meter: ComputeMeter) -> Callable[[], Any]:
    """A copy acts, and the original learns: 1,000 steps long nobody can know."""
    net = nn.Linear(3, 2)
    meter.watch(net)
    twin = copy.deepcopy(net)
    with meter.phase("learn"):
        net(torch.zeros(2, 3)).sum().backward()
    return lambda net=net: acts(twin)


def with_gradients(meter: ComputeMeter) -> Callable[[], Any]:
    net = nn.Linear(3, 2)
    meter.watch(net)
    return lambda: net(torch.zeros(1, 3))


SILENCES = {
    another_method: "'tests': forward of Agent never ran, and its 'actor' 3 times",
    forward_itself: "forward of Sequential never ran, and its '0' 3 times.*module.forward",
    hooks_cleared: "hooks of Linear are gone",
    with_gradients: r"3 forwards of 'tests' with gradients on were booked as learning.*phase\('act'\)",
}


def test_a_copy_that_acts_while_the_original_learns_is_told_of_after_a_while(meter: ComputeMeter) -> None:
    act = a_copy(meter)
    env = RecordComputeStatistics(SpacesEnv(end_at=400), meter)
    with told() as messages:
        for _ in range(3):
            env.reset(seed=0)
            for _ in range(400):
                act()
                step(env)
    assert len(messages) == 1
    assert "'tests': forward of Linear never ran in 1200 steps" in messages[0]


def test_random_warm_up_that_nobody_speaks_of_is_no_silence(meter: ComputeMeter) -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    meter.watch(net)
    with told() as messages:
        for _ in range(3):
            episode(meter, lambda: None)
    assert messages == []


@pytest.mark.parametrize(("make", "reason"), SILENCES.items(), ids=[make.__name__ for make in SILENCES])
def test_an_episode_for_which_nothing_was_charged_says_why_and_once(
    meter: ComputeMeter, make: Callable[[ComputeMeter], Callable[[], Any]], reason: str
) -> None:
    act = make(meter)
    with pytest.warns(ComputeWarning, match=reason):
        episode(meter, act)
    with told() as again:
        episode(meter, act)
    assert again == []


@pytest.mark.parametrize("wrap", [*WRAPS.values()], ids=WRAPS)
def test_every_wrapper_that_ends_an_episode_says_so(meter: ComputeMeter, wrap: Callable[..., gym.Env]) -> None:
    act = another_method(meter)
    with pytest.warns(ComputeWarning, match="forward of Agent never ran"):
        episode(meter, act, lambda env, meter: wrap(env, meter))


def test_a_vector_environment_says_so_too(meter: ComputeMeter) -> None:
    act = with_gradients(meter)
    envs = vectors.RecordComputeStatistics(SyncVectorEnv([lambda: SpacesEnv(end_at=2)] * 1), meter)
    envs.reset(seed=0)
    with pytest.warns(ComputeWarning, match="2 forwards of 'tests' with gradients on"):
        for _ in range(2):
            act()
            step(envs)


def test_acting_with_gradients_is_told_of_beside_a_forward_without(meter: ComputeMeter) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net)
    env = RecordComputeStatistics(SpacesEnv(end_at=10), meter)
    env.reset(seed=0)
    acts(net)  # a value for a log
    with pytest.warns(ComputeWarning, match="10 forwards of 'tests' with gradients on"):
        for _ in range(10):
            net(torch.zeros(1, 3))
            step(env)


def test_one_random_action_does_not_make_an_episode_known_to_be_free(meter: ComputeMeter) -> None:
    act = another_method(meter)
    env = RecordComputeStatistics(SpacesEnv(end_at=3), meter)
    env.reset(seed=0)
    meter.acted_for_free()
    with pytest.warns(ComputeWarning, match="forward of Agent never ran"):
        for _ in range(3):
            act()
            step(env)


QUIET = {
    "charged 0": lambda meter, net: meter.add(0),
    "said to be free": lambda meter, net: meter.acted_for_free(),
    "acting and learning": lambda meter, net: (acts(net), net(torch.zeros(1, 3)).sum().backward()),
    "learning in a phase": lambda meter, net: (acts(net), learns(meter, net)),
}


def test_a_part_that_learns_online_beside_an_actor_that_is_charged_is_no_silence(meter: ComputeMeter) -> None:
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 2)
    meter.watch(actor, "actor"), meter.watch(critic, "critic")
    with told() as messages:
        episode(meter, lambda: (acts(actor), critic(torch.zeros(1, 3)), critic(torch.zeros(1, 3))))
    assert messages == []


def learns(meter: ComputeMeter, net: nn.Module) -> None:
    with meter.phase("learn"):
        net(torch.zeros(1, 3)).sum().backward()


@pytest.mark.parametrize("act", QUIET.values(), ids=QUIET)
def test_what_is_charged_or_said_to_be_free_is_no_silence(
    meter: ComputeMeter, act: Callable[[ComputeMeter, nn.Module], Any]
) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net)
    with told() as messages:
        episode(meter, lambda: act(meter, net))
    assert messages == []


MAKES = {
    "sac": lambda: small(meter=ComputeMeter("sac")),
    "dqn": lambda: DQN(gym.make("CartPole-v1"), meter=ComputeMeter("dqn")),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_random_actions_of_our_own_agents_are_known_to_be_free(make: Callable[[], Any]) -> None:
    agent = make()
    with told() as messages:
        env = RecordComputeStatistics(SpacesEnv(end_at=1), agent.meter)
        env.reset(seed=0)
        agent.random_action(1)
        step(env)
    assert messages == []
