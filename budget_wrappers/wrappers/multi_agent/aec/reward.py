"""Wrapper of AEC environments that makes compute cost reward: ``ComputePenaltyReward``."""

from typing import Any

import numpy as np
from pettingzoo import AECEnv

from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.aec.reading import CostReader
from budget_wrappers.wrappers.multi_agent.penalty import Penalty


class ComputePenaltyReward(CostReader):
    """Subtracts from each agent's reward what its action cost: ``reward − weight · cost``.

    Whoever acts pays at that step, in ``rewards`` and in what ``last()`` returns at its next turn. With ``shared=True``
    all agents in play pay equal parts of it, which sums up to the team's mean over a round. There is no floor, as what
    an action earns comes at others' turns. The raw returns are kept, and reported beside the penalised ones by
    ``RecordComputeStatistics``, inside or outside of this wrapper.

    A version for parallel environments exists: ``multi_agent.parallel.ComputePenaltyReward``.

    Example:
        >>> from budget_wrappers.metering import get_meter
        >>> import pettingzoo
        >>> env = pettingzoo.make("aec", "classic/rps-v2")
        >>> env = ComputePenaltyReward(env, weight=0.001, meter="docs.turns_penalty")
        >>> env.reset(seed=0)
        >>> get_meter("docs.turns_penalty.player_0").add(250)
        >>> for action in (1, 0):  # paper beats rock, once both have moved
        ...     env.step(action)
        >>> env.last()[1]
        0.75

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: AECEnv,
        weight: float,
        meter: MeterSource = "policy",
        shared: bool = False,
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            weight: reward per FLOP, >= 0.
            meter: prefix of the agents' meters, or a mapping from agent to meter.
            shared: split what an action costs among all agents in play.

        Raises:
            ConfigError: ``weight`` is negative or NaN, or see ``RecordComputeStatistics``.
            WrapperOrderError: a layer inside charges for the same cost already.
        """
        super().__init__(env, meter)
        self.penalty = Penalty(env, self.account, weight, None, shared)
        self.raw_returns = self.penalty.raw_returns

    def set_weight(self, weight: float) -> None:
        """Change the reward per FLOP from the next step on; raises ConfigError."""
        self.penalty.set_weight(weight)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        super().reset(seed=seed, options=options)
        self.penalty.start()
        self.rewards = {agent: float(reward) for agent, reward in self.env.rewards.items()}
        # Our own: last() of every wrapper further out returns these and not the inner ones.
        self._cumulative_rewards = dict.fromkeys(self.rewards, 0.0)
        self.amend()

    def step(self, action: Any) -> None:
        """Step, close the account of whoever acted and subtract its cost.

        Raises:
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
            MeterError: a meter was charged for a batch.
        """
        in_play = [a for a in self.env.agents if not (self.env.terminations[a] or self.env.truncations[a])]
        agent = self.act(action)
        costs = dict.fromkeys(in_play, 0)
        if agent is not None:
            costs[agent] = self._costs.read(agent)
            self._cumulative_rewards[agent] = 0.0  # what it was told before its turn
        self.rewards = self.penalty.apply(self.env.rewards, costs)
        self._cumulative_rewards = {
            other: self._cumulative_rewards.get(other, 0.0) + reward for other, reward in self.rewards.items()
        }
        self.amend()

    def report(self, agent: Any) -> dict[str, np.float64]:
        """Return the agent's return after this penalty."""
        return self.penalty.report(agent)


__all__ = ["ComputePenaltyReward"]
