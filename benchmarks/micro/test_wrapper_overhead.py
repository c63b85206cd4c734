"""What a wrapper adds to a step of an environment that does nothing, beside Gymnasium's own wrappers in the same run.

The environment charges the meter itself, as a policy does before each step, so every case pays for that alike.
Read the differences to ``bare``: ``RecordComputeStatistics`` may add 0.5 µs.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
    SubPolicyAction,
)

METER = "benchmarks.overhead"
FOREVER = 10**18


class NullEnv(gym.Env):
    """Does nothing, for ever, at 640 FLOPs a step."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, meter: ComputeMeter) -> None:
        self._meter = meter
        self._observation = np.zeros(3, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._meter.add(640)
        return self._observation, 1.0, False, False, {}


class DoNothing(gym.Wrapper):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return self.env.step(action)


CASES: dict[str, Callable[[gym.Env], gym.Env]] = {
    "bare": lambda env: env,
    "a do-nothing wrapper": DoNothing,
    "gymnasium RecordEpisodeStatistics": gym.wrappers.RecordEpisodeStatistics,
    "gymnasium TimeAwareObservation": lambda env: gym.wrappers.TimeAwareObservation(
        gym.wrappers.TimeLimit(env, 2**31 - 1)
    ),
    "RecordComputeStatistics": lambda env: RecordComputeStatistics(env, METER),
    "ComputePenaltyReward": lambda env: ComputePenaltyReward(env, 1e-3, meter=METER),
    "Record + Penalty": lambda env: ComputePenaltyReward(RecordComputeStatistics(env, METER), 1e-3, meter=METER),
    "ComputeLimit": lambda env: ComputeLimit(env, FOREVER, "truncate", METER),
    "ComputeLimit + BudgetAwareObservation": lambda env: BudgetAwareObservation(
        ComputeLimit(env, FOREVER, "truncate", METER)
    ),
    "ComputeVectorReward": lambda env: ComputeVectorReward(env, METER),
    "SubPolicyAction, hold 1": lambda env: SubPolicyAction(
        env, [FunctionPolicy(lambda observation: 0, 10, "p")], hold=1, meter=METER
    ),
    "SubPolicyAction, hold 5": lambda env: SubPolicyAction(
        env, [FunctionPolicy(lambda observation: 0, 10, "p")], hold=5, meter=METER
    ),
}


@pytest.mark.benchmark(group="wrapper overhead, one step")
@pytest.mark.parametrize("case", CASES)
def test_step(benchmark, case: str) -> None:
    env = CASES[case](NullEnv(get_meter(METER)))
    env.reset()
    benchmark(env.step, 0)
