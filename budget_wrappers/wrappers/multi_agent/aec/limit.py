"""Wrapper of AEC environments that limits what agents and their team may spend: ``ComputeLimit``."""

from typing import Any

from pettingzoo import AECEnv

from budget_wrappers.wrappers.exhaustion import OnExhausted
from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.aec.reading import CostReader, has_ended
from budget_wrappers.wrappers.multi_agent.limits import LimitedTeam, Limits, TeamLimits

STATE = ("agents", "agent_selection", "terminations", "truncations", "rewards", "_cumulative_rewards", "infos")
"""What an AEC environment says about itself: ours to say where a limit has ended an episode that goes on inside."""


class ComputeLimit(LimitedTeam, CostReader):
    """Limits the FLOPs that each agent, and all of them together, may spend on acting in one episode.

    **Over** ``SubPolicyAction`` limits are hard: executed FLOPs, selectors' included, never pass them. Each choice is
    checked before it runs; what replaces one that does not fit is ``on_exhausted``:

    * ``"cheapest"``: the agent's cheapest sub-policy, and the cheapest path of every agent to the horizon is kept
      affordable all along. With a limit below that path the cheapest runs as long as it can be paid for, then ``hold``;
    * ``"hold"``: the agent's last action again, which costs nothing; only its first action is kept back for it. Where
      actions can become illegal prefer another mode;
    * ``"truncate"``, ``"terminate"``: the cheapest; the episode ends for all when not even that can be paid for whoever
      is next.

    Control comes back to every selector at every turn, so all calls of selectors that cost something are kept back.

    **Around opaque policies** actions were computed before ``step``: a limit is passed by at most what one action
    costs, ``overshoot`` says by how much, and the episode ends for all after it.

    A version for parallel environments exists: ``multi_agent.parallel.ComputeLimit``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.metering import get_meter
        >>> env = pettingzoo.make("aec", "classic/tictactoe-v3")
        >>> env = ComputeLimit(env, team_max_flops=100, on_exhausted="truncate", meter="docs.turns_limit")
        >>> env.reset(seed=0)
        >>> for agent, action in (("player_1", 0), ("player_2", 1)):
        ...     get_meter(f"docs.turns_limit.{agent}").add(60)
        ...     env.step(action)
        >>> env.overshoot(), env.truncations
        (20, {'player_1': True, 'player_2': True})

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: AECEnv,
        max_flops: Limits = None,
        team_max_flops: int | None = None,
        on_exhausted: OnExhausted = "cheapest",
        meter: MeterSource = "policy",
        horizon: int | None = None,
    ) -> None:
        """Wrap ``env``; raises ConfigError, InfeasibleBudgetError and WrapperOrderError.

        Args:
            env: the environment.
            max_flops: FLOPs that each agent may spend in an episode: one number for all, or a mapping.
            team_max_flops: FLOPs that all agents together may spend.
            on_exhausted: what happens when they are spent, see above.
            meter: prefix of the agents' meters, or a mapping from agent to meter.
            horizon: turns of one agent an episode lasts at most; over ``SubPolicyAction`` it is truncated there. None
                finds ``max_cycles``.
        """
        super().__init__(env, meter)
        self.limits = TeamLimits(env, self, self.account, max_flops, team_max_flops, on_exhausted, horizon)
        self._over = False

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Reset; ``options`` may hold ``"budget"`` (as ``max_flops``) and ``"team_budget"``, and are passed on."""
        self.limits.read_options(options)
        self._over = False
        for name in STATE:  # the environment speaks for itself again
            self.__dict__.pop(name, None)
        with self.limits.resetting():
            super().reset(seed=seed, options=options)

    def observe(self, agent: Any) -> Any:
        """Return what ``agent`` observes; a mask in it is of the choices that the limits let run at its turn."""
        return self.limits.masked(agent, self.env.observe(agent), [agent])

    def step(self, action: Any) -> None:
        """Step within the limits, and end the episode for all where they are exhausted.

        After an exception inside, what has run until then is in the accounts, and the next ``step`` goes on from there.

        Raises:
            CostError: the selector has cost more than it declares.
            WrapperOrderError: a wrapper inside resets in its ``step``.
            MeterError: an agent's episode has ended and its meter was never used, or it was charged for a batch.
        """
        if self._over:
            self._was_dead_step(action)
            return
        agent = self.env.agent_selection
        acting = [] if has_ended(self.env, agent) else [agent]
        with self.limits.stepping(acting):
            how = self.limits.stuck(acting) if acting else None
            if how is not None:
                self._end(how, [other for other in self.env.agents if not has_ended(self.env, other)])
                self.rewards = dict.fromkeys(self.rewards, 0.0)
                return
            acted = [] if self.act(action) is None else [agent]
        for actor in acted:
            self._costs.read(actor)
        playing = [other for other in self.env.agents if not has_ended(self.env, other)]
        self.limits.close_step(acted, [other for other in self.env.agents if other not in playing])
        self.amend()
        how = self.limits.ending([self.env.agent_selection] if self.env.agent_selection in playing else [])
        if how is not None:
            self._end(how, playing)

    def _end(self, how: str, playing: list[Any]) -> None:
        """End the episode for all who still play: from here on we say what the environment says about itself."""
        self.limits.close_step([], playing)
        self.agents, self.agent_selection = list(self.env.agents), self.env.agent_selection
        ends = dict.fromkeys(playing, True)
        self.terminations = {**self.env.terminations, **(ends if how == "terminate" else {})}
        self.truncations = {**self.env.truncations, **(ends if how == "truncate" else {})}
        self.rewards, self._cumulative_rewards = dict(self.env.rewards), dict(self.env._cumulative_rewards)
        self.infos = dict(self.env.infos)
        self.amend(playing)
        self._over = True
        self._deads_step_first()


__all__ = ["ComputeLimit"]
