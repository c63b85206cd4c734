"""Offline data in Minari's format: data sets on disk become a replay, roll-outs become data sets.

Minari is an optional dependency, imported when it is first needed. Writing goes through its episode buffers, which
unlike its ``DataCollector`` need no jax.
"""

import copy
import importlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from agents.replay.checksums import require_checksums, write_checksums
from agents.replay.recordable import require_recordable
from budget_wrappers.errors import DatasetError, MissingExtraError, NonFiniteError
from budget_wrappers.functional.finite import storable

# What reading a damaged file raises, from the JSON of its metadata to HDF5.
DAMAGED = (
    *(OSError, ValueError, KeyError, AssertionError, IndexError, TypeError, AttributeError, OverflowError),
    *(RuntimeError, MemoryError),  # h5py's own, and RecursionError
)


@dataclass(frozen=True)
class Transitions:
    """``N`` transitions in the order in which they happened, episode after episode.

    Attributes:
        observation, next_observation: ``(N, O)`` float32.
        action: ``(N, A)`` float32 in [-1, 1], or ``(N,)`` int64 counted from 0: as the replay stores them.
        reward: ``(N,)``.
        terminated, truncated: ``(N,)``; the last step of every episode has one of them.
        returns: undiscounted return of each episode.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    returns: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)


def minari_module(name: str = "minari") -> ModuleType:
    """Return Minari.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        importlib.import_module("h5py")
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"offline data needs Minari and h5py, and {error.name!r} is not installed; "
            "pip install 'budget-wrappers[minari]'"
        ) from error


# ---- reading --------------------------------------------------------------------------------------------------------


def open_dataset(dataset: Any) -> Any:
    """Return the Minari data set of ``dataset``; nothing is ever downloaded.

    Args:
        dataset: a ``MinariDataset``, a folder that holds one, or an id such as ``"halfcheetah/medium-v0"``, looked
            up where the environment variable ``MINARI_DATASETS_PATH`` says.

    Raises:
        DatasetError: there is none, its description is damaged, or ``dataset`` is something else.
        MissingExtraError: Minari is not installed.
    """
    minari = minari_module()
    if isinstance(dataset, minari.MinariDataset):
        return dataset
    if not isinstance(dataset, (str, os.PathLike)):
        raise DatasetError(
            f"the data set is a {type(dataset).__name__}: expected a MinariDataset, its folder or its id; store "
            "episodes with agents.replay.dataset.write_dataset first"
        )
    folder = Path(dataset)
    if not (folder / "data").is_dir():
        root = importlib.import_module("minari.storage.datasets_root_dir")
        folder = Path(root.get_dataset_path(str(dataset)))
    if not (folder / "data").is_dir():
        raise DatasetError(
            f"there is no data set {str(dataset)!r}: expected a folder with 'data' in it, or an id below "
            f"{folder.parent if os.sep in str(dataset) else folder}; make one with agents.replay.dataset.write_dataset "
            "or fetch one with `minari download`"
        )
    require_checksums(folder / "data")
    try:
        return minari.MinariDataset(folder / "data")
    except DAMAGED as error:
        raise damaged(folder, error) from error


def damaged(what: Any, error: Exception) -> DatasetError:
    """Return the error for a data set that cannot be read."""
    return DatasetError(
        f"the data set {what} cannot be read ({type(error).__name__}: {error}): expected one as Minari writes it; "
        "it was truncated or damaged, write or fetch it again"
    )


