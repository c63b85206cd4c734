"""Stepping environments: one or many, whatever their autoreset mode, as rows of transitions.

The loop sees the same thing from a single environment and from a vector one: observations to act on, and the
transitions that really happened. Rows in which a vector environment only resets (its NEXT_STEP mode) are no
transitions and are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.functional.finite import LARGEST, storable
from budget_wrappers.wrappers.vector.infos import reported
from budget_wrappers.wrappers.vector.modes import DISABLED, NEXT_STEP, SAME_STEP, autoreset_mode


@dataclass(slots=True)
class Step:
    """``n`` transitions of one step.

    Attributes:
        observation, next_observation: ``(n, *O)``.
        action: ``(n, A)`` or ``(n,)``, as the agent chose it.
        reward, terminated, truncated: ``(n,)``.
        streams: which environment each row belongs to.
        infos: one info dictionary per row.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    streams: tuple[int, ...]
    infos: list[dict[str, Any]]

    @classmethod
    def ended(cls, terminated: np.ndarray, truncated: np.ndarray) -> "Step":
        """Return what methods are told of a step that somebody else has stored: one row, of environment 0."""
        empty = np.empty(0)
        return cls(empty, empty, empty, empty, terminated, truncated, (0,), [{}])


def require_finite(name: str, value: Any, step: int) -> None:
    """Raise ``NonFiniteError`` if ``value`` holds a number that is not finite in float32, in which replays store it."""
    array = np.asarray(value)
    if not storable(array):
        beyond = array.dtype.kind == "f" and bool(np.isfinite(array).all())
        raise NonFiniteError(
            f"{name} at environment step {step} is {value!r}: expected finite numbers"
            + (f" in float32, the precision in which a replay stores them (at most {LARGEST:.3g})" if beyond else "")
            + "; mend the environment or wrap it"
            + (", for example with gymnasium.wrappers.RescaleObservation or TransformReward" if beyond else "")
            + "; the transition was not stored"
        )


def require_shape(observation: np.ndarray, shape: tuple[int, ...], step: int) -> None:
    """Raise ``SpaceError`` unless ``observation`` has the shape of those before it."""
    if observation.shape != shape:
        raise SpaceError(
            f"the observation at environment step {step} has the shape {observation.shape}: expected {shape}, as its "
            "reset returned; mend the environment, the transition was not stored"
        )


def number(reward: Any, step: int) -> float:
    """Return ``reward`` as a float.

    Raises:
        SpaceError: it is no single number.
        NonFiniteError: it is NaN or infinite.
    """
    try:
        value = float(reward)
    except (TypeError, ValueError) as error:
        raise SpaceError(
            f"the reward at environment step {step} is {reward!r}: expected one number; mend the environment or wrap "
            "it, the transition was not stored"
        ) from error
    require_finite("the reward", value, step)
    return value


class SingleCollector:
    """Steps one environment; the loop resets it, so that it can seed each episode."""

    num_envs = 1

    def __init__(self, env: gym.Env, to_array: Callable[[Any], np.ndarray] = np.asarray) -> None:
        self.env, self.to_array = env, to_array
        self.observation = np.empty(0)
        self.steps = 0

    def reset(self, seed: int) -> None:
        """Start a new episode."""
        observation = self.to_array(self.env.reset(seed=seed)[0])
        require_finite("the observation of reset", observation, self.steps)
        self.observation = observation[None]

    def step(self, action: np.ndarray, env_action: np.ndarray) -> Step:
        """Step with ``env_action`` ``(1, …)``; ``action`` is what will be stored."""
        self.steps += 1
        observation, reward, terminated, truncated, info = self.env.step(env_action[0])
        next_observation = self.to_array(observation)
        require_shape(next_observation, self.observation.shape[1:], self.steps)
        require_finite("the observation", next_observation, self.steps)
        reward = number(reward, self.steps)
        before, self.observation = self.observation, next_observation[None]
        return Step(
            before,
            action,
            np.array([reward]),
            self.observation,
            np.array([terminated]),
            np.array([truncated]),
            (0,),
            [info],
        )


