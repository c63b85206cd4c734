"""What ``ComputeLimit`` keeps for a team, in either of PettingZoo's APIs: whose limits, how they end, what is left."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from budget_wrappers.arguments import MOST_STEPS
from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, WrapperOrderError
from budget_wrappers.wrappers.exhaustion import OnExhausted
from budget_wrappers.wrappers.limit import feasible_limit
from budget_wrappers.wrappers.multi_agent.accounts import TeamAccount
from budget_wrappers.wrappers.multi_agent.allocation import allocate
from budget_wrappers.wrappers.multi_agent.budget import ENDINGS, Purse, TeamBudget
from budget_wrappers.wrappers.multi_agent.choices import MASK, TeamChoices
from budget_wrappers.wrappers.multi_agent.layers import Agent, each, find_in_team, require_agents, unknown_agent
from budget_wrappers.wrappers.reading import plain

Limits = int | Mapping[Any, int] | None


class TeamLimits:
    """The limits of a team and the episode that runs under them.

    Whoever may appear (``possible_agents``) is kept for until its episode has ended, whether it has appeared or not.

    Args:
        env: what the wrapper wraps.
        wrapper: who asks, for messages.
        account: of the meters that are limited.
        max_flops: of each agent: for all, by agent (who is left out has none), or None.
        team_max_flops: of all together, or None.
        on_exhausted: see ``ComputeLimit``.
        horizon: decisions that an agent takes at most; None for ``max_cycles`` of the environment.

    Attributes:
        choices: the sub-policies inside, over which limits are hard; None around opaque policies.
        episode: the running one.

    Raises:
        ConfigError: there is no limit, one names an unknown agent, or it cannot be kept like this.
        InfeasibleBudgetError: a limit is below what first decisions cost.
        WrapperOrderError: there is a limit inside already, or the wrapper that chooses charges other meters.
    """

    def __init__(
        self,
        env: Any,
        wrapper: Any,
        account: TeamAccount,
        max_flops: Limits,
        team_max_flops: int | None,
        on_exhausted: OnExhausted,
        horizon: int | None,
    ) -> None:
        if on_exhausted not in get_args(OnExhausted):
            raise ConfigError(f"on_exhausted={on_exhausted!r}; expected one of {', '.join(get_args(OnExhausted))}.")
        if find_in_team(env, "limit_report") is not None:
            raise WrapperOrderError(f"{env} has a ComputeLimit already; use its set_budget instead of a second one.")
        self.agents = require_agents(env, wrapper)
        choices = find_in_team(env, "choices")
        self.choices = choices if isinstance(choices, TeamChoices) else None
        if self.choices is not None and not self.choices.meters.same_meters(account):
            raise WrapperOrderError(
                f"{env} charges other meters than this limit reads, so it would limit nothing. Give both one meter=."
            )
        self._account, self._mode = account, on_exhausted
        self._horizon = self._checked_horizon(env, plain(horizon))
        self._own: dict[Agent, int] = {}
        self._team: int | None = None
        self.set_budget(max_flops, team_max_flops)
        if self._team is None and not self._own:
            raise ConfigError("ComputeLimit was given neither max_flops nor team_max_flops; expected one of them.")
        self.start()

    def _checked_horizon(self, env: Any, horizon: int | None) -> int | None:
        if self.choices is None and self._mode not in ENDINGS:
            raise ConfigError(
                f"on_exhausted={self._mode!r} needs a SubPolicyAction inside, and {env} has none: its policies have "
                "acted before step() is called, and would run whatever replaces their actions. Use 'truncate' or "
                "'terminate', or give the sub-policies to SubPolicyAction."
            )
        bounds = [bound for bound in (horizon, getattr(env.unwrapped, "max_cycles", None)) if bound is not None]
        wrong = [bound for bound in bounds if type(bound) is not int or not 1 <= bound <= MOST_STEPS]
        if wrong:
            raise ConfigError(f"horizon={wrong[0]!r}; expected a whole number of decisions an agent, >= 1.")
        found = min(bounds, default=None)
        calls = self.choices is not None and any(self.choices.selector_flops.values())
        if found is None and (self._mode == "cheapest" or (self._mode == "hold" and calls)):
            raise ConfigError(
                f"on_exhausted={self._mode!r} needs to know how many decisions an agent takes at most, and {env} has "
                "no max_cycles. Pass horizon=."
            )
        return found

    def _purse(self, agent: Agent, limit: int | None) -> Purse:
        if self.choices is None:
            return Purse(limit)
        return Purse(limit, int(self.choices.flops[agent][0]), self.choices.selector_flops[agent])

    def _new_episode(self) -> TeamBudget:
        purses = {agent: self._purse(agent, self._own.get(agent)) for agent in self.agents}
        return TeamBudget(self._team, purses, self._mode, self._horizon)

    def set_budget(self, max_flops: Limits = None, team_max_flops: int | None = None) -> None:
        """Set limits from the next reset on; None leaves them as they are, an agent left out keeps its own.

        Raises:
            ConfigError: a limit is no positive whole number, or of an unknown agent.
            InfeasibleBudgetError: it is below what the first decisions cost.
        """
        own = dict(self._own)
        if max_flops is not None:
            for agent, flops in each(max_flops, self.agents, "max_flops").items():
                least = self._purse(agent, None).least(self._mode, self._horizon)
                own[agent] = _feasible(flops, least, f"{agent!r}")
        team = self._team
        if team_max_flops is not None:
            least = sum(self._purse(agent, None).least(self._mode, self._horizon) for agent in self.agents)
            team = _feasible(team_max_flops, least, "the team")
        self._own, self._team = own, team

    @contextmanager
    def resetting(self) -> Iterator[None]:
        """Begin an episode with the reset inside; what a wrapper runs there is not free, and no sub-policy runs."""
        before = {agent: account.meter.totals["act"] for agent, account in self._account.accounts.items()}
        self._expect("reset")
        try:
            yield
        finally:
            self._expect(None)
        self.start()
        for agent, executed in before.items():
            if agent in self.episode.purses:
                ran = self._account.of(agent).meter.totals["act"] - executed
                self.episode.purses[agent].spent = self._spent[agent] = ran

    def start(self) -> None:
        """Begin an episode."""
        self.episode = self._new_episode()
        self._acted: set[Agent] = set()
        self._spent = dict.fromkeys(self.agents, 0)
        self._seen = {agent: (0, self._account.of(agent).episode) for agent in self.agents}
        if self.choices is not None:
            self.choices.restrict(self.episode)

    def _expect(self, call: Literal["step", "reset"] | None) -> None:
        if self.choices is not None:
            self.choices.expected = call

    def _collect(self, agent: Agent) -> int:
        """Return what ``agent`` has spent in this episode, also where a wrapper inside began its account anew."""
        account = self._account.of(agent)
        total, (seen, episode) = account.collect(early=True), self._seen[agent]
        self._spent[agent] += total - (seen if account.episode == episode else 0)
        self._seen[agent] = total, account.episode
        return self._spent[agent]

    def read_options(self, options: Mapping[str, Any] | None) -> None:
        """Set the limits that a reset's ``options`` hold, before the inner reset: raises as ``set_budget`` does."""
        if options is not None:
            self.set_budget(options.get("budget"), options.get("team_budget"))

    @contextmanager
    def stepping(self, acting: Collection[Agent]) -> Iterator[None]:
        """Make a step of those who act; where it raises, what ran is in their purses.

        Raises:
            CostError: a selector has cost more than it declares.
            WrapperOrderError: there was a reset inside that did not come through the limit.
        """
        self.collect_calls(acting)
        self._expect("step")
        try:
            yield
        except BaseException:
            self._abandon(acting)
            raise
        finally:
            self._expect(None)

    def collect_calls(self, acting: Collection[Agent]) -> None:
        """Collect what the selectors of those who act have cost; raises CostError where that is more than declared."""
        collected = {agent: self._collect(agent) for agent in acting}
        if self.choices is None:
            return
        if not self.choices.is_restricted_by(self.episode):
            raise WrapperOrderError(
                "SubPolicyAction was reset since the last step, and not through the ComputeLimit outside of it, whose "
                "account therefore belongs to no episode. Call reset() of the limit, or of a wrapper outside of it; "
                "after a reset that has failed call reset() again."
            )
        self.episode.call(collected)

    def _abandon(self, acting: Collection[Agent]) -> None:
        acted = [] if self.choices is None else [agent for agent in acting if self.choices.has_acted(agent)]
        self.episode.abandon(acting, {agent: self._collect(agent) for agent in acting}, acted)

    def stuck(self, acting: Collection[Agent]) -> str | None:
        """Return how the episode ends without a step, where the last one has raised and no other can be paid."""
        if self.choices is None or not self.episode.stuck(acting):
            return None
        return self._mode if self._mode in ENDINGS else "truncate"

    def close_step(self, acted: Collection[Agent], ended: Collection[Agent]) -> None:
        """Note what a step has really cost and whose episode is over.

        Raises:
            MeterError: an agent's episode has ended after actions of it, and its meter was never used.
        """
        for agent in acted:
            self.episode.purses[agent].spent = self._collect(agent)
            self._acted.add(agent)
        for agent in ended:
            self.episode.purses[agent].ended = True
            if agent in self._acted:
                self._account.of(agent).require_use()

    def ending(self, following: Collection[Agent]) -> str | None:
        """Return how the episode ends now for all agents, ``"truncate"`` or ``"terminate"``, or None.

        Args:
            following: the agents in play that decide next.
        """
        if not following:
            return None
        if self._mode in ENDINGS:
            broke = self.episode.used_up() if self.choices is None else self.episode.broke(following)
            if broke:
                return self._mode
        return "truncate" if self.choices is not None and self.episode.out_of_time(following) else None

    def allocate(self, values: Mapping[Any, ArrayLike], spread: bool) -> dict[Any, int]:
        """Return the choices that are worth most to the team now, see ``parallel.ComputeLimit``."""
        choices, episode = self.choices, self.episode
        if choices is None or (spread and episode.horizon is None):
            raise ConfigError(
                f"allocate(spread={spread}) needs {'a SubPolicyAction inside' if choices is None else 'a horizon'}."
            )
        for agent in values:
            self.limit(agent)  # raises for one that nobody knows
        self.collect_calls(list(values))
        surplus = episode.surplus(list(values))
        if spread and values and math.isfinite(surplus):
            surplus //= max(episode.horizon - max(episode.purses[agent].decisions for agent in values), 1)
        try:
            return allocate(values, choices.flops, {agent: episode.room(agent) for agent in values}, surplus)
        except Exception:
            for agent in values:  # the selectors will run again
                episode.purses[agent].called = 0
            raise

    def masked(self, agent: Agent, seen: Any, acting: Collection[Agent]) -> Any:
        """Return an observation or info whose mask, where it has one, is of the choices that the limits let run next.

        Args:
            agent: whose it is.
            seen: what the wrappers inside hand out.
            acting: who acts at the same step.
        """
        choices = self.choices
        if choices is None or agent not in acting or not isinstance(seen, Mapping) or MASK not in seen:
            return seen
        return {**seen, MASK: self.episode.runnable(agent, acting, choices.flops[agent]).astype(np.int8)}

    def all_masked(self, seen: Mapping[Agent, Any], acting: Collection[Agent]) -> dict[Agent, Any]:
        """Return the observations or infos of all agents, see ``masked``."""
        return {agent: self.masked(agent, one, acting) for agent, one in seen.items()}

    # ---- what is left -----------------------------------------------------------------------------------------------

    def limit(self, agent: Agent | None) -> int | None:
        """Return the running episode's limit of ``agent``, or of the team; None where there is none.

        Raises:
            ConfigError: nobody knows the agent.
        """
        if agent is None:
            return self.episode.limit
        if agent not in self.episode.purses:
            unknown_agent(agent, self.agents, "agent")
        return self.episode.purses[agent].limit

    def left(self, agent: Agent | None) -> int:
        """Return the FLOPs that are left of a limit, negative where it was passed.

        Raises:
            ConfigError: there is no such limit.
        """
        limit = self.limit(agent)
        if limit is None:
            which = "the team" if agent is None else repr(agent)
            raise ConfigError(f"{which} has no limit of its own; limited are {[*self._own, *self._team_name()]!r}.")
        return limit - (self.episode.spent if agent is None else self.episode.purses[agent].spent)

    def share(self, agent: Agent | None) -> float:
        """Return the share of a limit that is left, in [0, 1]; 1 where there is no such limit."""
        limit = self.limit(agent)
        return 1.0 if limit is None else max(self.left(agent), 0) / limit

    def limited(self, agent: Agent | None) -> bool:
        """Return whether an agent, or the team, has a limit, now or from the next reset on."""
        return self._team is not None if agent is None else agent in self._own

    def _team_name(self) -> list[str]:
        return [] if self._team is None else ["the team"]

    def report(self, agent: Agent | None) -> dict[str, np.float64]:
        """Return what an account says about the limit of an agent, or of the team."""
        purses = self.episode.purses.values() if agent is None else [self.episode.purses[agent]]
        numbers: dict[str, int] = {"held_steps": sum(purse.held for purse in purses)}
        limit = self.limit(agent)
        if limit is not None:
            numbers |= {"limit": limit, "overshoot": max(-self.left(agent), 0)}
        return {key: np.float64(number) for key, number in numbers.items()}


