"""One episode of a team under limits: what each choice may spend so that nobody overspends, alone or together."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budget_wrappers.errors import CostError
from budget_wrappers.functional.options import path_flops
from budget_wrappers.wrappers.choosing import HELD
from budget_wrappers.wrappers.exhaustion import OnExhausted
from budget_wrappers.wrappers.multi_agent.layers import Agent

ENDINGS: tuple[OnExhausted, ...] = ("truncate", "terminate")
"""Modes in which the episode ends when the limit is exhausted, and nothing is kept back before."""


@dataclass
class Purse:
    """One agent's part of an episode.

    Attributes:
        limit: FLOPs that it may spend itself; None where only the team's count.
        cheapest: FLOPs of its cheapest sub-policy, 0 around an opaque policy.
        selector: FLOPs that one of its choices costs outside at most.
        spent: FLOPs that it has spent.
        called: those of them that the selector of the decision to come has cost already.
        decisions: that it has taken; one whose step has raised counts where its selector's call was paid for it.
        acted: whether it has acted, so that there is an action to hold.
        held: those of them that repeated the last one for want of FLOPs.
        ended: whether its episode is over, so that nothing has to be kept for it.
    """

    limit: int | None
    cheapest: int = 0
    selector: int = 0
    spent: int = 0
    called: int = 0
    decisions: int = 0
    acted: bool = False
    held: int = 0
    ended: bool = False

    def least(self, mode: OnExhausted, horizon: int | None) -> int:
        """Return the least that it has to be able to spend: its first choice, and every call of its selector."""
        calls = 1 if mode in ENDINGS or horizon is None else horizon
        return self.cheapest + calls * self.selector

    def kept(self, mode: OnExhausted, horizon: int | None, decided: bool = False) -> int:
        """Return the FLOPs that have to stay for the rest of its episode.

        ``cheapest``: the path of the cheapest sub-policy to the horizon. ``hold``: the selector's calls, as control
        comes back to it at every step, and a first action to hold. The other modes keep nothing.

        Args:
            mode: see ``ComputeLimit``.
            horizon: decisions that it takes at most; None where no selector costs anything.
            decided: as it will be once the decision to come has been taken.
        """
        if self.ended or mode in ENDINGS:
            return 0
        decisions, called = self.decisions + decided, 0 if decided else self.called
        left = 0 if horizon is None else max(horizon - decisions, 0)
        if mode == "cheapest":
            return max(path_flops(left, 1, self.cheapest, self.selector) - called, 0)
        first = 0 if self.acted or decided else self.cheapest
        return max(path_flops(left, 1, 0, self.selector) - called, 0) + first


@dataclass
class TeamBudget:
    """One episode of a team under limits; also the arbiter of its choices.

    Attributes:
        limit: FLOPs that the team may spend; None where only its agents are limited.
        purses: of every agent that may appear.
        mode: what happens to a choice that does not fit, see ``ComputeLimit``.
        horizon: decisions that an agent takes at most; None where that is not known.
        failed: whether a step has raised, which may have spent what was kept for others.
    """

    limit: int | None
    purses: dict[Agent, Purse]
    mode: OnExhausted
    horizon: int | None
    failed: bool = False
    _waiting: set[Agent] = field(default_factory=set)
    _decided: dict[Agent, int] = field(default_factory=dict)

    @property
    def spent(self) -> int:
        """FLOPs that the team has spent."""
        return sum(purse.spent for purse in self.purses.values())

    def call(self, collected: Mapping[Agent, int]) -> None:
        """Note what selectors have cost before choices; ``collected`` is all that each of their agents has spent.

        Raises:
            CostError: one has cost more than it declares, so no promise about it can be kept.
        """
        self._decided = {}
        for agent, spent in collected.items():
            purse = self.purses[agent]
            purse.called += spent - purse.spent
            purse.spent = spent
        over = [agent for agent in collected if self.purses[agent].called > self.purses[agent].selector]
        if over:
            called = self.purses[over[0]].called
            for agent in collected:  # all of it is spent, and the next step begins anew
                self.purses[agent].called = 0
            raise CostError(
                f"The selector of {over[0]!r} was charged {called} FLOPs for one choice and "
                f"{self.purses[over[0]].selector} are declared; a hard limit has to know them beforehand. Pass "
                "selector_flops= to SubPolicyAction: the most that one choice costs. Where the selector ran twice, as "
                "its first call or a wrapper outside has raised, call step() again."
            )

    def abandon(self, agents: Collection[Agent], spent: Mapping[Agent, int], acted: Collection[Agent]) -> None:
        """Note that the step of ``agents`` has raised.

        Args:
            agents: who would have acted.
            spent: what each of them has really spent.
            acted: who of them has an action to hold.
        """
        self.failed = True
        self._waiting.clear()
        for agent in agents:
            purse, decided = self.purses[agent], self._decided.get(agent)
            if decided is None:
                purse.decisions += purse.called > 0
            else:
                purse.held -= decided == HELD
                purse.decisions -= purse.selector == 0
            purse.spent, purse.called, purse.acted = spent[agent], 0, agent in acted

    def stuck(self, agents: Collection[Agent]) -> bool:
        """Return whether, in an episode with a step that has raised, some of ``agents`` cannot even act cheaply now.

        Their selectors have run as far as they will. In the modes that do not end an episode an action can be held.
        """
        if not self.failed:
            return False
        if self.out_of_time(agents):
            return True
        must_act = [agent for agent in agents if self.mode in ENDINGS or not self.purses[agent].acted]
        with self._about_to_choose(agents):
            return any(self.purses[agent].cheapest > self.allowance(agent, path=False) for agent in must_act)

    @contextmanager
    def _about_to_choose(self, agents: Collection[Agent]) -> Iterator[None]:
        """While this lasts, selectors of ``agents`` have run, for what they have been charged so far."""
        called = {agent: self.purses[agent].called for agent in agents}
        self.await_choices(agents)
        try:
            yield
        finally:
            self._waiting.clear()
            for agent, flops in called.items():
                self.purses[agent].called = flops

    def runnable(self, agent: Agent, acting: Collection[Agent], flops: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the choices of ``agent``, ``(K,)``, that run as they are where the others take their cheapest.

        Args:
            agent: who chooses.
            acting: who acts at the same step, ``agent`` too; the calls of their selectors are still to be paid.
            flops: ``(K,)`` of its sub-policies, ascending.
        """
        unpaid = {other: self.purses[other].selector - self.purses[other].called for other in acting}
        for other, cost in unpaid.items():
            self.purses[other].spent += cost
        try:
            with self._about_to_choose(acting):
                mask = flops <= self.allowance(agent)
                if self.mode != "hold" or not self.purses[agent].acted:
                    mask[0] |= flops[0] <= self.allowance(agent, path=False)
        finally:
            for other, cost in unpaid.items():
                self.purses[other].spent -= cost
        return mask

    def decide(
        self, wanted: Mapping[Agent, int], flops: Mapping[Agent, NDArray[np.int64]], acted: Mapping[Agent, Any]
    ) -> dict[Agent, int]:
        """Return what runs instead of what is wanted, one agent after the other, see ``choices.Arbiter``."""
        self.await_choices(wanted)
        decided = {}
        for agent, index in wanted.items():
            purse = self.purses[agent]
            decided[agent] = self._settle(agent, index, flops[agent], agent in acted)
            self._waiting.discard(agent)
            purse.decisions, purse.called, purse.acted = purse.decisions + 1, 0, True
            if decided[agent] == HELD:
                purse.held += 1
            else:
                purse.spent += int(flops[agent][decided[agent]])
        self._decided = decided
        return decided

    def await_choices(self, agents: Collection[Agent]) -> None:
        """Say who acts at this step: their selectors have run, whatever they have left of what they may cost."""
        self._waiting = set(agents)
        for agent in agents:
            self.purses[agent].called = self.purses[agent].selector

    def _settle(self, agent: Agent, index: int, flops: NDArray[np.int64], acted: bool) -> int:
        if flops[index] <= self.allowance(agent):
            return index
        if (self.mode != "hold" or not acted) and flops[0] <= self.allowance(agent, path=False):
            return 0
        return HELD

    def allowance(self, agent: Agent, path: bool = True) -> float:
        """Return the FLOPs that the next choice of ``agent`` may spend; infinite where nothing limits it.

        Args:
            agent: who chooses.
            path: keep its whole mode's path affordable, and not only what nobody can do without.
        """
        mode: OnExhausted = "hold" if self.mode == "cheapest" and not path else self.mode
        purse = self.purses[agent]
        after = purse.kept(mode, self.horizon, decided=True)
        own = math.inf if purse.limit is None else purse.limit - purse.spent - after
        if self.limit is None:
            return own
        others = sum(self._kept(other, mode) for other in self.purses if other != agent)
        return min(own, self.limit - self.spent - after - others)

    def _kept(self, agent: Agent, mode: OnExhausted) -> int:
        purse = self.purses[agent]
        if mode in ENDINGS and agent in self._waiting:
            return purse.cheapest  # nothing is kept for later, but those who choose at the same step get their cheapest
        return purse.kept(mode, self.horizon)

    def surplus(self, agents: Collection[Agent]) -> float:
        """Return the FLOPs of the team beyond the cheapest choices of ``agents`` now and what has to be kept for later.

        Args:
            agents: who is about to choose.
        """
        if self.limit is None:
            return math.inf
        now = sum(purse.cheapest + purse.selector - purse.called for purse in map(self.purses.get, agents) if purse)
        later = sum(
            purse.kept(self.mode, self.horizon, decided=agent in agents) for agent, purse in self.purses.items()
        )
        return self.limit - self.spent - now - later

    def room(self, agent: Agent) -> float:
        """Return what the next choice of ``agent`` may spend of its own limit, whatever the team's."""
        purse = self.purses[agent]
        if purse.limit is None:
            return math.inf
        later = purse.kept(self.mode, self.horizon, decided=True)
        return purse.limit - purse.spent - later - (purse.selector - purse.called)

    def broke(self, agents: Collection[Agent]) -> bool:
        """Return whether the next decisions of ``agents`` can't be paid: a selector call and the cheapest each."""
        next_costs = {agent: self.purses[agent].selector + self.purses[agent].cheapest for agent in agents}
        if self.limit is not None and self.limit - self.spent < sum(next_costs.values()):
            return True
        limits = ((self.purses[agent], cost) for agent, cost in next_costs.items())
        return any(purse.limit is not None and purse.limit - purse.spent < cost for purse, cost in limits)

    def used_up(self) -> bool:
        """Return whether nothing is left of the team's limit, or of one agent's that still plays."""
        if self.limit is not None and self.spent >= self.limit:
            return True
        playing = (purse for purse in self.purses.values() if not purse.ended)
        return any(purse.limit is not None and purse.spent >= purse.limit for purse in playing)

    def out_of_time(self, agents: Collection[Agent]) -> bool:
        """Return whether one of ``agents`` has taken as many decisions as it may."""
        return self.horizon is not None and any(self.purses[agent].decisions >= self.horizon for agent in agents)


__all__ = ["ENDINGS", "Purse", "TeamBudget"]
