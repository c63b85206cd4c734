"""Constrained RL: compute as the cost of its algorithms, in both of the forms that they know.

FSRL, TorchRL and the converters of safety-gymnasium read ``info["cost"]``, which ``RecordComputeStatistics`` writes.
OmniSafe and safety-gymnasium's own agents want ``step`` to return six values, the cost third: ``to_6tuple`` and
``from_6tuple`` go from one to the other. Nothing of those libraries is imported.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.errors import InfoKeyError, NonFiniteError, SpaceError


class SixTupleStep(gym.Wrapper, RecordConstructorArgs):
    """``step`` returns ``(obs, reward, cost, terminated, truncated, info)``; ``to_6tuple`` makes it. Outermost only."""

    def __init__(self, env: gym.Env, key: str = "cost") -> None:
        """Wrap ``env``, whose ``info`` has the cost of each step under ``key``."""
        RecordConstructorArgs.__init__(self, key=key)
        gym.Wrapper.__init__(self, env)
        self.key = key

    def step(self, action: Any) -> tuple[Any, Any, float, bool, bool, dict[str, Any]]:
        """Step, and hand out the cost as a Python float besides.

        Raises:
            InfoKeyError: the info has no cost.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.key not in info:
            raise InfoKeyError(
                f"info has no {self.key!r}, only {sorted(info)}; expected the cost of the step there: put "
                f"RecordComputeStatistics(env, key={self.key!r}) inside to_6tuple."
            )
        return obs, reward, float(info[self.key]), terminated, truncated, info


class FiveTupleStep(gym.Env):
    """An environment whose ``step`` returns six values as one of Gymnasium; ``from_6tuple`` makes it.

    Attributes:
        env: as given.
    """

    def __init__(self, env: Any, key: str = "cost") -> None:
        self.env, self.key = env, key
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.metadata, self.render_mode = getattr(env, "metadata", {}), getattr(env, "render_mode", None)
        self.spec = getattr(env, "spec", None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset; the cost is 0."""
        super().reset(seed=seed)
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, self._with_cost(info, 0.0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and put the cost into the info.

        Raises:
            SpaceError: ``step`` of the environment does not return six values.
            NonFiniteError: the cost is NaN or infinite.
            InfoKeyError: the info has another cost under the key.
        """
        returned = self.env.step(action)
        if len(returned) != 6:
            raise SpaceError(
                f"step of {self.env!r} returned {len(returned)} values; expected six, the cost third. An environment "
                "of Gymnasium needs no from_6tuple."
            )
        obs, reward, cost, terminated, truncated, info = returned
        if not math.isfinite(cost):
            raise NonFiniteError(
                f"The cost of a step is {cost!r}; expected a finite number. It comes from {self.env!r}."
            )
        return obs, float(reward), bool(terminated), bool(truncated), self._with_cost(info, float(cost))

    def _with_cost(self, info: dict[str, Any], cost: float) -> dict[str, Any]:
        if self.key in info and float(info[self.key]) != cost:
            raise InfoKeyError(
                f"info has {self.key}={info[self.key]!r} already and the cost is {cost}; expected one of them. Pass "
                "another key to from_6tuple."
            )
        return {**info, self.key: np.float64(cost)}

    def render(self) -> Any:
        """Render the environment."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def to_6tuple(env: gym.Env, key: str = "cost") -> SixTupleStep:
    """Return ``env`` with the cost of each step as the third value of ``step``, as OmniSafe's agents take it.

    Args:
        env: with ``RecordComputeStatistics`` somewhere in it, or anything else that writes ``info[key]``.
        key: where the cost is.
    """
    return SixTupleStep(env, key)


def from_6tuple(env: Any, key: str = "cost") -> FiveTupleStep:
    """Return an environment of safety-gymnasium as one of Gymnasium, the cost in ``info[key]``.

    Around it ``RecordComputeStatistics(…, key="compute_cost")`` keeps both costs apart.

    Args:
        env: whose ``step`` returns six values.
        key: where the cost goes.
    """
    return FiveTupleStep(env, key)


__all__ = ["FiveTupleStep", "SixTupleStep", "from_6tuple", "to_6tuple"]
