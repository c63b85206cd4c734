"""Tries to break ``ComputeLimit`` while everything inside it fails: 5 % of sub-policy calls, 5 % of environment steps.

The random stacks are those of ``limit_adversary`` and ``team_adversary``; wrappers between and selectors fail as well.
Whoever runs the environment catches the exception and goes on. It asks its selector again only where ``remaining`` pays
for that, and else steps without: then no hard limit may be passed, no error may blame the selector, what the limit
reports has to be what ran (counted by the policies themselves), and each episode has to come to its end. A vector limit
may be passed by what one step costs, its failed attempts included, and has to say so.

A caller that asks its selector again without looking may pass a limit, by one call of the selector at most: such calls
are counted apart, and ``overshoot`` has to report them.

    python -m benchmarks.limit_failures --decisions 150000
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from benchmarks.card import RESULTS, store
from benchmarks.limit_adversary import Tally, adversarial_choice, chooser_stack
from benchmarks.team_adversary import Ran, Trial, draw
from budget_wrappers.errors import BudgetError, CostError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import vector

KINDS = ("dearest", "alternating", "saves_then_splurges", "random")
OVERRUN = "executed more than the limit"
MOST_TRIES = 5_000
"""Steps and failed steps after which an episode counts as one that never ends."""


class InjectedError(RuntimeError):
    """A failure of this benchmark's making."""


@dataclass
class Chaos:
    """Makes calls fail.

    Attributes:
        rng: draws which.
        policy, environment, between, selector: shares of calls that fail.
        injected: failures so far, by what failed.
    """

    rng: np.random.Generator
    policy: float = 0.05
    environment: float = 0.05
    between: float = 0.01
    selector: float = 0.01
    injected: Counter[str] = field(default_factory=Counter)

    def strike(self, what: str, share: float) -> None:
        """Fail, or not."""
        if self.rng.random() < share:
            self.injected[what] += 1
            raise InjectedError(what)

    def unsettle(self, env: Any, what: str, share: float) -> None:
        """Make steps of ``env`` fail, half of them before and half of them after they were made."""
        step = env.step

        def flaky(*arguments: Any) -> Any:
            self.strike(f"{what}, before", share / 2)
            transition = step(*arguments)
            self.strike(f"{what}, after", share / 2)
            return transition

        env.step = flaky


@dataclass
class FlakyTally(Tally):
    """FLOPs that really ran in one environment; calls of its policies fail after they were counted."""

    chaos: Chaos | None = None

    def policy(self, cost: int, name: str) -> FunctionPolicy:
        """Return a sub-policy that notes each of its calls."""

        def act(observation: Any) -> int:
            self.flops += cost
            self.chaos.strike("sub-policy", self.chaos.policy)
            return 0

        return FunctionPolicy(act, flops=cost, name=name)


@dataclass
class FlakyRan(Ran):
    """The same of a team, by agent."""

    chaos: Chaos | None = None

    def policy(self, agent: str, cost: int, name: str) -> FunctionPolicy:
        """Return a sub-policy that notes each of its calls."""

        def act(observation: Any) -> int:
            self.flops[agent] += cost
            self.chaos.strike("sub-policy", self.chaos.policy)
            return 0

        return FunctionPolicy(act, flops=cost, name=name)


@dataclass
class Outcome:
    """What a campaign has found.

    Attributes:
        chaos: what failed.
        decisions: choices that were handed to ``step``; those that failed and were repeated count each.
        episodes: by kind of limit.
        overruns: episodes that have executed more than a hard limit; around vectors, more than one step too much.
        blamed: errors that name the selector.
        problems: everything that broke the law, those two included, each with the numbers to reproduce it.
        closest: the greatest share of a limit that an episode has executed.
    """

    chaos: Chaos
    decisions: int = 0
    episodes: Counter[str] = field(default_factory=Counter)
    overruns: int = 0
    blamed: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    closest: float = 0.0

    def judge(
        self, error: BudgetError | None, executed: int, limit: int, problem: str | None, trial: dict[str, Any]
    ) -> None:
        """Note how an episode went: the library's error that ended it, what it executed, or what else was wrong."""
        self.blamed += isinstance(error, CostError)
        self.overruns += executed > limit
        self.closest = max(self.closest, executed / limit)
        if error is not None:
            problem = f"{type(error).__name__}: {error}"
        elif problem is None and executed > limit:
            problem = OVERRUN
        if problem:
            self.problems.append({"problem": problem, "executed": executed, "limit": limit, **trial})


