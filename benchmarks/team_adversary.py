"""Tries to make a team overspend: random teams, limits, horizons, deaths, selectors and orders of turns.

Over ``SubPolicyAction`` neither a team nor one of its agents may execute more FLOPs, selectors' included, than its
limit, in either of PettingZoo's APIs. Around opaque policies a limit may be passed by what one step costs, and that has
to be reported. What ran is counted twice: by the meters, and by the policies themselves, which know nothing of meters.

    python -m benchmarks.team_adversary --steps 100000
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import parallel_to_aec

from benchmarks.card import RESULTS, store
from benchmarks.limit_adversary import MODES, adversarial_choice
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers.multi_agent import aec, parallel

OBSERVATION, ACTION = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)


class FickleTeam(ParallelEnv):
    """Its agents die at random, one by one or all at once, and at the horizon at the latest."""

    render_mode = None

    def __init__(self, agents: int, end_probability: float, horizon: int) -> None:
        """Set who plays, the probability that a step is an agent's last, and the steps that there are at most."""
        self.metadata = {"name": "fickle_team", "is_parallelizable": True}
        self.possible_agents = [f"agent_{number}" for number in range(agents)]
        self._end_probability, self._horizon, self.steps = end_probability, horizon, 0

    def observation_space(self, agent: str) -> spaces.Space:
        """Return one number."""
        return OBSERVATION

    def action_space(self, agent: str) -> spaces.Space:
        """Return two actions."""
        return ACTION

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Start."""
        self._rng, self.agents, self._taken = np.random.default_rng(seed), list(self.possible_agents), 0
        return {agent: np.zeros(1, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        """Step."""
        self.steps += 1
        self._taken += 1
        live, all_end = self.agents, bool(self._rng.random() < self._end_probability / 4)
        terminations = {agent: all_end or bool(self._rng.random() < self._end_probability) for agent in live}
        truncations = dict.fromkeys(live, self._taken >= self._horizon)
        self.agents = [agent for agent in live if not (terminations[agent] or truncations[agent])]
        observations = {agent: np.zeros(1, np.float32) for agent in live}
        return observations, dict.fromkeys(live, 1.0), terminations, truncations, {agent: {} for agent in live}


class FickleTurns(AECEnv):
    """Whose turn it is is drawn at random, so that some agents act more often than others; so are deaths."""

    render_mode = None

    def __init__(self, agents: int, end_probability: float) -> None:
        """Set who plays, and the probability that a turn is somebody's last."""
        super().__init__()
        self.metadata = {"name": "fickle_turns"}
        self.possible_agents = [f"agent_{number}" for number in range(agents)]
        self._end_probability, self.steps = end_probability, 0

    def observation_space(self, agent: str) -> spaces.Space:
        """Return one number."""
        return OBSERVATION

    def action_space(self, agent: str) -> spaces.Space:
        """Return two actions."""
        return ACTION

    def observe(self, agent: str) -> Any:
        """Return nothing new."""
        return np.zeros(1, np.float32)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start."""
        self._rng, self.agents = np.random.default_rng(seed), list(self.possible_agents)
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self._skip_agent_selection = None
        self.agent_selection = str(self._rng.choice(self.agents))

    def step(self, action: Any) -> None:
        """Take a turn."""
        if self.terminations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self.steps += 1
        if self._rng.random() < self._end_probability:
            self.terminations[str(self._rng.choice(self.agents))] = True
        live = [agent for agent in self.agents if not self.terminations[agent]]
        if live:
            self.agent_selection = str(self._rng.choice(live))
        self._deads_step_first()


@dataclass
class Ran:
    """FLOPs that really ran, by agent, as the policies and selectors themselves count them."""

    flops: Counter[str] = field(default_factory=Counter)

    def policy(self, agent: str, cost: int, name: str) -> FunctionPolicy:
        """Return a sub-policy that notes each of its calls."""

        def act(observation: Any) -> int:
            self.flops[agent] += cost
            return 0

        return FunctionPolicy(act, flops=cost, name=name)


@dataclass
class Outcome:
    """What a campaign has found.

    Attributes:
        steps: environment steps; turns in the AEC interface.
        episodes: by API and mode.
        violations: of the law, each with the numbers to reproduce it.
        closest: over choosers, the greatest share of its limit that a team has executed; around opaque policies the
            greatest overshoot as a share of what its last step cost.
        held: episodes in which an action was repeated.
        allocated: steps whose choices the linear program made.
    """

    steps: int = 0
    episodes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    closest: float = 0.0
    held: int = 0
    allocated: int = 0


@dataclass
class Trial:
    """One random team under random limits, and what to attack it with.

    Attributes:
        env: its outermost layer.
        limited: the limit in it.
        base: the environment itself.
        ran: what really ran.
        meters: of each agent.
        selector: declared FLOPs of a choice of each agent.
        choices: number of sub-policies of each agent.
        parameters: to reproduce it.
    """

    env: Any
    limited: Any
    base: Any
    ran: Ran
    meters: dict[str, ComputeMeter]
    selector: dict[str, int]
    choices: dict[str, int]
    parameters: dict[str, Any]

    def choose(self, rng: np.random.Generator, kind: str, agent: str, step: int) -> int:
        """Run the selector of ``agent``, at most at its declared cost, and return what it asks for."""
        most = self.selector[agent]
        flops = most if rng.random() < 0.8 else int(rng.integers(most + 1))
        self.ran.flops[agent] += flops
        self.meters[agent].add(flops, "selector")
        return adversarial_choice(kind, rng, self.choices[agent], step)


def draw(rng: np.random.Generator, ran: Ran | None = None) -> Trial:
    """Return a random trial; limits lie between the least that is feasible and what the dearest choices cost.

    Args:
        rng: draws.
        ran: makes the sub-policies and counts what they run.
    """
    count, horizon, mode = int(rng.integers(1, 6)), int(rng.integers(1, 31)), str(rng.choice(MODES))
    api, end = str(rng.choice(["parallel", "cycles", "turns"])), float(rng.choice([0.0, 0.02, 0.1]))
    agents, ran = [f"agent_{number}" for number in range(count)], Ran() if ran is None else ran
    costs = {
        agent: sorted(int(cost) for cost in np.exp(rng.uniform(0, 14, int(rng.integers(1, 5))))) for agent in agents
    }
    selector = {agent: int(rng.choice([0, 0, 1, int(np.exp(rng.uniform(0, 10)))])) for agent in agents}
    meters = {agent: ComputeMeter(agent) for agent in agents}
    kept = {a: costs[a][0] + selector[a] * (horizon if mode in ("cheapest", "hold") else 1) for a in agents}
    path = {a: horizon * (costs[a][0] + selector[a]) for a in agents}
    dearest = {a: horizon * (costs[a][-1] + selector[a]) for a in agents}

    def limit(least: int, cheapest: int, most: int) -> int:
        high = int(rng.choice([least, cheapest, cheapest + 1, most + 1]))
        return max(1, int(rng.integers(least, max(high, least) + 1)))

    team = limit(*(sum(each.values()) for each in (kept, path, dearest))) if rng.random() < 0.8 else None
    limited_agents = [a for a in agents if team is None or rng.random() < 0.3]
    own = {a: limit(kept[a], path[a], dearest[a]) for a in limited_agents}
    kinds = parallel if api == "parallel" else aec
    env: Any = FickleTurns(count, end) if api == "turns" else FickleTeam(count, end, horizon)
    base = env
    if api == "cycles":
        env = parallel_to_aec(env)
    policies = {a: [ran.policy(a, cost, f"p{k}") for k, cost in enumerate(costs[a])] for a in agents}
    env = kinds.SubPolicyAction(env, policies, meter=meters, selector_flops=selector)
    if rng.random() < 0.2:
        env = kinds.ComputePenaltyReward(env, 1e-3, meter=meters)
    limited = env = kinds.ComputeLimit(env, own or None, team, mode, meter=meters, horizon=horizon)
    if rng.random() < 0.3:
        env = kinds.BudgetAwareObservation(env)
    if rng.random() < 0.3:
        env = kinds.RecordComputeStatistics(env, meter=meters)
    parameters = {
        "api": api, "mode": mode, "horizon": horizon, "costs": costs, "selector": selector, "team": team, "own": own,
        "path": path, "end": end,
    }  # fmt: skip
    return Trial(env, limited, base, ran, meters, selector, {a: len(costs[a]) for a in agents}, parameters)


def play(trial: Trial, rng: np.random.Generator, outcome: Outcome) -> str:
    """Run one episode and return which adversary chose."""
    kind, env, step = str(rng.choice(["dearest", "alternating", "saves_then_splurges", "random"])), trial.env, 0
    by_program = trial.parameters["api"] == "parallel" and rng.random() < 0.3
    spread = bool(rng.random() < 0.5)
    env.reset(seed=int(rng.integers(2**31)))
    if trial.parameters["api"] == "parallel":
        while env.agents:
            actions = {agent: trial.choose(rng, kind, agent, step) for agent in env.agents}
            if by_program:
                values = {agent: rng.normal(size=trial.choices[agent]) for agent in env.agents}
                actions = env.allocate(values, spread)
                outcome.allocated += 1
            env.step(actions)
            step += 1
        return kind
    while env.agents:
        agent = env.agent_selection
        ended = env.terminations[agent] or env.truncations[agent]
        env.step(None if ended else trial.choose(rng, kind, agent, step))
        step += 1
    return kind


def hard_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode under hard limits and note what it did."""
    trial = draw(rng)
    kind = play(trial, rng, outcome)
    parameters, executed = trial.parameters, trial.ran.flops
    team, own, held = parameters["team"], parameters["own"], trial.limited.team_report()["held_steps"]
    outcome.steps += trial.base.steps
    outcome.episodes[f"{parameters['api']}/{parameters['mode']}"] += 1
    outcome.held += held > 0
    total = sum(executed.values())
    affordable = (team is None or team >= sum(parameters["path"].values())) and all(
        limit >= parameters["path"][agent] for agent, limit in own.items()
    )
    problem = None
    if team is not None and total > team:
        problem = "the team executed more than its limit"
    elif any(executed[agent] > limit for agent, limit in own.items()):
        problem = "an agent executed more than its limit"
    elif any(meter.totals["act"] != executed[agent] for agent, meter in trial.meters.items()):
        problem = "a meter and the policies disagree"
    elif team is not None and (trial.limited.overshoot() or trial.limited.remaining() != team - total):
        problem = "the limit reports something else than what ran"
    elif parameters["mode"] == "cheapest" and affordable and held > 0:
        problem = "held although the cheapest path was affordable"
    elif parameters["mode"] in ("truncate", "terminate") and held > 0:
        problem = "held in a mode that ends the episode instead"
    if problem:
        outcome.violations.append({"problem": problem, "executed": dict(executed), "kind": kind, **parameters})
    elif team is not None:
        outcome.closest = max(outcome.closest, total / team)


