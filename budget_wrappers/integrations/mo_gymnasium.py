"""MO-Gymnasium: vectors of reward and cost under its wrappers and agents.

Its wrappers ask the innermost environment for ``reward_space``, which an ordinary environment does not have, and which
a wrapper cannot give it. ``as_mo_env`` makes an innermost environment of the whole stack::

    env = as_mo_env(ComputeVectorReward(gym.make("CartPole-v1")))
    env = LinearReward(MORecordEpisodeStatistics(env), weight=np.array([1.0, 1e-4]))

Nothing of MO-Gymnasium is imported: its agents take anything of this form.
"""

from typing import Any

import gymnasium as gym

from budget_wrappers.errors import SpaceError
from budget_wrappers.wrappers.reading import reward_space_of


class MultiObjectiveEnv(gym.Env):
    """A whole stack as an innermost environment with ``reward_space``; ``as_mo_env`` makes it.

    Attributes:
        env: the stack.
        reward_space: of its vectors.
        reward_dim: their length.
    """

    def __init__(self, env: gym.Env, reward_space: gym.spaces.Box) -> None:
        self.env, self.reward_space, self.reward_dim = env, reward_space, reward_space.shape[0]
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.metadata, self.render_mode, self.spec = env.metadata, env.render_mode, env.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the stack."""
        super().reset(seed=seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the stack; the reward is a float32 vector."""
        return self.env.step(action)

    def render(self) -> Any:
        """Render the stack."""
        return self.env.render()

    def close(self) -> None:
        """Close the stack."""
        self.env.close()


def as_mo_env(env: gym.Env) -> MultiObjectiveEnv:
    """Return ``env`` as MO-Gymnasium's wrappers and agents take it.

    Args:
        env: hands out vectors as rewards: ``ComputeVectorReward`` somewhere in it.

    Raises:
        SpaceError: it does not.
    """
    space = reward_space_of(env)
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise SpaceError(
            f"{env} has reward_space={space!r}; expected a Box of one dimension: wrap it in ComputeVectorReward first."
        )
    return MultiObjectiveEnv(env, space)


__all__ = ["MultiObjectiveEnv", "as_mo_env"]