class VectorCollector:
    """Steps a Gymnasium vector environment in its own autoreset mode."""

    def __init__(self, env: VectorEnv, to_array: Callable[[Any], np.ndarray] = np.asarray) -> None:
        self.env, self.num_envs, self.to_array = env, env.num_envs, to_array
        self.mode = autoreset_mode(env)
        self.observation = np.empty(0)
        self.steps = 0
        self._resetting = np.zeros(self.num_envs, dtype=bool)

    def reset(self, seed: int) -> None:
        """Start new episodes everywhere."""
        # A copy: vector environments hand out the same array again and again unless told otherwise.
        self.observation = np.array(self.to_array(self.env.reset(seed=seed)[0]))
        require_finite("the observation of reset", self.observation, self.steps)
        self._resetting[:] = False

    def step(self, action: np.ndarray, env_action: np.ndarray) -> Step:
        """Step with ``env_action`` ``(n, …)``; ``action`` is what will be stored."""
        self.steps += 1
        observation, reward, terminated, truncated, infos = self.env.step(env_action)
        next_observation = np.array(self.to_array(observation))
        require_finite("the observation", next_observation, self.steps)
        require_finite("the reward", reward, self.steps)
        over = np.logical_or(terminated, truncated)
        rows = np.flatnonzero(~self._resetting)
        after = next_observation
        if self.mode == SAME_STEP and over.any():
            after = next_observation.copy()
            for row in np.flatnonzero(over):
                after[row] = self.to_array(infos["final_obs"][row])
            require_finite("the last observation of an episode", after, self.steps)
        elif self.mode == DISABLED and over.any():
            fresh = self.to_array(self.env.reset(options={"reset_mask": over.copy()})[0])
            require_finite("the observation of reset", fresh[over], self.steps)
            next_observation = np.where(over.reshape(-1, *[1] * (after.ndim - 1)), fresh, after)
        if self.mode == NEXT_STEP:
            self._resetting = over
        before, self.observation = self.observation, next_observation
        return Step(
            before[rows],
            action[rows],
            np.asarray(reward)[rows],
            after[rows],
            terminated[rows],
            truncated[rows],
            tuple(rows.tolist()),
            [self._info_of(infos, row) for row in rows],
        )

    def _info_of(self, infos: dict[str, Any], row: int) -> dict[str, Any]:
        """Return the entries of ``infos`` that environment ``row`` reported."""
        source = infos
        if "final_info" in infos and infos.get("_final_info", np.zeros(self.num_envs, bool))[row]:
            source = infos["final_info"]
        return reported(source, row)


def collector_of(
    env: gym.Env | VectorEnv, to_array: Callable[[Any], np.ndarray] = np.asarray
) -> SingleCollector | VectorCollector:
    """Return the collector for ``env``, whose observations ``to_array`` turns into what the networks see."""
    return VectorCollector(env, to_array) if isinstance(env, VectorEnv) else SingleCollector(env, to_array)


class RunningEpisodes:
    """Return and length of the episode that runs in each of ``num_envs`` environments."""

    def __init__(self, num_envs: int) -> None:
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)

    def finished_by(self, step: Step) -> list[dict[str, Any]]:
        """Return return, length and the wrappers' report of each episode that ``step`` ended."""
        finished = []
        for row, stream in enumerate(step.streams):
            self._returns[stream] += step.reward[row]
            self._lengths[stream] += 1
            if step.terminated[row] or step.truncated[row]:
                episode = {"return": float(self._returns[stream]), "length": int(self._lengths[stream])}
                if "compute" in step.infos[row]:
                    episode["compute"] = step.infos[row]["compute"]
                finished.append(episode)
                self._returns[stream], self._lengths[stream] = 0.0, 0
        return finished

    def restart(self) -> None:
        """Forget unfinished episodes: every environment is reset."""
        self._returns[:], self._lengths[:] = 0.0, 0
