"""``reward_scale``: an agent learns as if the environment paid that much, and reports what it paid."""

from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.wrappers import TransformReward

from agents.dqn import DQN
from agents.loop.callbacks import Callback
from agents.sac import SAC
from agents.td3 import TD3
from budget_wrappers.errors import ConfigError

SETTINGS: dict[str, Any] = {"batch_size": 8, "net_arch": (8,), "buffer_size": 200, "learning_starts": 20, "seed": 3}


class Returns(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_episode_end(self, agent: Any, episode: dict[str, Any]) -> None:
        self.seen.append(episode["return"])


@pytest.mark.parametrize(
    ("agent_class", "env", "more"),
    [
        (SAC, "Pendulum-v1", {}),
        (TD3, "Pendulum-v1", {}),
        (SAC, "Pendulum-v1", {"n_step": 3}),
        (DQN, "CartPole-v1", {"train_freq": 1}),
        (DQN, "CartPole-v1", {"train_freq": 1, "prioritized": True}),
    ],
    ids=["sac", "td3", "n-step", "dqn", "prioritized"],
)
def test_scaling_what_is_learnt_equals_scaling_what_is_paid(agent_class: type, env: str, more: dict[str, Any]) -> None:
    def make() -> gym.Env:
        return gym.make(env, max_episode_steps=20)

    # a power of two, so that both ways round alike
    scaled = agent_class(make(), reward_scale=0.25, **SETTINGS, **more)
    paid = agent_class(TransformReward(make(), lambda reward: 0.25 * reward), **SETTINGS, **more)
    plain = agent_class(make(), **SETTINGS, **more)
    returns = [Returns() for _ in range(3)]
    for agent, seen in zip((scaled, paid, plain), returns, strict=True):
        agent.learn(60, seen)
    weights = [list(agent.actor.parameters()) for agent in (scaled, paid, plain)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    assert returns[0].seen == pytest.approx([4 * value for value in returns[1].seen], rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_is_above_zero(scale: float) -> None:
    with pytest.raises(ConfigError, match="reward_scale"):
        SAC(gym.make("Pendulum-v1"), reward_scale=scale)
