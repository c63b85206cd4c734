"""Vector wrapper that keeps reward and cost apart: ``ComputeVectorReward``."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.reading import reward_space_of
from budget_wrappers.wrappers.vector.arrays import stepped
from budget_wrappers.wrappers.vector.reading import VectorCostReader, finite_rewards, refuse_second_penalty
from budget_wrappers.wrappers.vector_reward import reward_space_with_cost


class ComputeVectorReward(VectorCostReader, RecordConstructorArgs):
    """Turns the rewards ``(n,)`` into ``(n, 2)``: ``(reward, −cost)`` of each environment.

    The vector version of ``budget_wrappers.wrappers.ComputeVectorReward``, in every autoreset mode: float32, ``cost``
    in raw FLOPs of the meter's convention, around environments that hand out vectors ``(n, m)`` already ``−cost`` is
    appended. ``reward_space`` describes one environment's reward, as MO-Gymnasium's vector environments have it. This
    wrapper goes outermost.

    Example:
        >>> import gymnasium as gym
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.vector import ComputeVectorReward
        >>> envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> envs = ComputeVectorReward(envs, meter="docs.vector.vector_reward")
        >>> envs.reward_space
        Box(-inf, [inf  0.], (2,), float32)
        >>> obs, infos = envs.reset(seed=0)
        >>> get_meter("docs.vector.vector_reward").add(960, rows=2, by_row=[640, 320])
        >>> envs.step([0, 1])[1]
        array([[   1., -640.],
               [   1., -320.]], dtype=float32)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: VectorEnv, meter: str | ComputeMeter = "policy") -> None:
        """Wrap ``env``.

        Args:
            env: the vector environment.
            meter: name or object of the meter that the policy charges.

        Raises:
            ConfigError: ``meter`` is no meter.
            WrapperOrderError: a wrapper inside subtracts the same cost from the reward.
            SpaceError: ``env`` is no vector environment.
        """
        RecordConstructorArgs.__init__(self, meter=meter, _disable_deepcopy=True)
        VectorCostReader.__init__(self, env)
        self.open_account(meter)
        refuse_second_penalty(self, self.meter)
        inner: gym.spaces.Box | None = reward_space_of(env)
        self.reward_space = reward_space_with_cost(inner)
        self.reward_dim = self.reward_space.shape[0]
        self._inner_shape = (self._n,) if inner is None else (self._n, *inner.shape)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of ``options["reset_mask"]``, drop what is pending and start accounts."""
        refuse_second_penalty(self, self.meter)  # a weight inside may have been set since
        return self.reset_rows(seed, options)[:2]

    def step(self, actions: Any) -> tuple[Any, np.ndarray, Any, Any, dict[str, Any]]:
        """Step and return ``(reward, −cost)`` of each environment, ``(n, 2)``.

        Raises:
            NonFiniteError: a reward of the environments, or a part of one, is NaN or infinite.
            SpaceError: rewards are no numbers, or no vectors where ``reward_space`` inside says so.
            MeterError: an episode has ended and the meter was never used, or rows belong to no environment.
        """
        obs, rewards, terminations, truncations, infos = stepped(self.env, actions)
        cost = self.read_cost(terminations, truncations)
        parts = finite_rewards(rewards, self._inner_shape)
        return obs, np.column_stack([parts, -cost]).astype(np.float32), terminations, truncations, infos


__all__ = ["ComputeVectorReward"]
