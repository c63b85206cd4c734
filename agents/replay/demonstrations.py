"""Demonstrations as imitation learning is tested on them: some consecutive steps of each of some episodes."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np

from agents.replay.dataset import minari_module, roll_out, store_episodes
from budget_wrappers.errors import DatasetError


def write_demonstrations(
    dataset_id: str,
    policy: Any,
    env: gym.Env,
    episodes: int = 25,
    pairs: int = 50,
    *,
    seed: int = 0,
    deterministic: bool = True,
    algorithm: str | None = None,
) -> Any:
    """Let ``policy`` play whole episodes and store ``pairs`` consecutive steps of each as a Minari data set.

    Where in the episode they begin is uniformly random. An episode of fewer steps gives all that it has.

    Args:
        dataset_id: ``"namespace/name-v0"``; the folder is below ``MINARI_DATASETS_PATH``.
        policy: anything with ``predict(observation, deterministic=…) -> (action, state)``.
        env: a single environment whose episodes end.
        episodes: at least 1.
        pairs: of observation and action from each of them, at least 1.
        seed: of the first episode, which is reset with it, episode ``i`` with ``seed + i``; and of the beginnings.
        deterministic: whether the policy's noise is off.
        algorithm: name to store with the data; by default the policy's class.

    Returns:
        The ``MinariDataset``; a stretch that stops before its episode did is marked as truncated.

    Raises:
        DatasetError: fewer than one episode or pair, or a data set of that name exists.
        MissingExtraError: Minari is not installed.
    """
    minari_module()  # raises
    for name, value in (("episodes", episodes), ("pairs", pairs)):
        if value < 1:
            raise DatasetError(f"{name}={value}: expected at least 1; pass how many to store")
    rng, stretches = np.random.default_rng(seed), []
    for episode in range(episodes):
        whole = roll_out(policy, env, seed + episode, None, deterministic)
        start = int(rng.integers(max(len(whole) - pairs, 0) + 1))
        stretches.append(stretch(whole, start, pairs))
    return store_episodes(dataset_id, stretches, env, algorithm or type(policy).__name__)


def stretch(whole: Any, start: int, steps: int) -> Any:
    """Return ``steps`` steps of an ``EpisodeBuffer``, or those that are left, from its step ``start`` on."""
    kept = slice(start, start + steps)
    truncations = whole.truncations[kept]
    truncations[-1] |= not whole.terminations[kept][-1]
    return dataclasses.replace(
        whole,
        observations=sliced(whole.observations, slice(start, start + steps + 1)),
        actions=whole.actions[kept],
        rewards=whole.rewards[kept],
        terminations=whole.terminations[kept],
        truncations=truncations,
    )


def sliced(observations: Any, kept: slice) -> Any:
    """Return that slice of a list of observations, or of each list of a dictionary of them."""
    if isinstance(observations, dict):
        return {key: sliced(part, kept) for key, part in observations.items()}
    return observations[kept]
