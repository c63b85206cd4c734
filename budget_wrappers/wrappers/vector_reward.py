"""Wrapper that keeps reward and cost apart: ``ComputeVectorReward``."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.reading import (
    CostReader,
    finite_reward,
    finite_reward_parts,
    refuse_second_penalty,
    reward_space_of,
)


class ComputeVectorReward(CostReader, RecordConstructorArgs):
    """Turns the reward into the vector ``(reward, −cost)``, as MO-Gymnasium's agents expect it.

    ``cost`` is in raw FLOPs of the meter's convention. The vector is float32 of shape ``(2,)``, described by
    ``reward_space``; around an environment that hands out vectors already, ``−cost`` is appended. (float32 holds FLOPs
    exactly up to 2^24 = 16.8 million a step and to 7 digits beyond.) Wrappers that need a number as reward go inside,
    this one outermost.

    A vector version exists: ``budget_wrappers.wrappers.vector.ComputeVectorReward``.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers import ComputeVectorReward
        >>> env = ComputeVectorReward(gym.make("CartPole-v1"), meter="docs.vector_reward")
        >>> env.reward_space
        Box(-inf, [inf  0.], (2,), float32)
        >>> obs, info = env.reset(seed=0)
        >>> get_meter("docs.vector_reward").add(640)
        >>> env.step(0)[1]
        array([   1., -640.], dtype=float32)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: gym.Env, meter: str | ComputeMeter = "policy") -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            meter: name or object of the meter that the policy charges.

        Raises:
            ConfigError: ``meter`` is no meter.
            WrapperOrderError: a wrapper inside subtracts the same cost from the reward.
        """
        RecordConstructorArgs.__init__(self, meter=meter, _disable_deepcopy=True)
        CostReader.__init__(self, env)
        self.open_account(meter)
        refuse_second_penalty(self, self.meter)
        inner: gym.spaces.Box | None = reward_space_of(env)
        self.reward_space = reward_space_with_cost(inner)
        self._extends = inner is not None
        self.reward_dim = self.reward_space.shape[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, drop what is pending on the meter and start an account."""
        refuse_second_penalty(self, self.meter)  # a weight inside may have been set since
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, np.ndarray, bool, bool, dict[str, Any]]:
        """Step and return ``(reward, −cost)``.

        Raises:
            NonFiniteError: the environment's reward, or a part of it, is NaN or infinite.
            SpaceError: it is no number, or no vector where ``reward_space`` inside says so.
            MeterError: the episode has ended and the meter was never used, or it was charged for a batch.
        """
        if self._account.over:
            self._account.begin_step()
        obs, reward, terminated, truncated, info = self.env.step(action)
        cost = self.read_cost()
        self._steps += 1
        parts = finite_reward_parts(reward, self._steps) if self._extends else [finite_reward(reward, self._steps)]
        rewards = np.array([*parts, -cost], dtype=np.float32)
        if terminated or truncated:
            self._account.require_use(self._steps)
        return obs, rewards, terminated, truncated, info


def reward_space_with_cost(inner: gym.spaces.Box | None) -> gym.spaces.Box:
    """Return the space of ``(reward, −cost)``; ``inner`` is that of the reward, ``None`` for a number."""
    low, high = ([-np.inf], [np.inf]) if inner is None else (inner.low, inner.high)
    return gym.spaces.Box(
        np.append(low, -np.inf).astype(np.float32), np.append(high, 0.0).astype(np.float32), dtype=np.float32
    )


__all__ = ["ComputeVectorReward", "reward_space_with_cost"]
