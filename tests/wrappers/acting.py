"""The shortest ways to act and to step, for tests of whose acting a step pays for."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from agents import SAC
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputeLimit, ComputePenaltyReward, ComputeVectorReward, RecordComputeStatistics
from tests.wrappers.environments import SpacesEnv

LAYER = 2 * 3 * 2
"""FLOPs of nn.Linear(3, 2) on one row."""
WRAPS = {
    "penalty": lambda env, meter: ComputePenaltyReward(env, 0.1, meter=meter),
    "limit": lambda env, meter: ComputeLimit(env, 10**6, "truncate", meter=meter),
    "vector reward": lambda env, meter: ComputeVectorReward(env, meter=meter),
}


def acts(net: Callable[[Tensor], Any], rows: int = 1) -> None:
    with torch.no_grad():
        net(torch.zeros(rows, 3))


def step(env: Any) -> dict[str, Any]:
    return env.step(env.action_space.sample())[-1]


def recorded(meter: ComputeMeter) -> gym.Env:
    env = RecordComputeStatistics(SpacesEnv(), meter)
    env.reset(seed=0)
    return env


def small(**options: Any) -> SAC:
    env = gym.make("Pendulum-v1")
    return SAC(env, buffer_size=100, learning_starts=0, batch_size=8, net_arch=(8,), **options)