def _feasible(flops: Any, least: int, whose: str) -> int:
    limit = feasible_limit(plain(flops), 0)
    if limit < least:
        raise InfeasibleBudgetError(
            f"A limit of {limit} FLOPs an episode for {whose} is below {least}, what its first decisions (the cheapest "
            "choices, and every selector call that cannot be left out) cost at least. Raise it, or add a cheaper one."
        )
    return limit


class LimitedTeam:
    """What both versions of ``ComputeLimit`` say about their limits.

    Attributes:
        limits: of the team.
        env: what the wrapper wraps.
    """

    limits: TeamLimits
    env: Any

    def remaining(self, agent: Any = None) -> int:
        """Return the FLOPs that are left to the team, or to one agent; raises ConfigError where that has no limit."""
        return max(self.limits.left(agent), 0)

    def overshoot(self, agent: Any = None) -> int:
        """Return the FLOPs by which the team, or one agent, has passed its limit; 0 over ``SubPolicyAction``."""
        return max(-self.limits.left(agent), 0)

    def set_budget(self, max_flops: Limits = None, team_max_flops: int | None = None) -> None:
        """Set limits from the next reset on, None leaves them; raises ConfigError and InfeasibleBudgetError."""
        self.limits.set_budget(max_flops, team_max_flops)

    def limit_report(self, agent: Any) -> dict[str, np.float64]:
        """Return what ``infos[agent]["compute"]`` says about the agent's limit."""
        return self.limits.report(agent)

    report = limit_report

    def team_report(self) -> dict[str, np.float64]:
        """Return what ``team_summary()`` says about the team's limit."""
        return self.limits.report(None)

    def team_summary(self) -> dict[str, Any]:
        """Return the team's account so far, of a recorder inside, with its limit."""
        return {**self.env.team_summary(), **self.team_report()}


__all__ = ["LimitedTeam", "Limits", "TeamLimits"]
