"""Data sets: what is written is what happened, what is read is what was written, what is damaged is named."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction

from agents import CQL, DQN, SAC, DiscreteCQL
from agents.behaviour_cloning import BehaviourCloning
from agents.replay.dataset import open_dataset, read_transitions, write_dataset
from budget_wrappers.errors import ConfigError, DatasetError, MissingExtraError, NonFiniteError
from tests.agents.test_hindsight import Line
from tests.contracts.agent import Countdown

pytest.importorskip("minari")
h5py = pytest.importorskip("h5py")


class Chance:
    """A policy that takes random actions and remembers them."""

    def __init__(self, space: gym.Space) -> None:
        self.space, self.taken = space, []
        space.seed(0)

    def predict(self, observation: Any, deterministic: bool = True) -> tuple[Any, None]:
        self.taken.append(self.space.sample())
        return self.taken[-1], None


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep data sets in a folder of the test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def written(env: gym.Env, transitions: int = 23, name: str = "test/data-v0") -> tuple[Any, Chance]:
    """Write a data set and return it with the policy that made it."""
    policy = Chance(env.action_space)
    return write_dataset(name, policy, env, transitions, seed=3), policy


def spoil(folder: Path, entry: str, change: Any) -> None:
    """Change an array of the data set on disk, as in one of another program, which has no checksums."""
    (folder / "test" / "data-v0" / "checksums.json").unlink(missing_ok=True)
    with h5py.File(folder / "test" / "data-v0" / "data" / "main_data.hdf5", "a") as file:
        change(file[entry])


def read(agent: Any, dataset: Any) -> Any:
    """Return the transitions of ``dataset`` as ``agent`` stores them."""
    return read_transitions(dataset, agent.observation_space, agent.action_space, agent.to_array, agent.from_env_action)


@pytest.mark.parametrize(("discrete", "agent_class"), [(False, SAC), (True, DQN)])
def test_reading_gives_what_happened(discrete: bool, agent_class: type) -> None:
    env = Countdown(which=1, discrete=discrete)
    dataset, policy = written(env)
    data = read(agent_class(env, buffer_size=10), dataset)
    # Episodes of 5 steps, the 1st, 3rd, … terminate, the others meet a time limit, the 5th is cut after 3 of its steps.
    assert data.observation.tolist() == [[1, 1 + i // 5, i % 5] for i in range(23)]
    assert data.next_observation.tolist() == [[1, 1 + i // 5, i % 5 + 1] for i in range(23)]
    assert data.reward.tolist() == [i % 5 + 1 for i in range(23)]
    assert np.flatnonzero(data.terminated).tolist() == [4, 14]
    assert np.flatnonzero(data.truncated).tolist() == [9, 19, 22]
    assert data.returns.tolist() == [15.0, 15.0, 15.0, 15.0, 6.0]
    # Discrete(3, start=5) is stored from 0, a number in [-2, 2] at half its size.
    taken = np.array(policy.taken)
    np.testing.assert_allclose(data.action, taken - 5 if discrete else taken / 2, atol=1e-6)


def test_actions_go_to_the_replay_and_back() -> None:
    agent = SAC(RescaleAction(Countdown(), np.float32(-3.0), np.float32(7.0)), buffer_size=10)
    stored = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_allclose(agent.from_env_action(agent.to_env_action(stored)), stored, atol=1e-6)


class OneArray(gym.ObservationWrapper):
    """Writes each observation into the same array, as environments written for speed do."""

    def observation(self, observation: Any) -> Any:
        self.array = getattr(self, "array", np.zeros_like(observation))
        self.array[:] = observation
        return self.array


def test_observations_of_an_environment_with_one_array_for_all_are_told_apart() -> None:
    data, _ = written(OneArray(gym.make("Pendulum-v1", max_episode_steps=10)), 10)
    assert len(np.unique(next(data.iterate_episodes()).observations, axis=0)) == 11


def test_dictionaries_are_joined_as_the_agent_joins_them() -> None:
    dataset, _ = written(Line(), 9)
    data = read(DQN(Line(), buffer_size=10), dataset)
    # Achieved goal and place are the same number, the desired one differs and does not change.
    assert np.array_equal(data.observation[:, 0], data.observation[:, 2])
    assert np.array_equal(data.observation[:6, 1], data.next_observation[:6, 1])
    assert np.abs(data.next_observation[:, 0] - data.observation[:, 0]).tolist() == [1.0] * 9


def test_data_set_is_found_by_id_by_folder_and_as_it_is(folder: Path) -> None:
    dataset, _ = written(Countdown())
    for given in ("test/data-v0", folder / "test" / "data-v0", str(folder / "test" / "data-v0"), dataset):
        assert open_dataset(given).total_steps == 23


def test_spaces_come_from_the_data_where_no_environment_is_given() -> None:
    written(Countdown(discrete=True))
    agent = DiscreteCQL(None, "test/data-v0")
    assert agent.action_space == spaces.Discrete(3, start=5)
    assert agent.learn(3).num_updates == 3
    assert agent.predict(np.zeros(3))[0] in (5, 6, 7)


def test_cloning_takes_continuous_and_discrete_data() -> None:
    for discrete in (False, True):
        dataset, _ = written(Countdown(discrete=discrete), name=f"test/{'one' if discrete else 'two'}-v0")
        agent = BehaviourCloning(Countdown(discrete=discrete), dataset, net_arch=(8,), batch_size=8).learn(3)
        assert np.isfinite(float(agent.metrics["loss"]))


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Countdown(discrete=True), r"the data set's action space is Box.*expected Discrete\(3, start=5\)"),
        (RescaleAction(Countdown(), np.float32(-1), np.float32(1)), r"action space is Box\(-2.*expected Box\(-1"),
        (Line(discrete=False), r"the data set's observation space is Box.*expected Dict"),
        (gym.make("MountainCarContinuous-v0"), r"observation space is Box\(-100.*\(3,\).*expected Box.*\(2,\)"),
    ],
)
def test_other_spaces_are_refused(env: gym.Env, message: str) -> None:
    written(Countdown())
    agent_class = DiscreteCQL if isinstance(env.action_space, spaces.Discrete) else CQL
    with pytest.raises(DatasetError, match=message):
        agent_class(env, "test/data-v0")


def test_missing_data_set_is_refused(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no data set 'test/none-v0': expected .* or an id below"):
        CQL(Countdown(), "test/none-v0")
    with pytest.raises(DatasetError, match="there is no data set"):
        CQL(None, folder / "nowhere")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_truncated_file_is_refused(folder: Path, share: float) -> None:
    written(Countdown())
    file = folder / "test" / "data-v0" / "data" / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError, match=r"cannot be read .*it was truncated or damaged"):
        CQL(Countdown(), "test/data-v0")


def test_damaged_description_is_refused(folder: Path) -> None:
    written(Countdown())
    file = folder / "test" / "data-v0" / "data" / "metadata.json"
    file.write_text(file.read_text()[:40])
    with pytest.raises(DatasetError, match=r"cannot be read .*it was truncated or damaged"):
        CQL(Countdown(), "test/data-v0")


def test_file_without_data_is_refused(folder: Path) -> None:
    written(Countdown())
    (folder / "test" / "data-v0" / "data" / "main_data.hdf5").unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        CQL(Countdown(), "test/data-v0")


@pytest.mark.parametrize(("entry", "what"), [("rewards", "a reward"), ("actions", "an action")])
def test_nan_in_the_data_is_refused(folder: Path, entry: str, what: str) -> None:
    written(Countdown())

    def put_nan(array: Any) -> None:
        array[2] = np.nan

    spoil(folder, f"episode_1/{entry}", put_nan)
    with pytest.raises(NonFiniteError, match=rf"{what} of episode 1 is NaN or infinite \(step 2\)"):
        CQL(Countdown(), "test/data-v0")


def test_arrays_of_other_lengths_are_refused(folder: Path) -> None:
    written(Countdown())
    spoil(folder, "episode_0/actions", lambda array: array.resize(2, axis=0))
    with pytest.raises(DatasetError, match="episode 0 has 3 rewards and actions of 2 steps"):
        CQL(Countdown(), "test/data-v0")


def test_a_flipped_bit_of_stored_data_is_noticed(folder: Path) -> None:
    import minari

    written(Countdown())
    data = folder / "test" / "data-v0" / "data"
    for path in sorted(data.iterdir()):
        content = path.read_bytes()
        for place in range(1, len(content), len(content) // 20):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(DatasetError, match=r"checksums.*damaged, take another copy"):
                open_dataset("test/data-v0")
        path.write_bytes(content)
    assert open_dataset("test/data-v0").total_steps == minari.load_dataset("test/data-v0").total_steps == 23
    assert list(minari.list_local_datasets()) == ["test/data-v0"]


def test_name_in_use_is_refused_and_the_old_data_stay() -> None:
    written(Countdown())
    with pytest.raises(DatasetError, match=r"'test/data-v0' cannot be made .*choose another"):
        written(Countdown(), 5)
    assert open_dataset("test/data-v0").total_steps == 23


def test_no_transitions_are_refused() -> None:
    with pytest.raises(DatasetError, match="transitions=0: expected at least 1"):
        written(Countdown(), 0)


def test_learning_without_data_is_refused() -> None:
    with pytest.raises(DatasetError, match="CQL has no data to learn from: expected a data set; pass dataset="):
        CQL(Countdown()).learn(1)
    with pytest.raises(ConfigError, match="env=None and dataset=None"):
        CQL()


@pytest.mark.parametrize("module", ["minari", "h5py"])
def test_missing_extra_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'budget-wrappers\[minari\]'"):
        CQL(Countdown(), "test/data-v0")


# ---- saving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("discrete", "agent_class"), [(False, CQL), (True, DiscreteCQL)])
def test_resumed_run_is_the_same_run(tmp_path: Path, discrete: bool, agent_class: type) -> None:
    env = Countdown(discrete=discrete)
    dataset, _ = written(env)
    settings = {"net_arch": (8, 8), "batch_size": 8}
    whole = agent_class(env, dataset, **settings).learn(12)
    half = agent_class(env, dataset, **settings)
    half.learn(12, lambda agent: agent.num_timesteps < 6)
    half.save(tmp_path / "half", replay=True)
    resumed = agent_class.load(tmp_path / "half", env, dataset=dataset)
    resumed.learn(12 - resumed.num_timesteps)
    for name, module in whole.modules.items():
        for one, other in zip(module.parameters(), resumed.modules[name].parameters(), strict=True):
            assert np.array_equal(one.detach(), other.detach()), name


def test_saved_agent_acts_where_its_data_are_not(tmp_path: Path) -> None:
    agent = CQL(Countdown(), written(Countdown())[0], net_arch=(8,), batch_size=8).learn(2)
    agent.save(tmp_path / "agent")
    loaded = CQL.load(tmp_path / "agent")
    assert np.array_equal(loaded.predict(np.ones(3))[0], agent.predict(np.ones(3))[0])


def test_resuming_on_other_data_is_refused(tmp_path: Path) -> None:
    agent = CQL(Countdown(), written(Countdown())[0], net_arch=(8,), batch_size=8).learn(2)
    agent.save(tmp_path / "agent", replay=True)
    other, _ = written(Countdown(), 11, "test/other-v0")
    with pytest.raises(DatasetError, match="the data set has 11 transitions: expected the 23 that the agent"):
        CQL.load(tmp_path / "agent", Countdown(), dataset=other)