def single_episode(rng: np.random.Generator, outcome: Outcome, blind: bool = False) -> None:
    """Run one episode under a hard limit around a single environment.

    Args:
        rng: draws.
        outcome: of the campaign.
        blind: ask the selector again after each failure, whatever is left.
    """
    chaos = outcome.chaos
    tally, meter = FlakyTally(chaos=chaos), ComputeMeter("failures")
    limited, env, parameters = chooser_stack(rng, tally, meter)
    base = env.unwrapped
    chaos.unsettle(base, "environment", chaos.environment)
    chaos.unsettle(limited.env, "between", chaos.between)
    kind, most = str(rng.choice(KINDS)), parameters["selector"]
    choices = len(parameters["costs"]) * len(parameters["durations"])
    env.reset(seed=int(rng.integers(2**31)))
    unseen, asked, ended, failed, tries = 0, 0, False, False, 0
    error: BudgetError | None = None
    while not ended and error is None and tries < MOST_TRIES:
        tries += 1
        if blind or not failed or limited.remaining >= most:
            flops = most if rng.random() < 0.8 else int(rng.integers(most + 1))
            tally.flops += flops
            asked += flops
            meter.add(flops, "selector")
        try:
            chaos.strike("selector", chaos.selector)
            choice = adversarial_choice(kind, rng, choices, tries)
        except InjectedError:
            choice = int(rng.integers(choices))  # without asking again
        before, after = base.steps, chaos.injected["environment, after"]
        try:
            _, _, terminated, truncated, _ = env.step(choice)
            ended, failed = terminated or truncated, False
        except InjectedError:
            failed = True
        except BudgetError as raised:
            error = raised
        unseen += min(base.steps - before, chaos.injected["environment, after"] - after)
    outcome.decisions += tries
    outcome.episodes[parameters["mode"]] += 1
    executed, limit = tally.flops, parameters["limit"]
    flops_by_name, _, _ = limited.get_wrapper_attr("option_report")(executed)
    problem = None
    if meter.totals["act"] != executed or limited.remaining != max(limit - executed, 0):
        problem = "the meter, the limit and the policies disagree"
    elif limited.overshoot != max(executed - limit, 0):
        problem = "the limit reports another overshoot than there was"
    elif limited.episode.steps + unseen != base.steps:
        problem = "the limit has counted other steps than there were"
    elif flops_by_name["selector"] != asked:
        problem = "the selector is said to have cost what it has not"
    elif not ended:
        problem = "the episode does not come to an end"
    elif executed - limit > most:
        problem = "passed the limit by more than one call of the selector"
    outcome.judge(error, executed, limit, problem, {"kind": kind, **parameters})


def blind_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode of a caller that asks its selector again, whatever is left."""
    single_episode(rng, outcome, blind=True)


def affords(trial: Trial, agents: list[str]) -> bool:
    """Return whether what is left pays for the selectors of ``agents``, as a caller sees it."""
    parameters, selector = trial.parameters, trial.selector
    if parameters["team"] is not None and trial.limited.remaining() < sum(selector[agent] for agent in agents):
        return False
    return all(trial.limited.remaining(agent) >= selector[agent] for agent in agents if agent in parameters["own"])


def team_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode of a team under hard limits, in either of PettingZoo's interfaces."""
    chaos = outcome.chaos
    trial = draw(rng, FlakyRan(chaos=chaos))
    env, parallel = trial.env, trial.parameters["api"] == "parallel"
    chaos.unsettle(trial.base, "environment", chaos.environment)
    kind = str(rng.choice(KINDS))
    env.reset(seed=int(rng.integers(2**31)))
    failed, tries, error = False, 0, None
    while env.agents and error is None and tries < MOST_TRIES:
        tries += 1
        acting = list(env.agents) if parallel else [env.agent_selection]
        if not parallel and (env.terminations[acting[0]] or env.truncations[acting[0]]):
            with suppress(InjectedError):
                env.step(None)
            continue
        outcome.decisions += len(acting)
        if not failed or affords(trial, acting):
            actions = {agent: trial.choose(rng, kind, agent, tries) for agent in acting}
        else:
            actions = {agent: int(rng.integers(trial.choices[agent])) for agent in acting}
        try:
            env.step(actions if parallel else actions[acting[0]])
            failed = False
        except InjectedError:
            failed = True
        except BudgetError as raised:
            error = raised
    parameters, ran = trial.parameters, trial.ran.flops
    outcome.episodes[f"{parameters['api']}/{parameters['mode']}"] += 1
    spent = {"team": (sum(ran.values()), parameters["team"])} if parameters["team"] is not None else {}
    spent |= {agent: (ran[agent], limit) for agent, limit in parameters["own"].items()}
    worst = max(spent, key=lambda whose: spent[whose][0] / spent[whose][1])
    problem = None
    if any(meter.totals["act"] != ran[agent] for agent, meter in trial.meters.items()):
        problem = "a meter and the policies disagree"
    elif any(
        trial.limited.remaining(None if whose == "team" else whose) != max(limit - executed, 0)
        for whose, (executed, limit) in spent.items()
    ):
        problem = "the limit reports something else than what ran"
    elif env.agents:
        problem = "the episode does not come to an end"
    outcome.judge(error, *spent[worst], problem, {"whose": worst, "kind": kind, **parameters})


