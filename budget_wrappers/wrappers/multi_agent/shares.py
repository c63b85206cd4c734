"""What ``BudgetAwareObservation`` adds to the observations of a team, in either of PettingZoo's APIs."""

from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces

from budget_wrappers.errors import ConfigError, SpaceError, WrapperOrderError
from budget_wrappers.wrappers.multi_agent.layers import Agent, find_in_team
from budget_wrappers.wrappers.multi_agent.limits import TeamLimits
from budget_wrappers.wrappers.observation import dict_space

Whose = Literal["agent", "team", "both"]


class BudgetShares:
    """The shares of limits that an agent sees, and the spaces that hold them.

    Args:
        env: what the wrapper wraps.
        whose: the agent's own limit, the team's, or both in this order; None for those that there are.
        dict_key: where they go in observations that are no vectors.

    Raises:
        ConfigError: ``whose`` is something else, or a limit that there is not.
        WrapperOrderError: there is no ``ComputeLimit`` inside.
    """

    def __init__(self, env: Any, whose: Whose | None, dict_key: str) -> None:
        limits = find_in_team(env, "limits")
        if not isinstance(limits, TeamLimits):
            raise WrapperOrderError(
                f"BudgetAwareObservation found no ComputeLimit inside {env}. Put it inside: "
                "BudgetAwareObservation(ComputeLimit(env, team_max_flops=…))."
            )
        own, team = any(map(limits.limited, limits.agents)), limits.limited(None)
        if whose not in (None, *get_args(Whose)):
            raise ConfigError(f"whose={whose!r}; expected one of {', '.join(get_args(Whose))}, or None.")
        if (whose in ("agent", "both") and not own) or (whose in ("team", "both") and not team):
            raise ConfigError(f"whose={whose!r}: the limit inside has max_flops {'' if own else 'not '}set and "
                              f"team_max_flops {'' if team else 'not '}set.")  # fmt: skip
        self._limits, self._key = limits, dict_key
        self._own = own if whose is None else whose != "team"
        self._team = team if whose is None else whose != "agent"
        self._spaces: dict[Agent, spaces.Space] = {}

    def shares(self, agent: Agent) -> np.ndarray:
        """Return the remaining shares, float32 in [0, 1]: the agent's own (1 without a limit), the team's."""
        asked = ([agent] if self._own else []) + ([None] if self._team else [])
        return np.array([self._limits.share(whose) for whose in asked], dtype=np.float32)

    def space(self, agent: Agent, inner: spaces.Space) -> spaces.Space:
        """Return the space of an agent's observations, the same object at each call, as PettingZoo demands.

        Raises:
            SpaceError: ``dict_key`` is taken.
        """
        if agent not in self._spaces:
            self._spaces[agent] = self._widened(inner)
        return self._spaces[agent]

    def _widened(self, inner: spaces.Space) -> spaces.Space:
        count = self._own + self._team
        if _is_vector(inner):
            low, high = (np.append(bound, np.full(count, end)) for bound, end in ((inner.low, 0.0), (inner.high, 1.0)))
            dtype = np.result_type(np.float32, *([inner.dtype] if inner.dtype.kind == "f" else []))
            return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)
        entries = inner.spaces if isinstance(inner, spaces.Dict) else {"observation": inner}
        if self._key in entries:
            raise SpaceError(f"dict_key={self._key!r} is taken in {inner}; choose another dict_key.")
        share = spaces.Box(0.0, 1.0, (count,), np.float32)
        return dict_space({**entries, self._key: share}, inner)

    def widen(self, agent: Agent, observation: Any, inner: spaces.Space) -> Any:
        """Return ``observation`` with the shares as they are now; None stays None."""
        if observation is None:
            return None
        shares = self.shares(agent)
        if _is_vector(inner):
            return np.concatenate([observation, shares], dtype=self.space(agent, inner).dtype, casting="unsafe")
        if isinstance(inner, spaces.Dict):
            return {**observation, self._key: shares}
        return {"observation": observation, self._key: shares}


def _is_vector(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


__all__ = ["BudgetShares", "Whose"]
