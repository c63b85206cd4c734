"""Stable-Baselines3 with several environments: the vector wrappers around a ``VecEnv``.

A wrapper for single environments inside of a ``VecEnv`` cannot tell what the policy's batch cost each of them. Those
for vectors can, from outside::

    venv = wrapped(make_vec_env("Pendulum-v1", n_envs=4), RecordComputeStatistics)
    model = metered(PPO("MlpPolicy", venv))

where ``RecordComputeStatistics`` is that of ``budget_wrappers.wrappers.vector``; several at once are a function of the
vector environment, ``lambda envs: RecordComputeStatistics(ComputePenaltyReward(envs, 1e-6))``.

A ``ComputeLimit`` resets the environment of an episode that it has ended, ``env_method("reset", indices=…)``. It says
whether that was a truncation (``"TimeLimit.truncated"``); a ``Monitor`` inside, which did not see the end, reports no
such episode. Methods and attributes of the wrappers are reached as those of environments are:
``venv.env_method("set_budget", 10_000)``, ``venv.get_attr("remaining")``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.integrations.extras import library
from budget_wrappers.wrappers.vector.modes import RESET_MASK, SAME_STEP

FINAL_INFO, FINAL_OBS, TERMINAL = "final_info", "final_obs", "terminal_observation"
TRUNCATED = "TimeLimit.truncated"


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
        takes_reset_mask: whether ``options["reset_mask"]`` resets some environments only: where no ``VecEnvWrapper`` is
            inside, as such a reset passes by those.
    """

    def __init__(self, venv: Any) -> None:
        self.takes_reset_mask, self._last = venv.unwrapped is venv, None
        known = getattr(gym.vector, "AutoresetMode", None)  # not in Gymnasium 1.0
        self.venv, self.num_envs, self.told = venv, venv.num_envs, [{} for _ in range(venv.num_envs)]
        self.metadata = {"autoreset_mode": SAME_STEP if known is None else known(SAME_STEP)}
        self.single_observation_space, self.single_action_space = venv.observation_space, venv.action_space
        self.observation_space = batch_space(venv.observation_space, self.num_envs)
        self.action_space = batch_space(venv.action_space, self.num_envs)

    reset_mask_remedy = (
        "Wrap what make_vec_env returns, wrapped(venv, …), and put VecNormalize, VecMonitor and other wrappers of "
        "Stable-Baselines3 around that: such a reset passes by those inside."
    )

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all, or those of ``options["reset_mask"]``; seeds and other options are given to the ``VecEnv`` itself.

        Raises:
            ConfigError: a mask, where wrappers of Stable-Baselines3 inside would not see the reset.
        """
        mask = (options or {}).get(RESET_MASK)
        if mask is None:
            self._last = self.venv.reset()
            return self._last, {}
        if not self.takes_reset_mask:
            raise ConfigError(
                f"options={{{RESET_MASK!r}: …}} for {type(self.venv).__name__}: expected a VecEnv without a wrapper of "
                "Stable-Baselines3, which would not see the reset. Put VecNormalize and the like around what wrapped() "
                "returns"
            )
        rows = np.flatnonzero(mask).tolist()
        fresh = self.venv.env_method("reset", indices=rows)
        self._last = _with_rows(self._last, rows, [obs for obs, _ in fresh])
        for row, (_, info) in zip(rows, fresh, strict=True):
            self.venv.reset_infos[row] = info
        return self._last, {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step; infos hold the last observations of episodes, and nothing else."""
        obs, rewards, over, self.told = self.venv.step(actions)
        cut = np.array([bool(info.get(TRUNCATED)) for info in self.told])
        infos = {}
        if over.any():
            last = np.empty(self.num_envs, object)
            last[:] = [info.get(TERMINAL) for info in self.told]
            infos = {FINAL_OBS: last, f"_{FINAL_OBS}": over.copy()}
        self._last = obs
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
            self._envs, self._actions = envs, None  # first: the base class asks for attributes
            super().__init__(venv, envs.single_observation_space, envs.single_action_space)

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
            for row in np.flatnonzero(over):  # a wrapper may have ended it: then no value follows, or one does
                rows[row][TRUNCATED] = bool(truncated[row] and not terminated[row])
            return obs, rewards.astype(np.float32), over, rows

        def set_options(self, options: Any = None) -> None:
            """Set options of the next reset; a ``"budget"`` among them holds from that on, see ``set_budget``."""
            self.venv.set_options(options)
            together = isinstance(options, dict)
            for row, one in enumerate([options] if together else options or []):
                if "budget" in (one or {}) and _of_wrappers(self._envs, "set_budget") is not None:
                    self.env_method("set_budget", one["budget"], indices=None if together else [row])

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            """Call a method of the vector wrappers, or of the environments where they have none of that name."""
            method = _of_wrappers(self._envs, method_name)
            if method is None:
                return self.venv.env_method(method_name, *args, indices=indices, **kwargs)
            rows = list(self._get_indices(indices))
            if indices is not None:
                kwargs = {**kwargs, **_masked(method, rows, self.num_envs)}
            return _for_rows(method(*args, **kwargs), rows, self.num_envs)

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            """Return an attribute of the vector wrappers by row, or those of the environments."""
            found = _of_wrappers(self._envs, attr_name)
            if found is None:
                return self.venv.get_attr(attr_name, indices)
            return _for_rows(found, list(self._get_indices(indices)), self.num_envs)

        def has_attr(self, attr_name: str) -> bool:
            """Tell whether the vector wrappers or the environments have it."""
            return _of_wrappers(self._envs, attr_name) is not None or self.venv.has_attr(attr_name)

        def close(self) -> None:
            self._envs.close()

    return CountedVecEnv


def _of_wrappers(envs: VectorEnv, name: str) -> Any:
    """Return what the outermost vector wrapper of ours has under ``name``, None where no one has it."""
    layer = envs
    while isinstance(layer, VectorWrapper):
        if not hasattr(VectorWrapper, name) and not name.startswith("_") and hasattr(layer, name):
            return getattr(layer, name)
        layer = layer.env
    return None


def _masked(method: Callable[..., Any], rows: list[int], n: int) -> dict[str, np.ndarray]:
    """Return the argument that restricts ``method`` to ``rows``.

    Raises:
        ConfigError: it takes none.
    """
    if "mask" in inspect.signature(method).parameters:
        return {"mask": np.isin(np.arange(n), rows)}
    if len(set(rows)) == n:
        return {}
    raise ConfigError(
        f"env_method({method.__name__!r}, indices={rows}): expected all environments, as this method of a vector "
        "wrapper holds for all of them; leave indices out"
    )


def _for_rows(value: Any, rows: list[int], n: int) -> list[Any]:
    """Return what a vector wrapper says, by row: an array ``(n, …)`` has rows, anything else is everybody's."""
    each = isinstance(value, np.ndarray) and value.shape[:1] == (n,)
    return [value[row] if each else value for row in rows]


def _with_rows(batch: Any, rows: list[int], fresh: list[Any]) -> Any:
    """Return a copy of a batch of observations with some rows replaced."""
    if isinstance(batch, dict):
        return {key: _with_rows(part, rows, [one[key] for one in fresh]) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_with_rows(part, rows, [one[i] for one in fresh]) for i, part in enumerate(batch))
    batch = np.array(batch)
    for row, one in zip(rows, fresh, strict=True):
        batch[row] = one
    return batch


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