def read_transitions(
    dataset: Any,
    observation_space: gym.Space,
    action_space: gym.Space,
    to_array: Callable[[Any], np.ndarray],
    from_env_action: Callable[[np.ndarray], np.ndarray],
) -> Transitions:
    """Return every transition of ``dataset``, for an agent with these spaces.

    Args:
        dataset: see ``open_dataset``.
        observation_space: what the agent expects.
        action_space: what the agent expects.
        to_array: turns a batch of observations into what the networks see, ``(n, O)``.
        from_env_action: turns a batch of the environment's actions into what the replay stores.

    Raises:
        DatasetError: other spaces, a damaged file, arrays that do not fit each other, or no transition at all.
        NonFiniteError: NaN or infinity in an observation, an action or a reward.
    """
    opened = open_dataset(dataset)
    require_same_space("observation", opened.observation_space, observation_space)
    require_same_space("action", opened.action_space, action_space)
    parts = [
        arrays_of(episode, to_array, from_env_action, number) for number, episode in enumerate(episodes_of(opened))
    ]
    if not parts:
        raise DatasetError(f"the data set {opened.id} has no transitions: expected at least one; collect some")
    columns = [np.concatenate(column) for column in zip(*(part[:-1] for part in parts), strict=True)]
    return Transitions(*columns, returns=np.array([part[-1] for part in parts]))


def episodes_of(opened: Any) -> Iterator[Any]:
    """Yield the episodes of an open data set that have steps.

    Raises:
        DatasetError: the file ends early or is none.
    """
    try:
        for episode in opened.iterate_episodes():
            if len(episode.rewards):
                yield episode
    except DAMAGED as error:
        raise damaged(opened.id, error) from error


def arrays_of(
    episode: Any,
    to_array: Callable[[Any], np.ndarray],
    from_env_action: Callable[[np.ndarray], np.ndarray],
    number: int,
) -> tuple[Any, ...]:
    """Return the columns of one episode and its return."""
    observation = to_array(episode.observations)
    reward = np.asarray(episode.rewards)
    steps = len(reward)
    action = np.asarray(episode.actions)
    terminated, truncated = (np.array(flags, dtype=bool) for flags in (episode.terminations, episode.truncations))
    lengths = {"observations": len(observation) - 1, "actions": len(action), "terminations": len(terminated)}
    for name, length in {**lengths, "truncations": len(truncated)}.items():
        if length != steps:
            raise DatasetError(
                f"episode {number} has {steps} rewards and {name} of {length} steps: expected as many (observations: "
                "one more than steps); write the data set again"
            )
    for name, array in (("an observation", observation), ("an action", action), ("a reward", reward)):
        if not storable(array):
            row = bad_row(array)
            raise NonFiniteError(
                f"{name} of episode {number} is NaN or infinite (step {row}): expected finite numbers; drop that "
                f"episode with MinariDataset.filter_episodes. In the file it is {array[row]!r}, a replay stores float32"
            )
    reward = reward.astype(np.float32, copy=False)
    # Collection may stop within an episode: what follows in the file follows nothing.
    truncated[-1] |= not terminated[-1]
    stored = from_env_action(action)
    total = float(np.sum(reward, dtype=np.float64))
    return observation[:-1], stored, reward, observation[1:], terminated, truncated, total


def bad_row(array: np.ndarray) -> int:
    """Return the first row that holds a number which is not finite in float32."""
    return next(row for row, one in enumerate(array) if not storable(np.asarray(one)))


def require_same_space(name: str, found: gym.Space, wanted: gym.Space) -> None:
    """Raise unless an agent cannot tell the two spaces apart: their kind, shape, and the bounds of actions.

    Raises:
        DatasetError: with both spaces.
    """
    if not same_space(found, wanted, with_bounds=name == "action"):
        raise DatasetError(
            f"the data set's {name} space is {found}: expected {wanted}; use a data set of the same environment, or "
            "the environment it was collected in"
        )


def same_space(found: gym.Space, wanted: gym.Space, with_bounds: bool) -> bool:
    """Return whether data of ``found`` can be used where ``wanted`` is."""
    if isinstance(wanted, spaces.Dict):
        return (
            isinstance(found, spaces.Dict)
            and list(found) == list(wanted)
            and all(same_space(found[key], wanted[key], with_bounds) for key in wanted)
        )
    if isinstance(wanted, spaces.Discrete):
        return isinstance(found, spaces.Discrete) and (found.n, found.start) == (wanted.n, wanted.start)
    if not isinstance(wanted, spaces.Box) or not isinstance(found, spaces.Box) or found.shape != wanted.shape:
        return found == wanted
    return not with_bounds or (np.allclose(found.low, wanted.low) and np.allclose(found.high, wanted.high))