class RowEnv(gym.Env):
    """Shows which environment of a batch it is, and ends at random."""

    observation_space = gym.spaces.Box(0.0, 100.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, row: int, chaos: Chaos) -> None:
        """Set its number."""
        self._seen, self._chaos = np.full(1, row, np.float32), chaos

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start."""
        super().reset(seed=seed)
        return self._seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, or fail before anything is done."""
        self._chaos.strike("environment", self._chaos.environment / 4)  # four of them make one step
        return self._seen, 1.0, bool(self.np_random.random() < 0.02), False, {}


def vector_run(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run 200 steps of four environments under a vector limit around a vector ``SubPolicyAction``."""
    chaos, meter, n = outcome.chaos, ComputeMeter("failures"), 4
    mode = AutoresetMode(str(rng.choice(["NextStep", "SameStep", "Disabled"])))
    costs = sorted({int(cost) for cost in np.exp(rng.uniform(0, 14, 4))})
    limit = int(rng.integers(costs[0] + 1, 20 * costs[-1]))
    ran = np.zeros(n, np.int64)

    def policy(cost: int) -> FunctionPolicy:
        def act(observation: Any) -> int:
            ran[int(observation[0])] += cost
            chaos.strike("sub-policy", chaos.policy / 4)
            return 0

        return FunctionPolicy(act, cost, f"costs {cost}")

    envs: Any = SyncVectorEnv([lambda row=row: RowEnv(row, chaos) for row in range(n)], autoreset_mode=mode)
    envs = vector.SubPolicyAction(envs, [policy(cost) for cost in costs], meter=meter)
    envs = vector.ComputeLimit(envs, limit, meter=meter)
    envs.reset(seed=int(rng.integers(2**31)))
    over = np.zeros(n, bool)
    since, problem, error = ran.copy(), None, None  # `since`: what ran before each running episode
    closed = ran.copy()  # what had run at the last step that came to its end
    for _ in range(200):
        outcome.decisions += n
        try:
            _, _, terminations, truncations, _ = envs.step(rng.integers(len(costs), size=n))
        except InjectedError:
            continue
        except BudgetError as raised:
            error = raised
            break
        resetting = over if mode is AutoresetMode.NEXT_STEP else np.zeros(n, bool)
        since = np.where(resetting, ran, since)
        total, before = ran - since, closed - since
        passed = np.maximum(total - limit, 0)
        over = np.logical_or(terminations, truncations)
        if (before[~resetting] >= limit).any() or (over != over | (total >= limit)).any():
            problem = "an episode went on although its limit was exhausted"
        elif (envs.overshoot != passed).any() or (passed > ran - closed).any():
            problem = "a limit was passed by more than one step, or unreported"
        outcome.episodes[mode.value] += int(over.sum())
        closed = ran.copy()
        if mode is not AutoresetMode.NEXT_STEP:
            since = np.where(over, ran, since)
        if mode is AutoresetMode.DISABLED and over.any():
            envs.reset(options={"reset_mask": over.copy()})
    if meter.totals["act"] != ran.sum():
        problem = "the meter and the policies disagree"
    outcome.judge(error, 0, 1, problem, {"mode": mode.value, "costs": costs, "limit_of_each": limit})


def campaign(decisions: int, seed: int, episode: Callable[[np.random.Generator, Outcome], None]) -> Outcome:
    """Run episodes until ``decisions`` choices have been made."""
    rng = np.random.default_rng(seed)
    outcome = Outcome(Chaos(np.random.default_rng([seed, 1])))
    while outcome.decisions < decisions:
        episode(rng, outcome)
    return outcome


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return what a campaign has found, as JSON."""
    return {
        "decisions": outcome.decisions,
        "failures_injected": dict(sorted(outcome.chaos.injected.items())),
        "episodes": dict(sorted(outcome.episodes.items())),
        "episodes_total": sum(outcome.episodes.values()),
        "overruns": outcome.overruns,
        "errors_that_blame_the_selector": outcome.blamed,
        "problems": len(outcome.problems),
        "first_problems": outcome.problems[:5],
        "greatest_share_of_a_limit_executed": outcome.closest,
    }


def main() -> int:
    """Run all campaigns, store what they found and return 1 if the law was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=150_000, help="of the single and of the team campaign each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "limit" / "failures.json")
    arguments = parser.parse_args()
    decisions, seed = arguments.decisions, arguments.seed
    lawful = {
        "single": campaign(decisions, seed, single_episode),
        "team": campaign(decisions, seed + 1, team_episode),
        "vector": campaign(decisions // 3, seed + 2, vector_run),
    }
    blind = campaign(decisions // 10, seed + 3, blind_episode)
    silent = [one for one in blind.problems if one["problem"] != OVERRUN]
    record: dict[str, Any] = {name: summary(outcome) for name, outcome in lawful.items()}
    record["callers_that_ask_again_whatever_is_left"] = {
        **summary(blind), "problems": len(silent), "first_problems": silent[:5],
    }  # fmt: skip
    path = store(arguments.output, {"seed": seed, **record})
    found = sum(len(outcome.problems) for outcome in lawful.values()) + len(silent)
    print(f"{path}: {found} problems; {sum(outcome.overruns for outcome in lawful.values())} overruns")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
