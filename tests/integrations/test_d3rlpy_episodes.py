"""Episodes recorded for d3rlpy hold what happened, whoever writes into which array."""

import gymnasium as gym
import numpy as np

from budget_wrappers.integrations.d3rlpy import record_episodes
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics
from tests.wrappers.environments import OneArray

EPISODE = 20


def test_recorded_steps_are_copies_where_environment_and_policy_have_one_array_for_all() -> None:
    meter, action = ComputeMeter(), np.zeros(1, np.float32)

    def rule(observation: np.ndarray) -> np.ndarray:
        meter.add(10)
        action[:] = observation[1]
        return action

    episodes = record_episodes(
        RecordComputeStatistics(OneArray(gym.make("Pendulum-v1", max_episode_steps=EPISODE)), meter), rule, 1
    )
    assert len(np.unique(episodes.observations, axis=0)) == EPISODE
    np.testing.assert_array_equal(episodes.actions[:, 0], episodes.observations[:, 1])