# ---- writing --------------------------------------------------------------------------------------------------------


def write_dataset(
    dataset_id: str,
    policy: Any,
    env: gym.Env,
    transitions: int,
    *,
    seed: int = 0,
    deterministic: bool = False,
    algorithm: str | None = None,
) -> Any:
    """Roll ``policy`` out in ``env`` until ``transitions`` steps and store the episodes as a Minari data set.

    Args:
        dataset_id: ``"namespace/name-v0"``; the folder is below ``MINARI_DATASETS_PATH``.
        policy: anything with ``predict(observation, deterministic=…) -> (action, state)``.
        env: a single environment. Its rewards and observations are stored as it returns them.
        transitions: at least 1; the last episode is cut there and marked as truncated.
        seed: of the first episode, which is reset with it; episode ``i`` with ``seed + i``.
        deterministic: whether the policy's noise is off.
        algorithm: name to store with the data; by default the policy's class.

    Returns:
        The ``MinariDataset``.

    Raises:
        DatasetError: fewer than one transition, or a data set of that name exists.
        MissingExtraError: Minari is not installed.
    """
    minari_module()  # raises
    if transitions < 1:
        raise DatasetError(f"transitions={transitions}: expected at least 1; pass how many steps to store")
    buffers, missing = [], transitions
    for episode in itertools.count():
        buffer = roll_out(policy, env, seed + episode, missing, deterministic)
        buffers.append(buffer)
        missing -= len(buffer)
        if missing <= 0:
            break
    return store_episodes(dataset_id, buffers, env, algorithm or type(policy).__name__)


def store_episodes(dataset_id: str, buffers: list[Any], env: gym.Env, algorithm: str) -> Any:
    """Return the ``MinariDataset`` of these ``EpisodeBuffer``, which is written to disk.

    Raises:
        DatasetError: a data set of that name exists, or no data set can have it.
    """
    minari = minari_module()
    try:
        with warnings.catch_warnings():
            # Minari warns about each of author, e-mail, permalink and evaluation environment that is not given.
            warnings.simplefilter("ignore", UserWarning)
            made = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=env,
                algorithm_name=algorithm,
                data_format="hdf5",
                requirements=[],
            )
        write_checksums(Path(made.storage.data_path))
        return made
    except ValueError as error:
        raise DatasetError(
            f"the data set {dataset_id!r} cannot be made ({error}): expected a name 'namespace/name-v0' that is not in "
            "use; choose another, or delete that one with minari.delete_dataset"
        ) from error


def roll_out(policy: Any, env: gym.Env, seed: int, longest: int | None, deterministic: bool) -> Any:
    """Return one episode, cut after ``longest`` steps if that is a number, as Minari's ``EpisodeBuffer``."""
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    observation, _ = env.reset(seed=seed)
    # Copies: some environments hand out the same array again, and some policies do.
    observations, actions, rewards, terminations, truncations = [copy.deepcopy(observation)], [], [], [], []
    over = False
    while not over:
        action, _ = policy.predict(observation, deterministic=deterministic)
        taken = copy.deepcopy(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        cut = len(rewards) + 1 == longest
        require_recordable(observation, taken, reward, len(rewards) + 1, seed)
        observations.append(copy.deepcopy(observation))
        actions.append(taken)
        rewards.append(float(reward))
        terminations.append(bool(terminated))
        truncations.append(bool(truncated or (cut and not terminated)))
        over = terminated or truncated or cut
    return buffer(
        seed=seed,
        observations=columns_of(observations, env.observation_space),
        actions=actions,
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )


def columns_of(observations: list[Any], space: gym.Space) -> Any:
    """Return a list of dictionaries as a dictionary of lists, which Minari stores; arrays stay a list."""
    if isinstance(space, spaces.Dict):
        return {key: columns_of([one[key] for one in observations], space[key]) for key in space}
    return [np.asarray(one) for one in observations]