def opaque_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode of policies that act outside, and check that limits are passed by one step at most."""
    count, horizon, mode = int(rng.integers(1, 6)), int(rng.integers(1, 81)), str(rng.choice(MODES[2:]))
    api, limit = str(rng.choice(["parallel", "cycles"])), int(np.exp(rng.uniform(0, 14)))
    base = FickleTeam(count, float(rng.choice([0.0, 0.05])), horizon)
    meters = {agent: ComputeMeter(agent) for agent in base.possible_agents}
    kinds, env = (parallel, base) if api == "parallel" else (aec, parallel_to_aec(base))
    env = kinds.ComputeLimit(env, team_max_flops=limit, on_exhausted=mode, meter=meters)
    env.reset(seed=int(rng.integers(2**31)))
    executed = 0

    def charge(agent: str) -> int:
        flops = int(np.exp(rng.uniform(0, 14))) - 1
        meters[agent].add(flops)
        return flops

    while env.agents:
        before = executed
        if api == "parallel":
            executed += sum(charge(agent) for agent in env.agents)
            env.step(dict.fromkeys(env.agents, 0))
        else:
            ended = env.terminations[env.agent_selection] or env.truncations[env.agent_selection]
            executed += 0 if ended else charge(env.agent_selection)
            env.step(None if ended else 0)
        passed = max(executed - limit, 0)
        if env.overshoot() != passed or passed > max(executed - before, 0) > 0:
            outcome.violations.append(
                {"problem": "opaque policies passed a limit by more than one step, or unreported", "api": api}
                | {"mode": mode, "executed": executed, "limit": limit, "reported": env.overshoot()}
            )
        if executed > before:
            outcome.closest = max(outcome.closest, passed / (executed - before))
    outcome.steps += base.steps
    outcome.episodes[f"{api}/{mode}"] += 1


def campaign(steps: int, seed: int, episode: Callable[[np.random.Generator, Outcome], None]) -> Outcome:
    """Run episodes until ``steps`` environment steps have been made."""
    rng, outcome = np.random.default_rng(seed), Outcome()
    while outcome.steps < steps:
        episode(rng, outcome)
    return outcome


def main() -> int:
    """Run both campaigns, store what they found and return 1 if the law was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of the hard campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "team" / "adversary.json")
    arguments = parser.parse_args()
    hard = campaign(arguments.steps, arguments.seed, hard_episode)
    opaque = campaign(arguments.steps // 10, arguments.seed + 1, opaque_episode)
    record = {
        name: {
            "steps": outcome.steps,
            "episodes": dict(sorted(outcome.episodes.items())),
            "episodes_total": sum(outcome.episodes.values()),
            "violations": len(outcome.violations),
            "first_violations": outcome.violations[:5],
            closest: outcome.closest,
            "episodes_with_held_steps": int(outcome.held),
            "steps_allocated_by_the_program": outcome.allocated,
        }
        for name, closest, outcome in (
            ("hard", "greatest_share_of_a_team_limit_executed", hard),
            ("opaque", "greatest_overshoot_as_share_of_the_last_step", opaque),
        )
    }
    path = store(arguments.output, {"seed": arguments.seed, **record})
    print(f"{path}: {len(hard.violations)} + {len(opaque.violations)} violations")
    return int(bool(hard.violations or opaque.violations))


if __name__ == "__main__":
    raise SystemExit(main())
