"""Wrapper of parallel environments that makes compute cost reward: ``ComputePenaltyReward``."""

from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.parallel.reading import CostReader, Infos, Transition
from budget_wrappers.wrappers.multi_agent.penalty import Penalty


class ComputePenaltyReward(CostReader):
    """Subtracts from each agent's reward what its action cost: ``reward − weight · cost``.

    ``cost`` is in raw FLOPs, so ``weight`` is reward per FLOP. With ``shared=True`` every live agent pays for the mean
    cost of those that acted, which suits teams with one common reward. The raw returns are kept, and reported beside
    the penalised ones by ``RecordComputeStatistics``, inside or outside of this wrapper.

    A version for AEC environments exists: ``multi_agent.aec.ComputePenaltyReward``.

    Example:
        >>> from budget_wrappers.metering import get_meter
        >>> import pettingzoo
        >>> env = pettingzoo.make("parallel", "classic/rps-v2")
        >>> env = ComputePenaltyReward(env, weight=0.001, meter="docs.team_penalty")
        >>> observations, infos = env.reset(seed=0)
        >>> get_meter("docs.team_penalty.player_0").add(250)
        >>> env.step({"player_0": 1, "player_1": 0})[1]  # paper beats rock
        {'player_0': 0.75, 'player_1': -1.0}

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: ParallelEnv,
        weight: float,
        floor: float | None = None,
        meter: MeterSource = "policy",
        shared: bool = False,
    ) -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            weight: reward per FLOP, >= 0.
            floor: what a penalty never pulls a reward below; None for no floor.
            meter: prefix of the agents' meters, or a mapping from agent to meter.
            shared: charge every live agent for the team's mean cost instead of its own.

        Raises:
            ConfigError: ``weight`` is negative or NaN, ``floor`` is NaN, or see ``RecordComputeStatistics``.
            WrapperOrderError: a layer inside charges for the same cost already.
        """
        super().__init__(env, meter)
        self.penalty = Penalty(env, self.account, weight, floor, shared)
        self.raw_returns = self.penalty.raw_returns

    def set_weight(self, weight: float) -> None:
        """Change the reward per FLOP from the next step on; raises ConfigError."""
        self.penalty.set_weight(weight)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        observations, infos = super().reset(seed=seed, options=options)
        self.penalty.start()
        return observations, infos

    def step(self, actions: dict[Any, Any]) -> Transition:
        """Step, close the accounts of the step and subtract its costs.

        Raises:
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
            MeterError: a meter was charged for a batch.
        """
        live = list(self.env.agents)
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        costs = {agent: self._costs.read(agent) for agent in live}
        penalised = self.penalty.apply({agent: rewards[agent] for agent in live if agent in rewards}, costs)
        return observations, {**rewards, **penalised}, terminations, truncations, self.amend(infos)

    def report(self, agent: Any) -> dict[str, np.float64]:
        """Return the agent's return after this penalty."""
        return self.penalty.report(agent)


__all__ = ["ComputePenaltyReward"]
