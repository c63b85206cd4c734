"""Wrapper of AEC environments that shows agents their budgets: ``BudgetAwareObservation``."""

from typing import Any

from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from budget_wrappers.wrappers.multi_agent.layers import require_kind
from budget_wrappers.wrappers.multi_agent.shares import BudgetShares, Whose


class BudgetAwareObservation(BaseWrapper):
    """Adds the remaining shares of the agent's own limit and of the team's to its observations.

    Each is a float32 in [0, 1], as it is when the agent observes. A vector gets them as its last numbers, a Dict the
    key ``dict_key``, and anything else (an image) becomes ``Dict(observation=…, budget=…)``, so that action masks stay
    what they are. Needs a ``ComputeLimit`` inside.

    A version for parallel environments exists: ``multi_agent.parallel.BudgetAwareObservation``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.multi_agent.aec import ComputeLimit
        >>> env = pettingzoo.make("aec", "classic/tictactoe-v3")
        >>> env = ComputeLimit(env, max_flops=1_000, on_exhausted="terminate", meter="docs.turns_observation")
        >>> env = BudgetAwareObservation(env)
        >>> env.reset(seed=0)
        >>> get_meter("docs.turns_observation.player_1").add(250)
        >>> env.step(4)
        >>> [float(env.observe(agent)["budget"][0]) for agent in env.agents]
        [0.75, 1.0]

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: AECEnv, whose: Whose | None = None, dict_key: str = "budget") -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            whose: the limit of the ``"agent"`` (1 for one without), of the ``"team"``, or ``"both"`` in this order;
                None for those that are set.
            dict_key: key in observations that are no vectors.

        Raises:
            ConfigError: a parallel environment, or a limit that is not set.
            WrapperOrderError: no ``ComputeLimit`` inside.
        """
        require_kind(env, AECEnv, self)
        super().__init__(env)
        self._shares = BudgetShares(env, whose, dict_key)

    def observation_space(self, agent: Any) -> spaces.Space:
        """Return the space with the shares, the same object at each call; raises SpaceError where the key is taken."""
        return self._shares.space(agent, self.env.observation_space(agent))

    def observe(self, agent: Any) -> Any:
        """Return the observation of ``agent`` with the shares as they are now."""
        return self._shares.widen(agent, self.env.observe(agent), self.env.observation_space(agent))


__all__ = ["BudgetAwareObservation"]
