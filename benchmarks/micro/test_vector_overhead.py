"""What a vector wrapper adds to a step of 8 environments that do nothing, beside Gymnasium's own in the same run.

The environments charge the meter themselves, one batch of 8 rows, as a policy does before each step, so every case pays
for that alike; no episode ends. Read the differences to ``bare``: ``RecordComputeStatistics`` may add 10 µs.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.vector import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
)

METER = "benchmarks.vector_overhead"
N = 8
FOREVER = 10**18
BY_ROW = np.arange(N) * 100


class NullEnvs(VectorEnv):
    """Does nothing, for ever, at 640 FLOPs a row."""

    def __init__(self, meter: ComputeMeter, by_row: np.ndarray | None = None) -> None:
        self.num_envs = N
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, N)
        self._meter, self._by_row = meter, by_row
        self._flops = 640 * N if by_row is None else int(by_row.sum())
        self._observations, self._rewards = np.zeros((N, 3), np.float32), np.ones(N)
        self._flags = np.zeros(N, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self._observations, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._meter.add(self._flops, rows=N, by_row=self._by_row)
        return self._observations, self._rewards, self._flags, self._flags, {}


CASES: dict[str, Callable[[VectorEnv], VectorEnv]] = {
    "bare": lambda envs: envs,
    "a do-nothing wrapper": gym.vector.VectorWrapper,
    "gymnasium RecordEpisodeStatistics": gym.wrappers.vector.RecordEpisodeStatistics,
    "RecordComputeStatistics": lambda envs: RecordComputeStatistics(envs, METER),
    "ComputePenaltyReward": lambda envs: ComputePenaltyReward(envs, 1e-3, meter=METER),
    "Record + Penalty": lambda envs: ComputePenaltyReward(RecordComputeStatistics(envs, METER), 1e-3, meter=METER),
    "ComputeLimit": lambda envs: ComputeLimit(envs, FOREVER, meter=METER),
    "ComputeLimit + BudgetAwareObservation": lambda envs: BudgetAwareObservation(
        ComputeLimit(envs, FOREVER, meter=METER)
    ),
    "ComputeVectorReward": lambda envs: ComputeVectorReward(envs, METER),
}


@pytest.mark.benchmark(group="vector wrapper overhead, one step of 8 environments")
@pytest.mark.parametrize("case", CASES)
def test_step(benchmark, case: str) -> None:
    envs = CASES[case](NullEnvs(get_meter(METER)))
    envs.reset()
    benchmark(envs.step, None)
    envs.close()


@pytest.mark.benchmark(group="vector wrapper overhead, rows that cost differently")
@pytest.mark.parametrize("case", ["bare", "RecordComputeStatistics"])
def test_step_by_row(benchmark, case: str) -> None:
    envs = CASES[case](NullEnvs(get_meter(METER), BY_ROW))
    envs.reset()
    benchmark(envs.step, None)
