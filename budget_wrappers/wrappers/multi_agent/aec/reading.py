"""What every wrapper of an AEC environment that reads meters shares.

Only the agent whose turn it was is read after a step; what others have pending stays theirs until their own.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import BaseWrapper

from budget_wrappers.wrappers.multi_agent.accounts import CostView, MeterSource, TeamAccount
from budget_wrappers.wrappers.multi_agent.layers import Agent, find_in_team, require_kind
from budget_wrappers.wrappers.reading import SUMMARY_KEY


class CostReader(BaseWrapper):
    """Base of the wrappers that read what each agent spends.

    Attributes:
        team_accounts: every account of the stack up to here, for the wrappers further out.
    """

    team_accounts: tuple[TeamAccount, ...]

    def __init__(self, env: AECEnv, meter: MeterSource) -> None:
        require_kind(env, AECEnv, self)
        super().__init__(env)
        self._costs = CostView(env, meter)
        self.team_accounts = self._costs.team_accounts
        self._amends = find_in_team(env, "cost_key") is not None  # a RecordComputeStatistics inside

    @property
    def account(self) -> TeamAccount:
        """What each agent has spent in this episode."""
        return self._costs.account

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        self.env.reset(seed=seed, options=options)
        self._costs.restart()

    def act(self, action: Any) -> Agent | None:
        """Step the environment and return who has acted, None for an agent that had ended before."""
        agent = self.env.agent_selection
        dead = has_ended(self.env, agent)
        self.env.step(action)
        if dead:
            self._costs.drop(agent)
        return None if dead else agent

    def report(self, agent: Agent) -> dict[str, np.float64]:
        """Return what this wrapper knows of an agent better than a recorder inside of it."""
        return {}

    def compute_summary(self, agent: Agent) -> dict[str, Any]:
        """Return the account of ``agent`` so far, as the recorder inside and this wrapper see it."""
        return {**self.env.compute_summary(agent), **self.report(agent)}

    def amend(self, ended: Collection[Agent] = ()) -> None:
        """Put our report into the recorder's accounts, and those accounts into the infos of whom we have ended."""
        if self._amends:
            self.infos = {
                agent: {**info, SUMMARY_KEY: self.compute_summary(agent)}
                if agent in ended or SUMMARY_KEY in info
                else info
                for agent, info in self.env.infos.items()
            }


def has_ended(env: Any, agent: Agent) -> bool:
    """Return whether the episode of ``agent`` is over, so that its only step is ``None``."""
    return bool(env.terminations[agent] or env.truncations[agent])


__all__ = ["CostReader", "has_ended"]
