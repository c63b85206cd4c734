"""Between an environment's observations and actions and those of networks and replays."""

from typing import Any

import numpy as np
from gymnasium import spaces

from agents.loop.interface import joined
from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.metering import ComputeMeter


class Conversion:
    """What an agent does with the spaces of its environment; base of ``OffPolicyAgent``."""

    discrete: bool
    observation_space: Any
    action_space: Any
    rng: np.random.Generator
    meter: ComputeMeter

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation as the networks see it: a dictionary's entries are joined, in its order."""
        if isinstance(self.observation_space, spaces.Dict):
            return (sum(part.shape[0] for part in self.observation_space.values()),)
        return self.observation_space.shape

    def to_array(self, observation: Any) -> np.ndarray:
        """Return a float32 copy of ``observation``, one or a batch, as the networks see it.

        Raises:
            SpaceError: a dictionary that lacks an entry of the space, or a value that is not an array of numbers.
        """
        if isinstance(self.observation_space, spaces.Dict):
            return joined(observation, list(self.observation_space))
        try:
            return np.array(observation, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise SpaceError(
                f"an observation {observation!r} ({error}): expected numbers of shape {self.observation_shape}; pass "
                "what env.reset and env.step return"
            ) from error

    def observation_rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Return ``observation`` as rows ``(n, *O)``, and whether it was a batch.

        Raises:
            SpaceError: a shape other than the space's.
            NonFiniteError: NaN or infinity.
        """
        array = self.to_array(observation)
        shape = self.observation_shape
        batched = array.ndim == len(shape) + 1
        if array.shape[-len(shape) :] != shape or array.ndim > len(shape) + 1:
            raise SpaceError(
                f"an observation of shape {array.shape}: expected {shape} or (n, {', '.join(map(str, shape))}); "
                "pass what env.reset and env.step return"
            )
        if not np.isfinite(array).all():
            raise NonFiniteError(f"the observation {array!r} is not finite: expected finite numbers; mend its source")
        return (array if batched else array[None]), batched

    def random_action(self, rows: int) -> np.ndarray:
        """Return uniformly random actions as the replay stores them."""
        self.meter.acted_for_free()
        if self.discrete:
            return self.rng.integers(self.action_space.n, size=rows)
        return self.rng.uniform(-1.0, 1.0, (rows, *self.action_space.shape)).astype(np.float32)

    def to_env_action(self, action: np.ndarray) -> np.ndarray:
        """Return the environment's actions for actions as the replay stores them ([-1, 1] or indices)."""
        if self.discrete:
            return action + self.action_space.start
        low, high = self.action_space.low, self.action_space.high
        return np.clip(low + (action + 1.0) * 0.5 * (high - low), low, high).astype(self.action_space.dtype)

    def from_env_action(self, action: np.ndarray) -> np.ndarray:
        """Return the inverse of ``to_env_action``."""
        if self.discrete:
            return np.asarray(action, dtype=np.int64) - int(self.action_space.start)
        low, high = self.action_space.low, self.action_space.high
        return np.clip(2.0 * (action - low) / (high - low) - 1.0, -1.0, 1.0).astype(np.float32)
