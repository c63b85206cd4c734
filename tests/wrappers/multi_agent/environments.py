"""A team whose rewards and ends are known, sub-policies of known cost, and stacks of all wrappers."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from budget_wrappers.metering import get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers.multi_agent import aec, parallel
from budget_wrappers.wrappers.multi_agent.layers import find_in_team

STEPS = 4
CHEAP, DEAR = 10, 40
AGENTS = ("agent_0", "agent_1", "agent_2")
PATH = len(AGENTS) * STEPS * CHEAP
"""What the cheapest sub-policies of all cost in an episode: 120."""


class Team(ParallelEnv):
    """Three agents; the reward of step n is n for all; agents in ``deaths`` terminate at a step of their own."""

    metadata: ClassVar = {"name": "team", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(self, max_cycles: int = STEPS, deaths: dict[str, int] | None = None, shape: Any = (2,)) -> None:
        self.possible_agents = list(AGENTS)
        self.max_cycles = max_cycles
        self._deaths = deaths or {}
        self._observation = spaces.Box(-1.0, 1.0, shape, np.float32)
        self._actions = {agent: spaces.Box(-1.0, 1.0, (1,), np.float32) for agent in AGENTS}
        self.taken: list[dict[str, float]] = []
        self.resets: list[tuple[Any, Any]] = []

    def observation_space(self, agent: str) -> spaces.Space:
        return self._observation

    def action_space(self, agent: str) -> spaces.Space:
        return self._actions[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self.agents = list(AGENTS)
        self.taken = []
        self.resets.append((seed, options))
        return self._observe(), {agent: {} for agent in self.agents}

    def _observe(self) -> dict[str, Any]:
        return {agent: np.full(self._observation.shape, 0.25, np.float32) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        self.taken.append({agent: float(np.asarray(action)[0]) for agent, action in actions.items()})
        step, live = len(self.taken), self.agents
        terminations = {agent: self._deaths.get(agent) == step for agent in live}
        truncations = {agent: step >= self.max_cycles and not terminations[agent] for agent in live}
        observations = self._observe()
        self.agents = [agent for agent in live if not (terminations[agent] or truncations[agent])]
        return observations, dict.fromkeys(live, float(step)), terminations, truncations, {agent: {} for agent in live}

    def render(self) -> None: ...

    def close(self) -> None: ...


def turns(*args: Any, **kwargs: Any) -> AECEnv:
    """Return the same team one after the other, as PettingZoo's environments come: of no use before a reset."""
    return OrderEnforcingWrapper(parallel_to_aec(Team(*args, **kwargs)))


class Legal:
    """A sub-policy that takes the first legal action of a space; not a closure, so that it can be pickled."""

    def __init__(self, space: spaces.Space, value: float) -> None:
        self._space, self._value = space, value

    def __call__(self, observation: Any) -> Any:
        if isinstance(observation, dict) and "action_mask" in observation:
            return int(observation["action_mask"].argmax())
        if isinstance(self._space, spaces.Discrete):
            return 0
        return np.full(self._space.shape, self._value, self._space.dtype)


def sub_policies(env: Any) -> dict[Any, list[FunctionPolicy]]:
    """Return for each agent a cheap sub-policy, whose actions are 0.1, and a dear one, 0.4."""
    return {
        agent: [
            FunctionPolicy(Legal(env.action_space(agent), 0.1), CHEAP, "cheap"),
            FunctionPolicy(Legal(env.action_space(agent), 0.4), DEAR, "dear"),
        ]
        for agent in env.possible_agents
    }


def use_meters(env: Any, prefix: str = "policy") -> None:
    """Say that the agents' meters are connected."""
    for agent in env.possible_agents:
        get_meter(f"{prefix}.{agent}").add(0)


def of_kind(env: Any) -> Any:
    """Return the wrappers for the API of ``env``."""
    return parallel if isinstance(env, ParallelEnv) else aec


def over_choices(env: Any, horizon: int = 5) -> Any:
    """Return every wrapper over SubPolicyAction, with limits that bind."""
    use_meters(env)
    kind, count = of_kind(env), len(env.possible_agents)
    env = kind.SubPolicyAction(env, sub_policies(env))
    env = kind.ComputeLimit(
        env, max_flops=3 * DEAR + horizon * CHEAP, team_max_flops=count * horizon * CHEAP + 2 * DEAR, horizon=horizon
    )
    return kind.RecordComputeStatistics(kind.ComputePenaltyReward(kind.BudgetAwareObservation(env), 0.01))


def opaque(env: Any) -> Any:
    """Return every wrapper that fits around policies outside."""
    use_meters(env)
    kind = of_kind(env)
    env = kind.ComputeLimit(env, team_max_flops=10_000, on_exhausted="truncate")
    env = kind.RecordComputeStatistics(kind.BudgetAwareObservation(env))
    return kind.ComputePenaltyReward(env, 0.01, shared=True)


STACKS: dict[str, Callable[[Any], Any]] = {
    "record": lambda env: (use_meters(env), of_kind(env).RecordComputeStatistics(env))[1],
    "penalty": lambda env: of_kind(env).ComputePenaltyReward(env, 0.01),
    "options": lambda env: of_kind(env).SubPolicyAction(env, sub_policies(env)),
    "over_choices": over_choices,
    "opaque": opaque,
}


def play(env: Any, choose: Callable[[Any, int], Any], charge: Callable[[Any, int], int] = lambda a, n: 0) -> list[Any]:
    """Play one episode with ``choose(agent, n)`` as the n-th action of an agent; return infos by step.

    Args:
        env: either API; its meters are those of the prefix "policy".
        choose: agent and number of its action, from 0.
        charge: what computing that action costs.
    """
    use_meters(env)
    infos: list[Any] = []
    if isinstance(env, ParallelEnv):
        env.reset(seed=0)
        while env.agents:
            for agent in env.agents:
                get_meter(f"policy.{agent}").add(charge(agent, len(infos)))
            infos.append(env.step({agent: choose(agent, len(infos)) for agent in env.agents})[-1])
        return infos
    env.reset(seed=0)
    count = dict.fromkeys(env.possible_agents, 0)
    for agent in env.agent_iter():
        _, _, terminated, truncated, info = env.last()
        infos.append((agent, info))
        if terminated or truncated:
            env.step(None)
            continue
        get_meter(f"policy.{agent}").add(charge(agent, count[agent]))
        env.step(choose(agent, count[agent]))
        count[agent] += 1
    return infos


def limited(make: Any, selector: int = 0, deaths: dict[str, int] | None = None, **limits: Any) -> Any:
    """Return a team that chooses cheap (10) and dear (40) sub-policies under a limit."""
    env = make(deaths=deaths)
    kind = of_kind(env)
    use_meters(env)
    return kind.ComputeLimit(kind.SubPolicyAction(env, sub_policies(env), selector_flops=selector), **limits)


def ran(infos: list[Any]) -> dict[str, list[int]]:
    """Return the sub-policies that each agent ran, in order."""
    found: dict[str, list[int]] = {agent: [] for agent in AGENTS}
    if isinstance(infos[0], tuple):
        for agent, info in infos:
            found[agent].append(int(info["option"]))
        return {agent: options[1:] for agent, options in found.items()}  # the first one is from before its first turn
    for step in infos:
        for agent, info in step.items():
            found[agent].append(int(info["option"]))
    return found


def dear(agent: str, number: int) -> int:
    return 1


def spent(env: Any) -> int:
    """Return what the team has spent in this episode, by its accounts."""
    return sum(account.total() for account in find_in_team(env, "team_accounts"))
