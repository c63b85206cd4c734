"""What ``RecordComputeStatistics`` keeps of an episode of a team, whichever of PettingZoo's APIs tells it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from budget_wrappers.errors import ConfigError, InfoKeyError
from budget_wrappers.wrappers.multi_agent.accounts import CostView
from budget_wrappers.wrappers.multi_agent.layers import Agent, find_in_team
from budget_wrappers.wrappers.reading import SUMMARY_KEY, finite_reward

NOTHING = np.float64(0)


class EpisodeBook:
    """Costs, steps and returns of each agent of the running episode.

    Args:
        env: what the recorder wraps.
        costs: what it reads.
        key: where the cost of a step goes in an agent's ``info``.

    Raises:
        ConfigError: ``key`` is ``"compute"`` or no text.
        InfoKeyError: a wrapper inside records already.
    """

    def __init__(self, env: Any, costs: CostView, key: str) -> None:
        if not isinstance(key, str) or key in ("", SUMMARY_KEY):
            raise ConfigError(f"key={key!r}; expected a text other than {SUMMARY_KEY!r}, the episode's account.")
        if find_in_team(env, "cost_key") is not None:
            raise InfoKeyError(
                f"{env} writes {SUMMARY_KEY!r} into infos already. One RecordComputeStatistics is enough."
            )
        self._costs, self._key = costs, key
        self._raw = find_in_team(env, "raw_returns")
        self._limit, self._team_limit = find_in_team(env, "limit_report"), find_in_team(env, "team_report")
        self._options = find_in_team(env, "option_report")
        self.start()

    def start(self) -> None:
        """Begin an episode."""
        self._latest: dict[Agent, np.float64] = {}
        self._steps: dict[Agent, int] = {}
        self._returns: dict[Agent, float] = {}

    def act(self, agent: Agent) -> np.float64:
        """Count an action of ``agent`` and return what it cost."""
        self._latest[agent] = cost = np.float64(self._costs.read(agent))
        self._steps[agent] = self._steps.get(agent, 0) + 1
        return cost

    def earn(self, agent: Agent, reward: Any) -> None:
        """Add a reward; raises NonFiniteError and SpaceError."""
        self._returns[agent] = self._returns.get(agent, 0.0) + finite_reward(reward, self._steps.get(agent, 0))

    def write(self, agent: Agent, info: dict[str, Any], ended: bool) -> dict[str, Any]:
        """Return a copy of ``info`` with what the latest action of ``agent`` cost, and its account once it has ended.

        Raises:
            InfoKeyError: the environment has put something else under our keys.
            MeterError: the agent has acted, its episode has ended and its meter was never used.
        """
        if self._key in info or (ended and SUMMARY_KEY in info):
            raise InfoKeyError(
                f"infos[{agent!r}] has {sorted(info)} and {self._key!r} and {SUMMARY_KEY!r} are ours. Choose another "
                "place for the cost, RecordComputeStatistics(env, key='compute_cost')."
            )
        written = {**info, self._key: self._latest.get(agent, NOTHING)}
        if ended:
            if agent in self._steps:
                self._costs.account.of(agent).require_use()
            written[SUMMARY_KEY] = self.summary(agent)
        return written

    def summary(self, agent: Agent) -> dict[str, Any]:
        """Return the account of one agent so far, with the keys of the wrapper for single environments."""
        account, steps = self._costs.account.of(agent), self._steps.get(agent, 0)
        if self._options is not None:
            flops_by_name, steps_by_name = self._options(agent, account.total)
        else:
            flops_by_name, steps_by_name = account.by_name()
        total, earned = account.total, self._returns.get(agent, 0.0)
        return {
            **_totals(total, steps, earned if self._raw is None else self._raw.get(agent, 0.0), earned),
            "share_flops": {name: np.float64(flops / max(total, 1)) for name, flops in flops_by_name.items()},
            "share_steps": {name: np.float64(count / max(steps, 1)) for name, count in steps_by_name.items()},
            **({} if self._limit is None else self._limit(agent)),
        }

    def team_summary(self) -> dict[str, Any]:
        """Return the account of the whole team so far; a step is one action of one agent."""
        total, earned = self._costs.account.total(), sum(self._returns.values())
        agents: Iterable[Agent] = self._costs.account.accounts
        raw = earned if self._raw is None else sum(self._raw.values())
        return {
            **_totals(total, sum(self._steps.values()), raw, earned),
            "share_flops": {a: np.float64(self._costs.account.total(a) / max(total, 1)) for a in agents},
            **({} if self._team_limit is None else self._team_limit()),
        }


def _totals(flops: int, steps: int, raw: float, penalised: float) -> dict[str, np.float64]:
    return {
        "flops": np.float64(flops),
        "flops_per_step": np.float64(flops / max(steps, 1)),
        "steps": np.float64(steps),
        "return_raw": np.float64(raw),
        "return_penalised": np.float64(penalised),
    }


__all__ = ["EpisodeBook"]
