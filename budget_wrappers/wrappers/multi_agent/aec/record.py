"""Wrapper of AEC environments that records what each agent's acting costs: ``RecordComputeStatistics``."""

from typing import Any

from pettingzoo import AECEnv

from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.aec.reading import CostReader, has_ended
from budget_wrappers.wrappers.multi_agent.book import EpisodeBook


class RecordComputeStatistics(CostReader):
    """Writes each agent's FLOPs into ``infos[agent]["cost"]``, and its account into ``["compute"]`` at its end.

    The cost is an ``np.float64``: what the agent's policy spent on its latest action, 0.0 before its first one. Only
    the agent whose turn it is pays at a step. The account comes when the agent's episode ends, with the keys of the
    wrapper for single environments; ``team_summary()`` has the team's totals at any time.

    A version for parallel environments exists: ``multi_agent.parallel.RecordComputeStatistics``.

    Example:
        >>> from budget_wrappers.metering import get_meter
        >>> import pettingzoo
        >>> env = RecordComputeStatistics(pettingzoo.make("aec", "classic/tictactoe-v3"), meter="docs.turns_record")
        >>> env.reset(seed=0)
        >>> get_meter("docs.turns_record.player_1").add(640)
        >>> env.step(4)  # player_1 computes its first action: that of player_2 is next, and free
        >>> {agent: float(info["cost"]) for agent, info in env.infos.items()}
        {'player_1': 640.0, 'player_2': 0.0}

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(self, env: AECEnv, meter: MeterSource = "policy", key: str = "cost") -> None:
        """Wrap ``env``.

        Args:
            env: the environment.
            meter: prefix of the agents' meters, ``get_meter(f"{meter}.{agent}")``, or a mapping from agent to meter.
            key: where the cost of an action goes.

        Raises:
            ConfigError: a parallel environment, an illegal ``key``, or meters that lack an agent or name a stranger.
            InfoKeyError: a wrapper inside records already.
        """
        super().__init__(env, meter)
        self._book = EpisodeBook(env, self._costs, key)
        self.cost_key = key

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset the environment, drop what is pending on every meter and start the accounts."""
        super().reset(seed=seed, options=options)
        self._book.start()
        self._write()

    def step(self, action: Any) -> None:
        """Step, close the account of whoever acted and write what it cost.

        Raises:
            InfoKeyError: the environment has put something else under the key.
            NonFiniteError, SpaceError: a reward is NaN or infinite, or no number.
            MeterError: an agent's episode has ended and its meter was never used, or it was charged for a batch.
        """
        agent = self.act(action)
        if agent is not None:
            self._book.act(agent)
        for other, reward in self.env.rewards.items():
            self._book.earn(other, reward)
        self._write()

    def _write(self) -> None:
        # New dicts each time: rewards may still come to an agent between its end and its last, empty step.
        self.infos = {
            agent: self._book.write(agent, info, agent in self.env.agents and has_ended(self.env, agent))
            for agent, info in self.env.infos.items()
        }

    def compute_summary(self, agent: Any) -> dict[str, Any]:
        """Return the account of ``agent`` so far, as ``infos[agent]["compute"]`` holds it."""
        return self._book.summary(agent)

    def team_summary(self) -> dict[str, Any]:
        """Return the team's account so far: the same totals over all agents, and ``share_flops`` by agent."""
        return self._book.team_summary()


__all__ = ["RecordComputeStatistics"]
