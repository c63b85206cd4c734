"""Demonstrations: so many consecutive pairs of each episode, and nothing that did not happen."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from agents import SAC
from agents.replay.dataset import read_transitions
from agents.replay.demonstrations import write_demonstrations
from budget_wrappers.errors import DatasetError
from tests.agents.test_hindsight import Line

pytest.importorskip("minari")


class Marked(gym.Env):
    """Shows ``(episode, step)``; episodes have 200 steps, but every fifth terminates after 20."""

    observation_space = spaces.Box(0.0, 1000.0, (2,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self) -> None:
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        short = self.episode % 5 == 0
        over = self.t == (20 if short else 200)
        return np.array([self.episode, self.t], np.float32), 1.0, over and short, over and not short, {}


class Telling:
    """A policy whose action tells the step that it saw."""

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[np.ndarray, None]:
        assert deterministic
        return np.array([observation[-1] / 100 - 1], np.float32), None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep data sets in a folder of the test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def shown(name: str, **settings: Any) -> Any:
    """Return the transitions that are stored."""
    agent = SAC(Marked(), buffer_size=10)
    dataset = write_demonstrations(f"test/{name}-v0", Telling(), Marked(), **settings)
    return read_transitions(dataset, agent.observation_space, agent.action_space, agent.to_array, agent.from_env_action)


def test_25_episodes_give_50_consecutive_pairs_each_and_short_ones_all_they_have() -> None:
    data = shown("one", seed=7)
    # Episodes 0, 5, 10, 15, 20 have 20 steps, the other 20 give 50 each: 5·20 + 20·50 = 1100.
    assert len(data) == 1100
    starts = []
    for episode in range(25):
        steps = data.observation[data.observation[:, 0] == episode, 1]
        starts.append(int(steps[0]))
        assert steps.tolist() == [starts[-1] + i for i in range(20 if episode % 5 == 0 else 50)]
    assert set(starts[::5]) == {0}
    # Uniform over 0 … 150: twenty draws that are all below 75 or all above have a probability of 2⁻¹⁹.
    others = [start for episode, start in enumerate(starts) if episode % 5]
    assert 0 <= min(others) < 75 < max(others) <= 150
    # Stored in [-1, 1], half of what the environment got.
    np.testing.assert_allclose(data.action[:, 0], (data.observation[:, 1] / 100 - 1) / 2, atol=1e-6)
    assert np.array_equal(data.next_observation[:, 1], data.observation[:, 1] + 1)
    # The short episodes are whole and terminate, every other stretch is cut.
    assert data.terminated.sum() == 5 and data.truncated.sum() == 20


def test_seed_decides_where_stretches_begin() -> None:
    one, same, other = (shown(name, episodes=4, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert np.array_equal(one.observation, same.observation)
    assert not np.array_equal(one.observation, other.observation)


def test_dictionaries_are_cut_alike() -> None:
    class Still:
        def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, None]:
            return env.action_space.sample(), None

    env = Line()
    dataset = write_demonstrations("test/goals-v0", Still(), env, episodes=3, pairs=2)
    for episode in dataset.iterate_episodes():
        assert {len(part) for part in episode.observations.values()} == {len(episode.rewards) + 1}
        assert 1 <= len(episode.rewards) <= 2


@pytest.mark.parametrize("name", ["episodes", "pairs"])
def test_none_is_refused(name: str) -> None:
    with pytest.raises(DatasetError, match=f"{name}=0: expected at least 1; pass how many"):
        write_demonstrations("test/none-v0", Telling(), Marked(), **{name: 0})
