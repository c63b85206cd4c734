"""Wrapper of parallel environments that records what each agent's acting costs: ``RecordComputeStatistics``."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from pettingzoo import AECEnv, ParallelEnv

from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.book import EpisodeBook
from budget_wrappers.wrappers.multi_agent.parallel.reading import CostReader, Infos, Transition
from budget_wrappers.wrappers.repeats import RepeatWatch


class RecordComputeStatistics(CostReader):
    """Writes each agent's FLOPs into ``infos[agent]["cost"]``, and its account into ``["compute"]`` at its end.

    The cost is an ``np.float64``: what the agent's policy spent on its action of this step, 0.0 at reset, for agents
    that were alive before the step. The account comes when the agent's episode ends, with the keys of the wrapper for
    single environments; ``team_summary()`` has the team's totals at any time, and whose share is how large.

    A version for AEC environments exists: ``multi_agent.aec.RecordComputeStatistics``.

    Example:
        >>> from budget_wrappers.metering import get_meter
        >>> import pettingzoo
        >>> env = pettingzoo.make("parallel", "classic/rps-v2", max_cycles=2)
        >>> env = RecordComputeStatistics(env, meter="docs.team_record")
        >>> observations, infos = env.reset(seed=0)
        >>> for agent, flops in (("player_0", 640), ("player_1", 64)):
        ...     get_meter(f"docs.team_record.{agent}").add(flops)  # each policy charges what it spends
        >>> infos = env.step({"player_0": 0, "player_1": 1})[-1]
        >>> float(infos["player_0"]["cost"]), float(env.team_summary()["flops"])
        (640.0, 704.0)
        >>> infos = env.step({"player_0": 0, "player_1": 1})[-1]  # actions that no policy computed cost nothing
        >>> float(infos["player_1"]["compute"]["flops"])
        64.0

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: ParallelEnv, meter: MeterSource = "policy", key: str = "cost") -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            meter: prefix of the agents' meters, ``get_meter(f"{meter}.{agent}")``, or a mapping from agent to meter.
            key: where the cost of a step goes.

        Raises:
            ConfigError: an AEC environment, an illegal ``key``, or meters that lack an agent or name a stranger.
            InfoKeyError: a wrapper inside records already.
        """
        super().__init__(env, meter)
        self._book = EpisodeBook(env, self._costs, key)
        self.cost_key = key
        self._repeats, self._paid = RepeatWatch((ParallelEnv, AECEnv, gym.Env, VectorEnv)), False

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        observations, infos = super().reset(seed=seed, options=options)
        self._book.start()
        return observations, {**infos, **{a: self._book.write(a, infos[a], False) for a in self.env.agents}}

    def step(self, actions: dict[Any, Any]) -> Transition:
        """Step, close the accounts of the step and write what each agent's action cost.

        Raises:
            InfoKeyError: the environment has put something else under the key.
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
            MeterError: an agent's episode has ended and its meter was never used, or it was charged for a batch.
            WrapperOrderError: a wrapper outside repeats actions and hands out the last infos only.
        """
        live = list(self.env.agents)
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        paid = False
        for agent in live:
            paid = self._book.act(agent) > 0 or paid
            self._book.earn(agent, rewards.get(agent, 0.0))
        if paid != self._paid:  # most teams cost something at every step
            self._paid = bool(paid)
            self._repeats.changed(self, paid)
        written = {
            agent: self._book.write(agent, infos[agent], bool(terminations.get(agent) or truncations.get(agent)))
            for agent in dict.fromkeys([*live, *self.env.agents])  # and those that have just appeared
            if agent in infos
        }
        return observations, rewards, terminations, truncations, {**infos, **written}

    def compute_summary(self, agent: Any) -> dict[str, Any]:
        """Return the account of ``agent`` so far, as ``infos[agent]["compute"]`` holds it."""
        return self._book.summary(agent)

    def team_summary(self) -> dict[str, Any]:
        """Return the team's account so far: the same totals over all agents, and ``share_flops`` by agent."""
        return self._book.team_summary()


__all__ = ["RecordComputeStatistics"]
