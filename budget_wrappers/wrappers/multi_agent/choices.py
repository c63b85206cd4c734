"""The sub-policies of each agent of a team: what a choice costs, what it becomes under a limit, and how it acts."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from budget_wrappers.core import SubPolicy
from budget_wrappers.errors import InfeasibleBudgetError, InfoKeyError, WrapperOrderError
from budget_wrappers.functional.costs import validate_flops
from budget_wrappers.policies.memory import Actors, refuse_shared_memory
from budget_wrappers.policies.options import SubPolicies
from budget_wrappers.wrappers.choosing import HELD, index_of
from budget_wrappers.wrappers.multi_agent.accounts import MeterSource, TeamAccount
from budget_wrappers.wrappers.multi_agent.layers import Agent, each, find_in_team, require_agents, require_each
from budget_wrappers.wrappers.observation import dict_space
from budget_wrappers.wrappers.options import checked_action
from budget_wrappers.wrappers.reading import plain

SubPolicySet = SubPolicies | Iterable[SubPolicy | str]
MASK = "action_mask"
"""Where PettingZoo's environments say which actions are legal: an entry of the observation, or of ``info``."""


class Arbiter(Protocol):
    """Whoever may overrule choices: a limit."""

    def decide(
        self, wanted: Mapping[Agent, int], flops: Mapping[Agent, NDArray[np.int64]], acted: Mapping[Agent, Any]
    ) -> dict[Agent, int]:
        """Return what each agent that is to act runs instead: an index, or ``HELD`` where it has acted before.

        Args:
            wanted: the choice of each agent that acts at this step.
            flops: ``(K,)`` of each agent, ascending.
            acted: agents that have acted in this episode, with their last actions.
        """
        ...


