"""What vector environments hand out as rewards, and what becomes of it."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.vector import ComputePenaltyReward, ComputeVectorReward, RecordComputeStatistics
from budget_wrappers.wrappers.vector.reward import ALWAYS_LOOK
from tests.wrappers.vector.test_traps import WRAPPERS, make, step


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


class Rewards(gym.vector.VectorWrapper):
    """Hands out rewards of one's choice."""

    def __init__(self, envs: VectorEnv, rewards: Any) -> None:
        super().__init__(envs)
        self.rewards = rewards

    def step(self, actions: Any) -> Any:
        obs, _, *rest = self.env.step(actions)
        return obs, self.rewards, *rest


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64), (bool, np.float64)]
)
def test_rewards_keep_their_float_type(given: type, kept: type, meter: ComputeMeter) -> None:
    envs = ComputePenaltyReward(Rewards(make(), np.ones(2, given)), 0.25, meter=meter)
    envs.reset()
    rewards = step(envs, meter, [1, 2])[1]
    assert (rewards.dtype, rewards.tolist()) == (kept, [0.75, 0.5])


@pytest.mark.parametrize("name", ["record", "penalty", "vector_reward"])
@pytest.mark.parametrize(
    ("rewards", "error", "message"),
    [
        (np.array([1.0, np.nan]), NonFiniteError, "reward of environment 1 is nan"),
        (np.array([-np.inf, 1.0], np.float32), NonFiniteError, "reward of environment 0 is -inf"),
        (np.ones((2, 2)), SpaceError, r"shape \(2, 2\).*expected \(2,\) numbers"),
        (np.array(["a", "b"]), SpaceError, "hand out float"),
        (None, SpaceError, "hand out float"),
    ],
)
def test_rewards_that_are_none_are_refused(
    name: str, rewards: Any, error: type, message: str, meter: ComputeMeter
) -> None:
    envs = WRAPPERS[name](Rewards(make(), rewards), meter)
    envs.reset()
    with pytest.raises(error, match=message):
        step(envs, meter, [1, 2])


def test_rewards_near_the_end_of_floats_are_finite(meter: ComputeMeter) -> None:
    envs = RecordComputeStatistics(Rewards(make(), np.array([1.7e308, 1.7e308])), meter)
    envs.reset()
    step(envs, meter, [1, 2])


def test_a_penalty_that_float32_would_lose_warns_once(meter: ComputeMeter) -> None:
    envs = ComputePenaltyReward(Rewards(make(), np.array([5000.0, 5000.0])), 1e-4, meter=meter)
    envs.reset()
    with pytest.warns(UserWarning, match="stores rewards as float32 rounds it away"):
        step(envs, meter, [1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(envs, meter, [1, 1])


def test_a_penalty_that_is_lost_later_is_found_before_long(meter: ComputeMeter) -> None:
    """Each of the first ``ALWAYS_LOOK`` steps is looked at, then one of so many."""
    rewards = Rewards(make(), np.array([1.0, 1.0]))
    envs = ComputePenaltyReward(rewards, 1e-3, meter=meter)
    envs.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(ALWAYS_LOOK + 1):
            step(envs, meter, [1, 1])
    rewards.rewards = np.array([1.0, 1e9])
    with pytest.warns(UserWarning, match="stores rewards as float32 rounds it away"):
        for _ in range(ALWAYS_LOOK):
            step(envs, meter, [1, 1])


def test_vector_rewards_get_the_cost_last(meter: ComputeMeter) -> None:
    inner = Rewards(make(), np.ones((2, 2)))
    inner.reward_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    envs = ComputeVectorReward(inner, meter)
    envs.reset()
    assert step(envs, meter, [3, 4])[1].tolist() == [[1.0, 1.0, -3.0], [1.0, 1.0, -4.0]]
    assert envs.reward_dim == 3
