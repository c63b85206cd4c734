"""What every wrapper of a parallel environment that reads meters shares."""

from collections.abc import Collection
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from budget_wrappers.wrappers.multi_agent.accounts import CostView, MeterSource, TeamAccount
from budget_wrappers.wrappers.multi_agent.layers import Agent, find_in_team, require_kind
from budget_wrappers.wrappers.reading import SUMMARY_KEY

Infos = dict[Any, dict[str, Any]]
Transition = tuple[dict[Any, Any], dict[Any, Any], dict[Any, bool], dict[Any, bool], Infos]


class CostReader(BaseParallelWrapper):
    """Base of the wrappers that read what each agent spends.

    Attributes:
        team_accounts: every account of the stack up to here, for the wrappers further out.
    """

    team_accounts: tuple[TeamAccount, ...]

    def __init__(self, env: ParallelEnv, meter: MeterSource) -> None:
        require_kind(env, ParallelEnv, self)
        super().__init__(env)
        self._costs = CostView(env, meter)
        self.team_accounts = self._costs.team_accounts
        self._amends = find_in_team(env, "cost_key") is not None  # a RecordComputeStatistics inside

    @property
    def account(self) -> TeamAccount:
        """What each agent has spent in this episode."""
        return self._costs.account

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self._costs.restart()
        return observations, infos

    def report(self, agent: Agent) -> dict[str, np.float64]:
        """Return what this wrapper knows of an agent better than a recorder inside of it."""
        return {}

    def compute_summary(self, agent: Agent) -> dict[str, Any]:
        """Return the account of ``agent`` so far, as the recorder inside and this wrapper see it."""
        return {**self.env.compute_summary(agent), **self.report(agent)}

    def amend(self, infos: Infos, ended: Collection[Agent] = ()) -> Infos:
        """Return ``infos`` with our report in the recorder's accounts, and those accounts of whom we have ended."""
        if not self._amends:
            return infos
        return {
            agent: {**info, SUMMARY_KEY: self.compute_summary(agent)} if agent in ended or SUMMARY_KEY in info else info
            for agent, info in infos.items()
        }


__all__ = ["CostReader", "Infos", "Transition"]
