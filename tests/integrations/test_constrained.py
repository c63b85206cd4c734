"""Compute as the cost of constrained RL, in both forms, there and back."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from budget_wrappers.errors import InfoKeyError, NonFiniteError, SpaceError
from budget_wrappers.integrations.constrained import from_6tuple, to_6tuple
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import RecordComputeStatistics


class Hazard:
    """Shaped as safety-gymnasium's environments: six values, costs 0, 1, 2, …"""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        self.cost = -1
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, ...]:
        self.cost += 1
        return np.zeros(2, np.float32), 1.0, self.cost, np.bool_(False), self.cost == 3, {"cost_hazards": self.cost}


def test_the_third_value_is_what_acting_cost() -> None:
    meter = ComputeMeter()
    env = to_6tuple(RecordComputeStatistics(gym.make("CartPole-v1"), meter))
    env.reset(seed=0)
    costs = []
    for flops in (640, 0, 7):
        meter.add(flops)
        _, reward, cost, terminated, truncated, info = env.step(0)
        assert (reward, terminated, truncated) == (1.0, False, False)
        assert cost == info["cost"]
        costs.append(cost)
    assert costs == [640.0, 0.0, 7.0]
    assert all(type(cost) is float for cost in costs)


def test_there_and_back_is_the_same() -> None:
    meter = get_meter("tests.there_and_back")
    runs = []
    for there_and_back in (False, True):
        env: Any = RecordComputeStatistics(gym.make("CartPole-v1"), "tests.there_and_back")
        env = from_6tuple(to_6tuple(env)) if there_and_back else env
        run = [env.reset(seed=3)]
        for number in range(5):
            meter.add(100 * number)
            run.append(env.step(number % 2))
        runs.append(run)
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_gymnasium_accepts_a_safety_environment() -> None:
    env = from_6tuple(Hazard())
    check_env(env, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["cost"] == 0.0
    assert [float(env.step(0)[4]["cost"]) for _ in range(3)] == [0.0, 1.0, 2.0]


def test_compute_and_hazards_are_kept_apart() -> None:
    meter = ComputeMeter()
    env = RecordComputeStatistics(from_6tuple(Hazard()), meter, key="compute_cost")
    env.reset(seed=0)
    for hazard in range(3):
        meter.add(50)
        info = env.step(0)[4]
        assert (info["cost"], info["compute_cost"]) == (hazard, 50)
    with pytest.raises(InfoKeyError):
        clashing = RecordComputeStatistics(from_6tuple(Hazard()), ComputeMeter())
        clashing.reset(seed=0)
        clashing.step(0)


def test_what_does_not_fit_is_refused() -> None:
    bare = to_6tuple(gym.make("CartPole-v1"))
    bare.reset(seed=0)
    with pytest.raises(InfoKeyError, match="RecordComputeStatistics"):
        bare.step(0)
    five = from_6tuple(gym.make("CartPole-v1"))
    five.reset(seed=0)
    with pytest.raises(SpaceError, match="six"):
        five.step(0)
    endless = Hazard()
    env = from_6tuple(endless)
    env.reset(seed=0)
    endless.cost = np.inf
    with pytest.raises(NonFiniteError):
        env.step(0)
    with pytest.raises(InfoKeyError, match="another key"):
        other = from_6tuple(Hazard(), key="cost_hazards")
        other.reset(seed=0)
        other.env.step = lambda action: (np.zeros(2, np.float32), 0.0, 1.0, False, False, {"cost_hazards": 5.0})
        other.step(0)
