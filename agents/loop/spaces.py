"""Spaces as plain data, for checkpoints."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from budget_wrappers.errors import CheckpointError


def describe_space(space: gym.Space) -> dict[str, Any]:
    """Return ``space`` as JSON-able data; equal data means that an agent cannot tell the spaces apart."""
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": bounds(space.low),
            "high": bounds(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: describe_space(part) for key, part in space.spaces.items()}}
    return {"type": type(space).__name__, "repr": repr(space)}


def bounds(values: np.ndarray) -> float | list:
    """Return one number where all bounds are equal, which they are in images."""
    flat = values.reshape(-1)
    return float(flat[0]) if flat.size and (flat == flat[0]).all() else values.tolist()


def space_of(description: dict[str, Any], path: str | Path) -> gym.Space:
    """Return the space that ``describe_space`` described.

    Raises:
        CheckpointError: a kind of space that is stored by its text only, or data that describe no space.
    """
    try:
        return _space_of(description, path)
    except (AssertionError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{path} describes the space {description!r} ({error!r}): expected what `describe_space` returned; take a "
            "file that `save` wrote"
        ) from error


def _space_of(description: dict[str, Any], path: str | Path) -> gym.Space:
    kind = description["type"]
    if kind == "Box":
        dtype, shape = np.dtype(description["dtype"]), tuple(description["shape"])
        low, high = (np.broadcast_to(np.asarray(description[end], dtype), shape) for end in ("low", "high"))
        return spaces.Box(low, high, shape, dtype)
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "Dict":
        return spaces.Dict({key: _space_of(part, path) for key, part in description["spaces"].items()})
    raise CheckpointError(
        f"{path} is for the space {description.get('repr', kind)}: expected Box, Discrete or Dict to load without an "
        "environment; pass env=…"
    )


class NoEnvironment(gym.Env):
    """Stands in where an agent is loaded to predict only: it has spaces and cannot be stepped."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Refuse.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError("the agent was loaded with env=None: expected an environment to train in; call set_env")

    def step(self, action: Any) -> Any:
        """Refuse.

        Raises:
            CheckpointError: always.
        """
        return self.reset()
