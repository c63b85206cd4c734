"""One team's spending: an account an agent, shared by the wrappers of one stack.

As in the wrappers for single environments, accounts are running totals of the episode: the innermost wrapper closes
them, those further out find them and take differences.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from budget_wrappers.errors import ConfigError, MeterError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers.account import StepAccount, resolve_meter
from budget_wrappers.wrappers.multi_agent.layers import Agent, agents_of, each, find_in_team, require_each

MeterSource = str | Mapping[Any, str | ComputeMeter]
"""A prefix, with which agent ``a`` has the meter ``get_meter(f"{prefix}.{a}")``, or a meter (or its name) an agent."""


class TeamAccount:
    """What each agent of a team has spent since the last reset, in FLOPs of its meter's convention.

    Args:
        meter: a prefix, or a mapping from agent to meter, see ``MeterSource``.
        agents: everybody who may appear; None where that is not known, which a prefix can do without.

    Attributes:
        accounts: of each agent that has been asked for.

    Raises:
        ConfigError: a mapping lacks an agent, names an unknown one or gives two the same meter; or neither a text nor a
            mapping.
    """

    def __init__(self, meter: MeterSource, agents: tuple[Agent, ...] | None) -> None:
        self._prefix = meter if isinstance(meter, str) else None
        # Looked at once an episode, at its first step: policies are watched by then.
        self._own_modules = False
        self.accounts: dict[Agent, StepAccount] = {}
        if isinstance(meter, Mapping):
            given = each(meter, tuple(meter) if agents is None else agents, "meter")
            require_each(given, agents or (), "meter")
            self.accounts = {agent: StepAccount(own) for agent, own in given.items()}
            _require_own_meters(self.accounts)
        elif isinstance(meter, str):
            for agent in agents or ():
                self.of(agent)
        else:
            raise ConfigError(
                f"meter={meter!r} is a {type(meter).__name__}; expected a prefix of meters' names, or a mapping from "
                "each agent to its meter: one meter could not tell them apart."
            )

    def of(self, agent: Agent) -> StepAccount:
        """Return the account of ``agent``, opened when it first turns up.

        Raises:
            ConfigError: a mapping of meters has none for it.
        """
        if agent not in self.accounts:
            if self._prefix is None:
                raise ConfigError(f"meter has nothing for {agent!r}; expected an entry for each agent that appears.")
            self.accounts[agent] = StepAccount(meter_name(self._prefix, agent))
        return self.accounts[agent]

    def total(self, agent: Agent | None = None) -> int:
        """Return the FLOPs of this episode of one agent, or of all."""
        if agent is not None:
            return self.of(agent).total
        return sum(account.total for account in self.accounts.values())

    def restart(self, agents: Iterable[Agent] = ()) -> None:
        """Start an episode: drop what is pending on every meter, of ``agents`` that begin it, too."""
        if self._prefix is not None:
            for agent in agents:
                self.of(agent)
        for account in self.accounts.values():
            account.discard()
        self._own_modules = False

    def require_own_modules(self) -> None:
        """Check that no module is watched by the meters of two agents, which would both pay for each of its forwards.

        Raises:
            MeterError: one is.
        """
        if self._own_modules:
            return
        owners: dict[Any, Agent] = {}
        for agent, account in self.accounts.items():
            for modules in account.meter.watched().values():
                for module in modules:
                    first = owners.setdefault(module, agent)
                    if first != agent:
                        raise MeterError(
                            f"the meters of {first!r} and {agent!r} watch the same {type(module).__name__}, so that "
                            "each of its forwards would be charged to both. Watch what agents share on a meter of its "
                            "own, get_meter('shared').watch(module), and after each call charge those that it acted "
                            "for: charge_agents('shared', agents, meter=...)."
                        )
        self._own_modules = True

    def same_meters(self, other: "TeamAccount") -> bool:
        """Return whether ``other`` reads the same meters.

        Raises:
            WrapperOrderError: some of them only, so that each would take what the other has to read.
        """
        ours = {agent: account.meter for agent, account in self.accounts.items()}
        theirs = {agent: account.meter for agent, account in other.accounts.items()}
        if (self._prefix is not None and self._prefix == other._prefix) or (ours and ours == theirs):
            return True
        both = [meter.name for meter in ours.values() if meter in theirs.values()]
        if both:
            raise WrapperOrderError(
                f"Two wrappers of a stack share some meters only, {both}: each would take what the other has to read. "
                "Give both the same meter=."
            )
        return False


def meter_name(prefix: str, agent: Agent) -> str:
    """Return the name of the meter that ``agent`` has under a prefix."""
    return f"{prefix}.{agent}"


def _require_own_meters(accounts: Mapping[Agent, StepAccount]) -> None:
    owners: dict[ComputeMeter, Agent] = {}
    for agent, account in accounts.items():
        first = owners.setdefault(account.meter, agent)
        if first != agent:
            raise ConfigError(
                f"meter gives {first!r} and {agent!r} the same meter {account.meter.name!r}, so their costs could not "
                "be told apart. Give each its own; a module that they share charges them through charge_agents."
            )


class CostView:
    """What one wrapper has seen of a team's accounts.

    Args:
        env: what the wrapper wraps.
        meter: see ``MeterSource``.

    Attributes:
        account: shared by the stack.
        team_accounts: every account of the stack up to here; the wrapper publishes it under this name.
    """

    def __init__(self, env: Any, meter: MeterSource) -> None:
        self._env = env
        inner: tuple[TeamAccount, ...] = find_in_team(env, "team_accounts", ())
        wanted = TeamAccount(meter, agents_of(env))
        known = [account for account in inner if account.same_meters(wanted)]
        self.account = known[0] if known else wanted
        self.closes = not known
        self.team_accounts = inner if known else (*inner, wanted)
        self._seen: dict[Agent, int] = {}

    def restart(self) -> None:
        """Start an episode, after the inner reset: what was pending ran before it."""
        if self.closes:
            self.account.restart(getattr(self._env, "agents", ()))
        self._seen = {}

    def read(self, agent: Agent) -> int:
        """Return the FLOPs that ``agent`` has spent since they were read last; once after each inner step."""
        account = self.account.of(agent)
        self.account.require_own_modules()
        total = account.collect() if self.closes else account.total
        cost, self._seen[agent] = total - self._seen.get(agent, 0), total
        return cost

    def drop(self, agent: Agent) -> None:
        """Drop what is pending of an agent that has ended: what a dead agent computes is executed and not charged."""
        if self.closes:
            self.account.of(agent).meter.discard()


def charge_agents(shared: str | ComputeMeter, agents: Iterable[Agent], meter: MeterSource = "policy") -> None:
    """Charge what a module that several agents share has just cost to those that it acted for, in equal parts.

    Watch the module on a meter of its own. After one agent's call pass that agent; after one batch for all of them pass
    them in any order: every row of a batch costs the same.

    Args:
        shared: the meter, or its name, that watches the module; what is pending on it is taken.
        agents: who acted.
        meter: as given to the wrappers.

    Raises:
        ConfigError: there are no agents, or a mapping of meters lacks one.
        MeterError: the module acted for another number of observations than there are agents.

    Example:
        >>> import torch
        >>> from budget_wrappers.metering import get_meter
        >>> actor, everyone = torch.nn.Linear(4, 2), ["agent_0", "agent_1"]
        >>> with get_meter("docs.shared").watch(actor), torch.no_grad():
        ...     _ = actor(torch.zeros(2, 4))
        >>> charge_agents("docs.shared", everyone, meter="docs.team")
        >>> get_meter("docs.team.agent_0").pending_flops, get_meter("docs.team.agent_1").pending_flops
        (16, 16)
    """
    source, names = resolve_meter(shared), list(agents)
    if not names:
        raise ConfigError("agents is empty; expected those that the shared module has acted for.")
    spend = source.take()
    if spend.rows not in (0, 1, len(names)):
        raise MeterError(
            f"Meter {source.name!r} was charged for a batch of {spend.rows} observations and {len(names)} agents are "
            "to pay for it; expected one each, or one call for one agent."
        )
    each_pays, rest = divmod(spend.charged, len(names))
    for number, agent in enumerate(names):
        own = get_meter(meter_name(meter, agent)) if isinstance(meter, str) else _of_mapping(meter, agent)
        own.add(each_pays + (number < rest), source.name)


def _of_mapping(meter: Mapping[Any, str | ComputeMeter], agent: Agent) -> ComputeMeter:
    require_each(meter, (agent,), "meter")
    return resolve_meter(meter[agent])


__all__ = ["CostView", "MeterSource", "TeamAccount", "charge_agents", "meter_name"]
