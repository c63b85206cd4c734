"""The study of what exits buy a trained policy: which states it times, and what it refuses before any work."""

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from agents.recipes.retrofit import visited


class OneArray(gym.ObservationWrapper):
    """Writes each observation into the same array, as environments written for speed do."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.array = np.zeros(env.observation_space.shape, env.observation_space.dtype)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        self.array[:] = observation
        return self.array


class Resting:
    """Never pushes."""

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[np.ndarray, None]:
        return np.zeros(1, np.float32), None


def test_states_that_are_timed_are_those_of_different_steps() -> None:
    setup: Any = SimpleNamespace(make_env=lambda: OneArray(gym.make("Pendulum-v1")))
    assert len(np.unique(visited(Resting(), setup, 0, 20), axis=0)) == 20
