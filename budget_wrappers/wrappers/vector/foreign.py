"""Vector environments of other libraries (EnvPool and its like) as Gymnasium's kind."""

import inspect
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from budget_wrappers.errors import ConfigError, SpaceError
from budget_wrappers.wrappers.vector.modes import DISABLED, NEXT_STEP, RESET_MASK, SAME_STEP


def as_vector_env(env: Any, autoreset_mode: Any = NEXT_STEP) -> VectorEnv:
    """Return ``env`` as a ``gymnasium.vector.VectorEnv``, for the wrappers here; one that is such stays itself.

    Args:
        env: has ``num_envs``, or ``spec.config.num_envs`` as EnvPool's have; ``step(actions)`` returns observations,
            rewards, terminations, truncations and a dictionary of arrays, a row an environment, always in the same
            order; ``reset()`` observations and such a dictionary. Without ``single_observation_space`` and
            ``single_action_space``, its ``observation_space`` and ``action_space`` are those of one environment.
        autoreset_mode: a ``gymnasium.vector.AutoresetMode`` or its value: ``"NextStep"`` (EnvPool's), ``"SameStep"``,
            ``"Disabled"``.

    Raises:
        ConfigError: an unknown mode, rows that come in the order in which environments are ready, or a ``VecEnv`` of
            Stable-Baselines3, whose models take nothing else.
        SpaceError: ``env`` has not that shape.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.wrappers.vector import as_vector_env
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> as_vector_env(envs) is envs
        True
    """
    return env if isinstance(env, VectorEnv) else ForeignVectorEnv(env, autoreset_mode)


class ForeignVectorEnv(VectorEnv):
    """What ``as_vector_env`` returns.

    Attributes:
        foreign: the environment inside.
    """

    foreign: Any = None  # older Gymnasiums close what was refused, too

    def __init__(self, env: Any, autoreset_mode: Any = NEXT_STEP) -> None:
        mode = getattr(autoreset_mode, "value", autoreset_mode)
        if mode not in (NEXT_STEP, SAME_STEP, DISABLED):
            raise ConfigError(
                f"autoreset_mode={autoreset_mode!r}; expected {NEXT_STEP!r}, {SAME_STEP!r} or {DISABLED!r}."
            )
        if any(base.__module__.startswith("stable_baselines3.") for base in type(env).__mro__):
            raise ConfigError(
                f"as_vector_env got a {type(env).__name__} of Stable-Baselines3, whose models need it to stay one; "
                "expected budget_wrappers.integrations.sb3_vec.wrapped(venv, RecordComputeStatistics) around it."
            )
        config = getattr(getattr(env, "spec", None), "config", None)
        num_envs = getattr(env, "num_envs", getattr(config, "num_envs", None))
        if num_envs is None or not (callable(getattr(env, "step", None)) and callable(getattr(env, "reset", None))):
            raise SpaceError(
                f"as_vector_env got a {type(env).__name__}; expected an environment with num_envs (or "
                "spec.config.num_envs), step(actions) and reset()."
            )
        batch = getattr(config, "batch_size", 0)
        if batch not in (0, None, num_envs):
            raise ConfigError(
                f"{type(env).__name__} hands out {batch} of {num_envs} environments a step, whichever are ready; a "
                "cost belongs to the row that was acted on. Make it with batch_size=num_envs."
            )
        self.foreign, self.num_envs = env, int(num_envs)
        known = getattr(gym.vector, "AutoresetMode", None)  # not in Gymnasium 1.0
        self.metadata = {"autoreset_mode": mode if known is None else known(mode)}
        self.single_observation_space = getattr(env, "single_observation_space", None) or env.observation_space
        self.single_action_space = getattr(env, "single_action_space", None) or env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        parameters = inspect.signature(env.reset).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self._takes = {name for name in ("seed", "options") if anything or name in parameters}
        self._order, self._warned = np.arange(self.num_envs), False

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; a seed that the environment does not take warns once.

        Raises:
            ConfigError: ``options["reset_mask"]`` for an environment that takes no options.
            SpaceError: it returns something else than observations and infos.
        """
        if options is not None and RESET_MASK in options and "options" not in self._takes:
            raise ConfigError(
                f"options[{RESET_MASK!r}] for {type(self.foreign).__name__}, whose reset takes no options: all of its "
                "environments would be reset. Use a mode in which it resets them itself."
            )
        if seed is not None and "seed" not in self._takes and not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(self.foreign).__name__}.reset takes no seed, so seed={seed!r} changes nothing; seed it where "
                "it is made.",
                stacklevel=2,
            )
        given = {"seed": seed, "options": options}
        obs, infos = self._unpack(self.foreign.reset(**{name: given[name] for name in self._takes}), 2, "reset")
        return obs, self._laid_out(infos)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step.

        Raises:
            SpaceError: it does not return five things, or rows in another order.
        """
        obs, rewards, terminations, truncations, infos = self._unpack(self.foreign.step(actions), 5, "step")
        flags = (np.asarray(flag, dtype=bool) for flag in (terminations, truncations))
        return obs, np.asarray(rewards), *flags, self._laid_out(infos)

    def _unpack(self, result: Any, length: int, name: str) -> tuple[Any, ...]:
        if not isinstance(result, tuple) or len(result) != length or not isinstance(result[-1], dict):
            raise SpaceError(
                f"{type(self.foreign).__name__}.{name} returned {type(result).__name__} of length "
                f"{len(result) if hasattr(result, '__len__') else 0}; expected {length} as Gymnasium has it, the last "
                "a dictionary of arrays. Make the environment with its Gymnasium interface."
            )
        return result

    def _laid_out(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Return ``infos`` with Gymnasium's masks: every environment reports every key."""
        order = infos.get("env_id", self._order)
        if not np.array_equal(order, self._order):
            raise SpaceError(f"Rows came in the order {order}; expected that of the actions, 0 to {self.num_envs - 1}.")
        return with_masks(infos, self.num_envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment inside."""
        if callable(close := getattr(self.foreign, "close", None)):
            close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.foreign).__name__}, num_envs={self.num_envs})"


def with_masks(infos: dict[str, Any], n: int) -> dict[str, Any]:
    """Return ``infos`` with a mask beside each array of ``n`` rows and each dictionary of such; those there stay."""
    laid_out: dict[str, Any] = {}
    for key, value in infos.items():
        laid_out[key] = with_masks(value, n) if isinstance(value, dict) else value
        rows = isinstance(value, dict) or (isinstance(value, np.ndarray) and value.shape[:1] == (n,))
        if rows and not key.startswith("_"):
            laid_out.setdefault(f"_{key}", np.ones(n, bool))
    return laid_out


__all__ = ["ForeignVectorEnv", "as_vector_env"]
