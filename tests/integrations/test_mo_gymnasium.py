"""Vectors of reward and cost under MO-Gymnasium's wrappers."""

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import SpaceError
from budget_wrappers.integrations.mo_gymnasium import as_mo_env
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputeVectorReward


def made(meter: ComputeMeter) -> gym.Env:
    return as_mo_env(ComputeVectorReward(gym.make("CartPole-v1"), meter))


def test_the_innermost_environment_has_the_space_of_the_vectors() -> None:
    env = made(ComputeMeter())
    assert env.unwrapped is env
    assert (env.unwrapped.reward_space.shape, env.unwrapped.reward_dim) == ((2,), 2)
    assert env.observation_space == gym.make("CartPole-v1").observation_space


def test_an_environment_without_vectors_is_refused() -> None:
    with pytest.raises(SpaceError, match="ComputeVectorReward"):
        as_mo_env(gym.make("CartPole-v1"))


def test_a_linear_weighting_of_them_is_return_less_price_times_flops() -> None:
    wrappers = pytest.importorskip("mo_gymnasium.wrappers")
    meter = ComputeMeter()
    env = wrappers.LinearReward(made(meter), weight=np.array([1.0, 1e-3]))
    env.reset(seed=0)
    meter.add(250)
    assert env.step(0)[1] == pytest.approx(0.75)  # 1 − 0.001 · 250


def test_its_statistics_sum_both_parts() -> None:
    wrappers = pytest.importorskip("mo_gymnasium.wrappers")
    meter = ComputeMeter()
    env = wrappers.MORecordEpisodeStatistics(made(meter), gamma=1.0)
    env.reset(seed=0)
    over, steps = False, 0
    while not over:
        meter.add(10)
        *_, terminated, truncated, info = env.step(0)
        over, steps = terminated or truncated, steps + 1
    np.testing.assert_allclose(info["episode"]["r"], [steps, -10 * steps])