class TeamChoices:
    """What the wrappers whose actions are sub-policies keep.

    Args:
        env: what the wrapper wraps.
        wrapper: who asks, for messages.
        sub_policies: one set for all agents, or a mapping from agent to its set.
        meter: see ``MeterSource``.
        selector_flops: what one choice of the outside selector costs at most, for all or by agent.

    Attributes:
        agents: everybody who may appear.
        flops: ``(K,)`` int64 of each agent: FLOPs of one action of each sub-policy at most, ascending.
        selector_flops: of each agent.
        spaces: ``Discrete(K)`` of each agent.
        expected: the call that a limit outside is making; another one in between raises. None outside of both.

    Raises:
        ConfigError: an agent has no sub-policies, an unknown one has, or the environment does not say who plays; a
            sub-policy declares another convention than its agent's meter counts, or keeps a memory in itself that
            several agents would share.
        CostError: a cost is negative, NaN or not whole.
        WrapperOrderError: a wrapper inside reads costs or chooses itself.
    """

    def __init__(
        self,
        env: Any,
        wrapper: Any,
        sub_policies: SubPolicySet | Mapping[Any, SubPolicySet],
        meter: MeterSource,
        selector_flops: int | Mapping[Any, int],
    ) -> None:
        _refuse_inside(env, wrapper)
        self.agents = require_agents(env, wrapper)
        given = sub_policies if isinstance(sub_policies, Mapping) else SubPolicies.of(sub_policies)[0]
        sets = each(given, self.agents, "sub_policies")
        require_each(sets, self.agents, "sub_policies")
        self.sub_policies = {agent: SubPolicies.of(sets[agent])[0] for agent in self.agents}
        self.flops = {agent: own.flops for agent, own in self.sub_policies.items()}
        selector = each(selector_flops, self.agents, "selector_flops")
        self.selector_flops = {
            agent: int(validate_flops([plain(selector.get(agent, 0))], f"selector_flops of {agent!r}")[0])
            for agent in self.agents
        }
        self.meters = TeamAccount(meter, self.agents)
        for agent, own in self.sub_policies.items():
            own.require_convention(self.meters.of(agent).meter)
        self._actors = {agent: Actors.of(own) for agent, own in self.sub_policies.items()}
        refuse_shared_memory(self._actors)
        self.spaces = {agent: spaces.Discrete(len(own)) for agent, own in self.sub_policies.items()}
        self.expected: Literal["step", "reset"] | None = None
        self.start()

    def start(self) -> None:
        """Forget the last episode: no limit, no held action and no memory of a sub-policy survives a reset.

        Raises:
            WrapperOrderError: a wrapper outside resets within the ``step`` of a limit further out.
        """
        self._require_expected("reset")
        self._arbiter: Arbiter | None = None
        self._last: dict[Agent, Any] = {}
        self._options: dict[Agent, int] = {}
        # steps of each choice, and of HELD, which is −1: the last
        self._counts = {agent: [0] * (len(own) + 1) for agent, own in self.sub_policies.items()}
        self._spent = {agent: [0] * len(own) for agent, own in self.sub_policies.items()}
        for actors in self._actors.values():
            actors.begin()

    def _require_expected(self, call: Literal["step", "reset"]) -> None:
        if self.expected in (None, call):
            return
        does, lost = (
            ("resets within its step()", "restarts an episode that the limit goes on with")
            if call == "reset"
            else ("acts within its reset()", "spends what no episode pays for")
        )
        raise WrapperOrderError(
            f"A wrapper between SubPolicyAction and the ComputeLimit outside {does}, which {lost}. Put that wrapper "
            "inside SubPolicyAction, around the environment, or outside of ComputeLimit."
        )

    def restrict(self, arbiter: Arbiter) -> None:
        """Have ``arbiter`` decide until the next reset."""
        self._arbiter = arbiter

    def is_restricted_by(self, arbiter: Arbiter) -> bool:
        """Return whether ``arbiter`` still decides; a reset that its limit does not know of has ended that."""
        return self._arbiter is arbiter

    def has_acted(self, agent: Agent) -> bool:
        """Return whether ``agent`` has an action to hold."""
        return agent in self._last

    def resolve(self, wanted: Mapping[Agent, Any]) -> dict[Agent, int]:
        """Return what runs for each agent that acts at this step.

        Raises:
            SpaceError: an action is no index of a sub-policy.
            WrapperOrderError: a wrapper outside acts within the ``reset`` of a limit further out.
        """
        self._require_expected("step")
        indices = {agent: index_of(action, self.spaces[agent]) for agent, action in wanted.items()}
        if self._arbiter is not None:
            indices = self._arbiter.decide(indices, self.flops, self._last)
        self._options.update(indices)
        return indices

    def act(
        self, ran: Mapping[Agent, int], observe: Callable[[Agent], Any], space: Callable[[Agent], spaces.Space]
    ) -> dict[Agent, Any]:
        """Return the actions of sub-policies, charged at their declared costs, or last ones again.

        Args:
            ran: what runs for each agent that acts at this step, from ``resolve``.
            observe: an agent's observation.
            space: of an agent's actions.

        Raises:
            InfeasibleBudgetError: there is no last action yet.
            SpaceError, NonFiniteError: a sub-policy returned no action.
        """
        for agent, index in ran.items():
            if index == HELD and agent not in self._last:
                raise InfeasibleBudgetError(f"{agent!r} has not acted yet, so there is nothing to hold. Raise a limit.")
        called: list[Agent] = []
        try:
            with ExitStack() as paused:
                for account in self.meters.accounts.values():  # of all: agents may share modules that one meter watches
                    paused.enter_context(account.meter.paused())
                for agent, index in ran.items():
                    if index != HELD:
                        policy = self.sub_policies[agent][index]
                        called.append(agent)  # before: a call that fails has run, too
                        acted = self._actors[agent][index](observe(agent))
                        self._last[agent] = checked_action(space(agent), acted, policy.name)
        finally:
            for agent in called:
                index, flops = ran[agent], int(self.flops[agent][ran[agent]])
                self.meters.of(agent).meter.add(flops, self.sub_policies[agent][index].name)
                self._spent[agent][index] += flops
        return {agent: self._last[agent] for agent in ran}

    def count(self, ran: Mapping[Agent, int]) -> None:
        """Count a step that the environment has made with what ``act`` returned."""
        for agent, index in ran.items():
            self._counts[agent][index] += 1

    def write(self, agent: Agent, info: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of ``info`` that says which sub-policy ran last, −1 for none.

        Raises:
            InfoKeyError: the environment has put something else under the key.
        """
        if "option" in info:
            raise InfoKeyError(f"infos[{agent!r}] has {sorted(info)} and 'option' is ours; rename it inside.")
        written = {**info, "option": np.float64(self._options.get(agent, HELD))}
        return {**written, MASK: self._all_legal(agent)} if MASK in info else written

    def outside_space(self, agent: Agent, space: spaces.Space) -> spaces.Space:
        """Return an observation space as the selector sees it: a mask is one of choices, all of them legal."""
        if not _masked(space):
            return space
        mask = spaces.Box(0, 1, (len(self.flops[agent]),), np.int8)
        return dict_space({**space.spaces, MASK: mask}, space)

    def outside(self, agent: Agent, observation: Any, space: spaces.Space) -> Any:
        """Return an observation in ``outside_space``."""
        return (
            {**observation, MASK: self._all_legal(agent)} if _masked(space) and observation is not None else observation
        )

    def _all_legal(self, agent: Agent) -> NDArray[np.int8]:
        return np.ones(len(self.flops[agent]), np.int8)

    def report(self, agent: Agent, total: int) -> tuple[dict[str, int], dict[str, int]]:
        """Return FLOPs and steps of this episode of ``agent`` by name; what no sub-policy spent is the selector's."""
        names, counts = self.sub_policies[agent].names, self._counts[agent]
        flops = dict(zip(names, self._spent[agent], strict=True))
        flops["selector"] = total - sum(flops.values())
        return flops, dict(zip((*names, "hold"), counts, strict=True))


def _masked(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def _refuse_inside(env: Any, wrapper: Any) -> None:
    name = type(wrapper).__name__
    if find_in_team(env, "team_accounts") is not None:
        raise WrapperOrderError(
            f"{env} reads costs inside {name}, whose sub-policies run within its step: put wrappers that record, "
            "penalise or limit outside."
        )
    if isinstance(find_in_team(env, "choices"), TeamChoices):
        raise WrapperOrderError(f"{env} chooses sub-policies already; merge the two sets.")


__all__ = ["MASK", "Arbiter", "SubPolicySet", "TeamChoices"]
