"""Wrapper of parallel environments that limits what agents and their team may spend: ``ComputeLimit``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pettingzoo import ParallelEnv

from budget_wrappers.wrappers.choosing import HELD
from budget_wrappers.wrappers.exhaustion import OnExhausted
from budget_wrappers.wrappers.multi_agent.accounts import MeterSource
from budget_wrappers.wrappers.multi_agent.limits import LimitedTeam, Limits, TeamLimits
from budget_wrappers.wrappers.multi_agent.parallel.reading import CostReader, Infos, Transition


class ComputeLimit(LimitedTeam, CostReader):
    """Limits the FLOPs that each agent, and all of them together, may spend on acting in one episode.

    **Over** ``SubPolicyAction`` limits are hard: executed FLOPs, selectors' included, never pass them. Choices are
    checked before they run, one agent after the other in the order of ``agents``; ``allocate`` shares by value instead.
    What replaces a choice that does not fit is ``on_exhausted``:

    * ``"cheapest"``: the agent's cheapest sub-policy, and the cheapest path of every agent to the horizon is kept
      affordable all along. With a limit below that path the cheapest runs as long as it can be paid for, then ``hold``;
    * ``"hold"``: the agent's last action again, which costs nothing; only its first action is kept back for it;
    * ``"truncate"``, ``"terminate"``: the cheapest; the episode ends for all when not even that can be paid for all.

    Control comes back to every selector at every step, so all calls of selectors that cost something are kept back.

    **Around opaque policies** actions were computed before ``step``: a limit is passed by at most what one step of all
    agents costs, ``overshoot`` says by how much, and the episode ends for all at that step.

    A version for AEC environments exists: ``multi_agent.aec.ComputeLimit``.

    Example:
        >>> import pettingzoo
        >>> from budget_wrappers.policies import FunctionPolicy
        >>> from budget_wrappers.wrappers.multi_agent.parallel import SubPolicyAction
        >>> rock, paper = (FunctionPolicy(lambda observation: 0, flops=f, name=f"costs {f}") for f in (10, 40))
        >>> env = pettingzoo.make("parallel", "classic/rps-v2", max_cycles=3)
        >>> env = SubPolicyAction(env, [rock, paper], meter="docs.team_limit")
        >>> env = ComputeLimit(env, team_max_flops=100, meter="docs.team_limit")
        >>> observations, infos = env.reset(seed=0)
        >>> infos = env.step({"player_0": 1, "player_1": 1})[-1]  # 40 + 10, as 40 are kept for two rounds of 10 each
        >>> [float(info["option"]) for info in infos.values()], env.remaining()
        ([1.0, 0.0], 50)

    Change logs:
     * v0.1.0 - Initially added
    """

    def __init__(
        self,
        env: ParallelEnv,
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
            horizon: steps an episode lasts at most; over ``SubPolicyAction`` it is truncated there. None finds
                ``max_cycles``.
        """
        super().__init__(env, meter)
        self.limits = TeamLimits(env, self, self.account, max_flops, team_max_flops, on_exhausted, horizon)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[Any, Any], Infos]:
        """Reset; ``options`` may hold ``"budget"`` (as ``max_flops``) and ``"team_budget"``, and are passed on."""
        self.limits.read_options(options)
        with self.limits.resetting():
            observations, infos = super().reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        self._observations = self.limits.all_masked(observations, self.agents)
        return self._observations, self.limits.all_masked(infos, self.agents)

    def step(self, actions: dict[Any, Any]) -> Transition:
        """Step within the limits, and end the episode for all where they are exhausted.

        After an exception inside, what has run until then is in the accounts, and the next ``step`` goes on from there.
        Raises CostError (a selector has cost more than it declares), WrapperOrderError (a wrapper inside resets in its
        ``step``) and MeterError (an agent's episode has ended and its meter was never used, or took a batch).
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        live = list(self.env.agents)
        with self.limits.stepping(self.agents):
            how = self.limits.stuck(live) if live else "terminate"  # a step that has raised was the last of all
            if how is not None:
                ended, self.agents = self.agents, []
                self.limits.close_step([], ended)
                *ends, infos = end_of_all(self._observations, ended, how)
                return *ends, self.amend(infos, ended)
            observations, rewards, terminations, truncations, infos = self.env.step(actions)
        for agent in live:
            self._costs.read(agent)
        self.limits.close_step(live, [a for a in live if terminations.get(a) or truncations.get(a)])
        left = [agent for agent in self.env.agents if not (terminations.get(agent) or truncations.get(agent))]
        self._observations = observations = self.limits.all_masked(observations, left)
        how = self.limits.ending(left)
        if how is None:
            self.agents = list(self.env.agents)
            return observations, rewards, terminations, truncations, self.amend(self.limits.all_masked(infos, left))
        self.agents = []
        self.limits.close_step([], left)
        ended = {**(terminations if how == "terminate" else truncations), **dict.fromkeys(left, True)}
        terminations, truncations = (ended, truncations) if how == "terminate" else (terminations, ended)
        return observations, rewards, terminations, truncations, self.amend(infos, left)

    def allocate(self, values: Mapping[Any, ArrayLike], spread: bool = True) -> dict[Any, int]:
        """Return the choices, to be passed to ``step``, that are worth most to the team within what it may spend now.

        The linear program of ``functional.team_lp`` over what is left beyond the cheapest path, rounded down. Raises
        ConfigError (no ``SubPolicyAction`` inside, ``spread`` without a horizon), SpaceError and NonFiniteError.

        Args:
            values: ``(K,)`` of each live agent: what its sub-policies are worth at this observation.
            spread: spend an even share of the surplus over the steps to come, and not as much as one step can use.
        """
        return self.limits.allocate(values, spread)


def end_of_all(observations: dict[Any, Any], live: list[Any], how: str) -> Transition:
    """Return an end of ``live`` at their last ``observations``: the step before has raised, no other can be paid."""
    ends, not_so = dict.fromkeys(live, True), dict.fromkeys(live, False)
    flags = (ends, not_so) if how == "terminate" else (not_so, ends)
    infos = {agent: {"option": np.float64(HELD)} for agent in live}
    return {agent: observations[agent] for agent in live}, dict.fromkeys(live, 0.0), *flags, infos


__all__ = ["ComputeLimit"]
