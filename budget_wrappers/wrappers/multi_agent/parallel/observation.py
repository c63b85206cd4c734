"""Wrapper of parallel environments that shows agents their budgets: ``BudgetAwareObservation``."""

from typing import Any

from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from budget_wrappers.wrappers.multi_agent.layers import require_kind
from budget_wrappers.wrappers.multi_agent.parallel.reading import Infos, Transition
from budget_wrappers.wrappers.multi_agent.shares import BudgetShares, Whose


class BudgetAwareObservation(BaseParallelWrapper):
    """Adds the remaining shares of the agent's own limit and of the team's to its observations.

    Each is a float32 in [0, 1]. A vector gets them as its last numbers, a Dict the key ``dict_key``, and anything else
    (an image) becomes ``Dict(observation=…, budget=…)``, so that action masks stay what they are. Needs a
    ``ComputeLimit`` inside.

    A version for AEC environments exists: ``multi_agent.aec.BudgetAwareObservation``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.metering import get_meter
        >>> from budget_wrappers.wrappers.multi_agent.parallel import ComputeLimit
        >>> env = pettingzoo.make("parallel", "classic/rps-v2")
        >>> env = ComputeLimit(env, team_max_flops=1_000, on_exhausted="terminate", meter="docs.team_observation")
        >>> env = BudgetAwareObservation(env)
        >>> observations, infos = env.reset(seed=0)
        >>> get_meter("docs.team_observation.player_0").add(250)
        >>> env.step({"player_0": 0, "player_1": 0})[0]["player_1"]["budget"]
        array([0.75], dtype=float32)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: ParallelEnv, whose: Whose | None = None, dict_key: str = "budget") -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            whose: the limit of the ``"agent"`` (1 for one without), of the ``"team"``, or ``"both"`` in this order;
                None for those that are set.
            dict_key: key in observations that are no vectors.

        Raises:
            ConfigError: an AEC environment, or a limit that is not set.
            WrapperOrderError: no ``ComputeLimit`` inside.
        """
        require_kind(env, ParallelEnv, self)
        super().__init__(env)
        self._shares = BudgetShares(env, whose, dict_key)

    def observation_space(self, agent: Any) -> spaces.Space:
        """Return the space with the shares, the same object at each call; raises SpaceError where the key is taken."""
        return self._shares.space(agent, self.env.observation_space(agent))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset the environment and add the shares."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._widened(observations), infos

    def step(self, actions: dict[Any, Any]) -> Transition:
        """Step, and add the shares as they are after this step."""
        observations, *rest = self.env.step(actions)
        return self._widened(observations), *rest

    def _widened(self, observations: dict[Any, Any]) -> dict[Any, Any]:
        known = self.env.possible_agents  # an environment may add entries that belong to no agent
        return {
            agent: self._shares.widen(agent, observation, self.env.observation_space(agent))
            if agent in known
            else observation
            for agent, observation in observations.items()
        }


__all__ = ["BudgetAwareObservation"]
