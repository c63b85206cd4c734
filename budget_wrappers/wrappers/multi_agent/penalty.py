"""What ``ComputePenaltyReward`` subtracts from the rewards of a team, in either of PettingZoo's APIs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.functional.costs import penalised_reward
from budget_wrappers.wrappers.multi_agent.accounts import TeamAccount
from budget_wrappers.wrappers.multi_agent.layers import Agent, find_in_team, layers
from budget_wrappers.wrappers.multiplier import validate_weight
from budget_wrappers.wrappers.reading import finite_reward, plain
from budget_wrappers.wrappers.reward import checked_floor


class Penalty:
    """The weight of compute in the rewards of a team, and the returns before and after it.

    Args:
        env: what the wrapper wraps.
        account: whose costs are charged.
        weight: reward per FLOP, >= 0.
        floor: what a penalty never pulls a reward below; None for no floor.
        shared: charge everybody for the mean cost.

    Attributes:
        raw_returns: the sum of each agent's rewards of this episode before any penalty, which the innermost one writes.

    Raises:
        ConfigError: ``weight`` is negative or NaN, or ``floor`` is NaN.
        WrapperOrderError: a layer inside charges for the same cost already.
    """

    def __init__(self, env: Any, account: TeamAccount, weight: float, floor: float | None, shared: bool) -> None:
        floor = checked_floor(floor)
        if floor is not None and not math.isfinite(floor):
            raise ConfigError(f"floor={floor!r}; expected a finite number, or None for no floor.")
        self.account, self.floor, self.shared = account, plain(floor), bool(shared)
        self.set_weight(plain(weight))
        for layer in layers(env):
            inner = vars(layer).get("penalty")
            if isinstance(inner, Penalty) and inner.account is account and inner.weight > 0:
                raise WrapperOrderError(
                    f"{layer} inside charges the rewards for the same meters already, with weight={inner.weight!r}. "
                    "Keep one, or set the inner weight to 0."
                )
        inside = find_in_team(env, "raw_returns")
        self._writes_raw = inside is None
        self.raw_returns: dict[Agent, float] = {} if inside is None else inside
        self._returns: dict[Agent, float] = {}
        self._steps = 0

    def set_weight(self, weight: float) -> None:
        """Change the reward per FLOP; raises ConfigError."""
        self.weight = validate_weight(weight)

    def start(self) -> None:
        """Begin an episode."""
        if self._writes_raw:
            self.raw_returns.clear()
        self._returns, self._steps = {}, 0

    def apply(self, rewards: Mapping[Agent, Any], costs: Mapping[Agent, int]) -> dict[Agent, float]:
        """Return the rewards of one step less what it cost, as Python floats.

        Args:
            rewards: of everybody who gets one.
            costs: FLOPs of everybody who may act at this step; shared, their sum is split evenly among all in
                ``costs``, and who is not in it pays nothing.

        Raises:
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
        """
        self._steps += 1
        mean = sum(costs.values()) / max(len(costs), 1)
        penalised = {}
        for agent, reward in rewards.items():
            raw = finite_reward(reward, self._steps)
            cost = (mean if self.shared else costs[agent]) if agent in costs else 0
            penalised[agent] = float(penalised_reward(raw, cost, self.weight, self.floor))
            if self._writes_raw:
                self.raw_returns[agent] = self.raw_returns.get(agent, 0.0) + raw
            self._returns[agent] = self._returns.get(agent, 0.0) + penalised[agent]
        return penalised

    def report(self, agent: Agent) -> dict[str, np.float64]:
        """Return the agent's return after this penalty."""
        return {"return_penalised": np.float64(self._returns.get(agent, 0.0))}


__all__ = ["Penalty"]
