"""The study of what exits buy a trained policy: which states it times, and what it refuses before any work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from torch import nn

from agents.studies.retrofit import run_retrofit, visited
from budget_wrappers.errors import ConfigError
from budget_wrappers.policies.retrofit import RetrofitConfig, TrainedActor
from tests.wrappers.environments import OneArray


class Resting:
    """Never pushes."""

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[np.ndarray, None]:
        return np.zeros(1, np.float32), None


def test_states_that_are_timed_are_those_of_different_steps() -> None:
    setup: Any = SimpleNamespace(make_env=lambda: OneArray(gym.make("Pendulum-v1")))
    assert len(np.unique(visited(Resting(), setup, 0, 20), axis=0)) == 20


def test_exits_that_the_actor_cannot_have_are_refused_before_any_work(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1), nn.Tanh())
    actor = TrainedActor.of_module(net, gym.make("Pendulum-v1").action_space)
    setup: Any = SimpleNamespace()  # has no environment to evaluate in
    with pytest.raises(ConfigError, match="exit_after"):
        run_retrofit(Resting(), actor, setup, RetrofitConfig(exit_after=(1, 7)), [0.5], tmp_path / "out")
    assert not (tmp_path / "out").exists()
