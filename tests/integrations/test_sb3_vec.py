"""Vector wrappers around a VecEnv: costs and rewards of each environment are those of a single one."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from budget_wrappers import wrappers as single
from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.integrations.sb3 import flops_per_action, metered
from budget_wrappers.integrations.sb3_vec import wrapped
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import vector
from budget_wrappers.wrappers.vector import as_vector_env

COSTS = ([100, 30], [0, 50], [7, 0])
WEIGHT = 0.01


def cartpole() -> gym.Env:
    return gym.make("CartPole-v1", max_episode_steps=15)


def vectors(meter: ComputeMeter) -> Any:
    def wrap(envs: Any) -> Any:
        return vector.RecordComputeStatistics(vector.ComputePenaltyReward(envs, WEIGHT, meter=meter), meter)

    return wrapped(DummyVecEnv([cartpole, cartpole]), wrap)


def test_costs_rewards_and_accounts_are_those_of_single_environments() -> None:
    meter = ComputeMeter()
    venv = vectors(meter)
    venv.seed(3)
    started, stories = venv.reset(), [[], []]
    for number in range(40):
        meter.add(sum(COSTS[number % 3]), rows=2, by_row=COSTS[number % 3])
        obs, rewards, over, infos = venv.step([number % 2, 1])
        for row, story in enumerate(stories):
            last = infos[row]["terminal_observation"] if over[row] else obs[row]
            story.append((last, rewards[row], over[row], infos[row]["cost"], infos[row].get("compute")))
    for row, story in enumerate(stories):
        own = ComputeMeter()
        env = single.RecordComputeStatistics(single.ComputePenaltyReward(cartpole(), WEIGHT, meter=own), own)
        np.testing.assert_array_equal(env.reset(seed=3 + row)[0], started[row])
        for number, (obs, reward, over, cost, account) in enumerate(story):
            own.add(COSTS[number % 3][row])
            seen, earned, terminated, truncated, info = env.step([number % 2, 1][row])
            np.testing.assert_array_equal(seen, obs)
            assert (np.float32(earned), terminated or truncated, info["cost"]) == (reward, over, cost)
            assert (info.get("compute") is None) is (account is None)
            if over:
                assert account["flops"] == info["compute"]["flops"]
                assert account["return_raw"] == info["compute"]["return_raw"]
                assert account["return_penalised"] == pytest.approx(info["compute"]["return_penalised"], rel=1e-6)
                env.reset()
    assert sum(account is not None for *_, account in stories[0]) > 1


def test_a_metered_model_learns_in_several_environments_and_each_pays_its_own_actions() -> None:
    meter, costs = ComputeMeter(), []

    def remember(local: dict[str, Any], _: dict[str, Any]) -> bool:
        costs.extend(float(info["cost"]) for info in local["infos"])
        return True

    model = metered(PPO("MlpPolicy", vectors(meter), n_steps=8, batch_size=8, policy_kwargs={"net_arch": [8]}), meter)
    model.learn(32, callback=remember)
    assert costs == [flops_per_action(model)] * 32
    assert meter.totals["learn"] > 0


def test_what_does_not_fit_is_refused_with_the_way_that_does() -> None:
    with pytest.raises(ConfigError, match="expected a VecEnv"):
        wrapped(gym.make_vec("CartPole-v1", 2), vector.RecordComputeStatistics)
    with pytest.raises(ConfigError, match=r"integrations\.sb3_vec\.wrapped"):
        as_vector_env(DummyVecEnv([cartpole]))
    meter = ComputeMeter()
    venv = wrapped(
        DummyVecEnv([cartpole]), lambda envs: vector.RecordComputeStatistics(envs, meter, "TimeLimit.truncated")
    )
    venv.reset()
    meter.add(1)
    with pytest.raises(InfoKeyError, match=r"TimeLimit\.truncated"):
        venv.step([0])
