"""Files of Stable-Baselines3 run code when they are loaded: only on request."""

import json
import zipfile
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from stable_baselines3 import A2C, DQN, PPO, SAC, TD3, HerReplayBuffer

from budget_wrappers.errors import CheckpointError, ConfigError, UntrustedFileError
from budget_wrappers.integrations.sb3_files import load

CASES = [(SAC, "Pendulum-v1"), (TD3, "Pendulum-v1"), (DQN, "CartPole-v1"), (PPO, "CartPole-v1"), (A2C, "CartPole-v1")]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    SAC("MlpPolicy", gym.make("Pendulum-v1"), buffer_size=10, seed=0, device="cpu").save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


@pytest.mark.parametrize(("model_class", "env_id"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_algorithm_is_found_without_running_the_file(model_class: type, env_id: str, tmp_path: Path) -> None:
    settings = {"buffer_size": 10} if model_class in (SAC, TD3, DQN) else {}
    model = model_class("MlpPolicy", gym.make(env_id), seed=0, device="cpu", **settings)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", trust=True, device="cpu")
    assert type(loaded) is model_class
    observation = np.zeros(model.observation_space.shape, np.float32)
    action = model.predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], action)


def test_zip_is_refused_without_trust_and_the_reason_is_given(saved: Path) -> None:
    with pytest.raises(UntrustedFileError, match=r"trust=True .*can run any code"):
        load(saved)


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "none.zip", trust=True)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(CheckpointError, match="is no zip archive"):
        load(tmp_path / "text.zip", trust=True)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(CheckpointError, match="expected an entry 'data'"):
        load(tmp_path / "other.zip", trust=True)


def test_unknown_policy_needs_the_algorithm_by_name(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(tmp_path / "own.zip", "w") as other:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "data":
                record = json.loads(data)
                record["policy_class"]["__module__"] = "somebody.policies"
                data = json.dumps(record).encode()
            other.writestr(name, data)
    with pytest.raises(ConfigError, match=r"somebody\.policies.*pass algorithm='SAC'.*--agent SAC"):
        load(tmp_path / "own.zip", trust=True)
    assert type(load(tmp_path / "own.zip", "SAC", trust=True, device="cpu")) is SAC


def test_name_of_no_algorithm_is_refused(saved: Path) -> None:
    with pytest.raises(ConfigError, match="algorithm='SAK'"):
        load(saved, "SAK", trust=True)


class Goals(gym.Env):
    """A goal to reach in one dimension."""

    box = gym.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gym.spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    action_space = box

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: object) -> np.ndarray:
        return -np.abs(achieved - desired).sum(-1)


def test_a_model_that_learned_in_hindsight_opens_without_an_environment_and_acts(tmp_path: Path) -> None:
    settings = {"replay_buffer_class": HerReplayBuffer, "buffer_size": 10, "seed": 0, "device": "cpu"}
    model = SAC("MultiInputPolicy", Goals(), **settings)
    model.save(tmp_path / "model")
    observation = {key: np.full(1, 0.5, np.float32) for key in Goals.observation_space}
    action = model.predict(observation, deterministic=True)[0]
    loaded = load(tmp_path / "model", trust=True, device="cpu")
    np.testing.assert_array_equal(loaded.predict(observation, deterministic=True)[0], action)
    further = load(tmp_path / "model", env=Goals(), trust=True, device="cpu")
    assert type(further.replay_buffer) is HerReplayBuffer
