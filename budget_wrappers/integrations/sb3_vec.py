"""Stable-Baselines3 with several environments: the vector wrappers around a ``VecEnv``.

A wrapper for single environments inside of a ``VecEnv`` cannot tell what the policy's batch cost each of them. Those
for vectors can, from outside::

    venv = wrapped(make_vec_env("Pendulum-v1", n_envs=4), RecordComputeStatistics)
    model = metered(PPO("MlpPolicy", venv))

where ``RecordComputeStatistics`` is that of ``budget_wrappers.wrappers.vector``; several at once are a function of the
vector environment, ``lambda envs: RecordComputeStatistics(ComputePenaltyReward(envs, 1e-6))``.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.integrations.extras import library
from budget_wrappers.wrappers.vector.modes import SAME_STEP

FINAL_INFO, FINAL_OBS, TERMINAL = "final_info", "final_obs", "terminal_observation"


def wrapped(venv: Any, wrap: Callable[[VectorEnv], VectorEnv]) -> Any:
    """Return ``venv`` in vector wrappers, again as a ``VecEnv``.

    Each environment's ``info`` has what those wrappers tell of it: that of the step which ends an episode has its cost
    and ``info["compute"]``, as a wrapper for single environments would write them.

    Args:
        venv: of ``stable_baselines3``, in one process or several; the policy and its meter are in this one.
        wrap: puts wrappers of ``budget_wrappers.wrappers.vector`` around a vector environment, and returns it.

    Raises:
        MissingExtraError: Stable-Baselines3 is not installed.
        ConfigError: it is no ``VecEnv``.

    Example:
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import RecordComputeStatistics
        >>> venv = make_vec_env("CartPole-v1", n_envs=2)
        >>> venv = wrapped(venv, lambda envs: RecordComputeStatistics(envs, "docs.sb3_vec"))
        >>> _ = venv.reset()
        >>> get_meter("docs.sb3_vec").add(1280, rows=2)
        >>> [float(info["cost"]) for info in venv.step([0, 1])[3]]
        [640.0, 640.0]
    """
    if not isinstance(venv, library("stable_baselines3.common.vec_env", "sb3").VecEnv):
        raise ConfigError(
            f"got a {type(venv).__name__}; expected a VecEnv of stable_baselines3, such as make_vec_env returns. The "
            "vector wrappers go around Gymnasium's vector environments as they are"
        )
    return _kind()(venv, wrap(SteppedVecEnv(venv)))


class SteppedVecEnv(VectorEnv):
    """A ``VecEnv`` as Gymnasium's vector environments are, in ``SAME_STEP`` mode.

    Attributes:
        venv: the environment inside.
        told: its infos of the latest step, which the wrappers outside do not see.
    """

    def __init__(self, venv: Any) -> None:
        known = getattr(gym.vector, "AutoresetMode", None)  # not in Gymnasium 1.0
        self.venv, self.num_envs, self.told = venv, venv.num_envs, [{} for _ in range(venv.num_envs)]
        self.metadata = {"autoreset_mode": SAME_STEP if known is None else known(SAME_STEP)}
        self.single_observation_space, self.single_action_space = venv.observation_space, venv.action_space
        self.observation_space = batch_space(venv.observation_space, self.num_envs)
        self.action_space = batch_space(venv.action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all; seeds and options are given to the ``VecEnv`` itself."""
        return self.venv.reset(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step; infos hold the last observations of episodes, and nothing else."""
        obs, rewards, over, self.told = self.venv.step(actions)
        cut = np.array([bool(info.get("TimeLimit.truncated")) for info in self.told])
        infos = {}
        if over.any():
            last = np.empty(self.num_envs, object)
            last[:] = [info.get(TERMINAL) for info in self.told]
            infos = {FINAL_OBS: last, f"_{FINAL_OBS}": over.copy()}
        return obs, rewards, over & ~cut, over & cut, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment inside."""
        self.venv.close()


@functools.cache
def _kind() -> type:
    """Return the class of what ``wrapped`` returns; its base is Stable-Baselines3's."""

    class CountedVecEnv(library("stable_baselines3.common.vec_env", "sb3").VecEnvWrapper):
        """A ``VecEnv`` inside of vector wrappers."""

        def __init__(self, venv: Any, envs: VectorEnv) -> None:
            super().__init__(venv, envs.single_observation_space, envs.single_action_space)
            self._envs, self._actions = envs, None

        def reset(self) -> Any:
            obs, _ = self._envs.reset()
            self.reset_infos = self.venv.reset_infos
            return obs

        def step_async(self, actions: Any) -> None:
            self._actions = actions

        def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            obs, rewards, terminated, truncated, infos = self._envs.step(self._actions)
            self.reset_infos = self.venv.reset_infos
            over, told = terminated | truncated, self._envs.unwrapped.told
            rows = [_told(infos, row, over[row], told[row]) for row in range(self.num_envs)]
            return obs, rewards.astype(np.float32), over, rows

        def close(self) -> None:
            self._envs.close()

    return CountedVecEnv


def _told(infos: dict[str, Any], row: int, over: bool, own: dict[str, Any]) -> dict[str, Any]:
    """Return the info of one environment: its own, and what the wrappers add."""
    added = _row(infos.get(FINAL_INFO, {}) if over else infos, row)
    if clash := added.keys() & own.keys() - {FINAL_OBS, FINAL_INFO}:
        raise InfoKeyError(f"infos of the environments have {sorted(clash)} already; choose another key= for the cost.")
    if over and FINAL_OBS in infos:
        added[TERMINAL] = infos[FINAL_OBS][row]
    return {**own, **added}


def _row(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """Return what ``infos`` of a batch say of one row, by their masks."""
    names = [key for key in infos if not key.startswith("_") and key not in (FINAL_INFO, FINAL_OBS)]
    told = [(key, infos[key]) for key in names if infos[f"_{key}"][row]]
    return {key: _row(value, row) if isinstance(value, dict) else value[row] for key, value in told}


__all__ = ["SteppedVecEnv", "wrapped"]
