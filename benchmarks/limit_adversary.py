"""Tries to break ``ComputeLimit``: random limits, horizons, holds, selectors and nestings, for 10^6 environment steps.

Over ``SubPolicyAction`` not one episode may execute more FLOPs, the selector's included, than its limit. Around an
opaque policy it may do so by what one step costs, and has to report that. What ran is counted twice: by the
meter, and by the policies themselves, which know nothing of meters.

    python -m benchmarks.limit_adversary --steps 1000000
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import StickyAction, TimeLimit

from benchmarks.card import RESULTS, store
from budget_wrappers.functional.options import path_flops
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import (
    ComputeLimit,
    ComputePenaltyReward,
    RecordComputeStatistics,
    SubPolicyAction,
)

RepeatAction = getattr(gym.wrappers, "RepeatAction", None)  # from Gymnasium 1.3 on

MODES = ("cheapest", "hold", "truncate", "terminate")


class FickleEnv(gym.Env):
    """Ends at random: after any step, with a probability of its own."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, end_probability: float) -> None:
        """Set the probability that a step terminates the episode."""
        self._end_probability = end_probability
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step."""
        self.steps += 1
        ended = bool(self.np_random.random() < self._end_probability)
        return np.zeros(1, np.float32), 1.0, ended, False, {}


@dataclass
class Tally:
    """FLOPs that really ran, as the policies themselves count them."""

    flops: int = 0

    def policy(self, cost: int, name: str) -> FunctionPolicy:
        """Return a sub-policy that notes each of its calls."""

        def act(observation: Any) -> int:
            self.flops += cost
            return 0

        return FunctionPolicy(act, flops=cost, name=name)


@dataclass
class Outcome:
    """What a campaign has found.

    Attributes:
        steps: environment steps.
        episodes: by kind of limit and mode.
        violations: of the law, each with the numbers to reproduce it.
        closest: over a chooser, the greatest share of its limit that an episode has executed; around an opaque policy,
            the greatest overshoot as a share of what its last step cost.
        held: episodes in which an action was repeated.
    """

    steps: int = 0
    episodes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    closest: float = 0.0
    held: int = 0


def adversarial_choice(kind: str, rng: np.random.Generator, count: int, step: int) -> int:
    """Return what an ill-meaning selector asks for."""
    if kind == "dearest":
        return count - 1
    if kind == "alternating":
        return (count - 1) * (step % 2)
    if kind == "saves_then_splurges":
        return 0 if step < 3 else count - 1
    return int(rng.integers(count))


def chooser_stack(
    rng: np.random.Generator, tally: Tally, meter: ComputeMeter
) -> tuple[ComputeLimit, gym.Env, dict[str, Any]]:
    """Return a random stack with a limit over ``SubPolicyAction``, its outermost layer, and its parameters."""
    count = int(rng.integers(1, 6))
    costs = [int(cost) for cost in np.exp(rng.uniform(0, 14, count))]
    if rng.random() < 0.1:
        costs[0] = 0
    durations = sorted({int(steps) for steps in rng.integers(1, 11, rng.choice([1, 1, 2, 3]))})
    horizon = int(rng.integers(1, 81))
    selector = int(rng.choice([0, 1, min(costs), int(np.exp(rng.uniform(0, 14)))]))
    hold = durations[-1]
    first = selector + min(durations[0], horizon) * min(costs)
    dearest = horizon * max(costs) + -(-horizon // hold) * selector
    cheapest_path = path_flops(horizon, hold, min(costs), selector)
    high = int(rng.choice([first, cheapest_path, cheapest_path + 1, dearest + 1]))
    limit = max(1, int(rng.integers(first, max(high, first) + 1)))
    if rng.random() < 0.3:  # one FLOP short of a row of the dearest: an error of one would show
        limit = max(first, 1, int(rng.integers(1, 5)) * (hold * max(costs) + selector) - 1)
    mode = str(rng.choice(MODES))

    env: gym.Env = FickleEnv(float(rng.choice([0.0, 0.01, 0.1])))
    by_wrapper = rng.random() < 0.5
    if by_wrapper:
        env = TimeLimit(env, horizon)
    env = SubPolicyAction(
        env,
        [tally.policy(cost, f"p{index}") for index, cost in enumerate(costs)],
        hold=durations,
        meter=meter,
        selector_flops=selector,
    )
    between = str(rng.choice(["nothing", "repeat", "sticky", "record", "penalty"], p=[0.4, 0.15, 0.15, 0.15, 0.15]))
    if between == "repeat":
        times = int(rng.integers(1, 4))
        env = env if RepeatAction is None else RepeatAction(env, times)
    elif between == "sticky":
        env = StickyAction(env, 0.5)
    elif between == "record":
        env = RecordComputeStatistics(env, meter=meter)
    elif between == "penalty":
        env = ComputePenaltyReward(env, 1e-3, meter=meter)
    limited = ComputeLimit(
        env, limit, mode, meter=meter, horizon=None if by_wrapper and rng.random() < 0.5 else horizon
    )
    outer: gym.Env = limited
    if between != "record" and rng.random() < 0.3:
        outer = RecordComputeStatistics(limited, meter=meter)
    parameters = {
        "costs": sorted(costs), "durations": durations, "horizon": horizon, "selector": selector,
        "limit": limit, "mode": mode,
        "between": between, "cheapest_path": cheapest_path,
    }  # fmt: skip
    return limited, outer, parameters


def hard_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode under a hard limit and note what it did."""
    tally, meter = Tally(), ComputeMeter("adversary")
    limited, env, parameters = chooser_stack(rng, tally, meter)
    kind = str(rng.choice(["dearest", "alternating", "saves_then_splurges", "random"]))
    count = len(parameters["costs"]) * len(parameters["durations"])
    before = meter.totals["act"]
    env.reset(seed=int(rng.integers(2**31)))
    ended, step = False, 0
    while not ended:
        selector = parameters["selector"] if rng.random() < 0.8 else int(rng.integers(parameters["selector"] + 1))
        tally.flops += selector
        meter.add(selector, "selector")
        _, _, terminated, truncated, _ = env.step(adversarial_choice(kind, rng, count, step))
        ended, step = terminated or truncated, step + 1
    limit, executed = parameters["limit"], tally.flops
    counted = meter.totals["act"] - before
    outcome.steps += env.unwrapped.steps
    outcome.episodes[f"hard/{parameters['mode']}"] += 1
    outcome.held += limited.limit_report()["held_steps"] > 0
    problem = None
    if executed > limit:
        problem = "executed more than the limit"
    elif counted != executed:
        problem = "the meter and the policies disagree"
    elif limited.overshoot or limited.remaining != limit - executed:
        problem = "the limit reports something else than what ran"
    elif (
        parameters["mode"] == "cheapest"
        and parameters["between"] in ("nothing", "record", "penalty")
        and limit >= parameters["cheapest_path"]
        and limited.limit_report()["held_steps"] > 0
    ):
        problem = "held although the cheapest path was affordable"
    if problem:
        outcome.violations.append(
            {"problem": problem, "executed": executed, "counted": counted, "kind": kind, **parameters}
        )
    else:
        outcome.closest = max(outcome.closest, executed / limit)


def opaque_episode(rng: np.random.Generator, outcome: Outcome) -> None:
    """Run one episode of a policy that acts outside, and check that the limit is passed by one step at most."""
    meter = ComputeMeter("adversary")
    horizon, limit = int(rng.integers(1, 81)), int(np.exp(rng.uniform(0, 14)))
    mode = str(rng.choice(MODES[1:]))
    env = ComputeLimit(
        TimeLimit(FickleEnv(float(rng.choice([0.0, 0.05]))), horizon), limit, mode, meter=meter, horizon=horizon
    )
    env.reset(seed=int(rng.integers(2**31)))
    executed, ended = 0, False
    while not ended:
        cost = int(np.exp(rng.uniform(0, 14))) - 1
        meter.add(cost, "policy")
        before, executed = executed, executed + cost
        _, _, terminated, truncated, _ = env.step(0)
        ended = terminated or truncated
        if before >= limit or env.overshoot != max(executed - limit, 0) or env.overshoot > cost:
            outcome.violations.append(
                {"problem": "an opaque policy passed its limit by more than one step, or unreported", "mode": mode}
                | {"executed": executed, "limit": limit, "reported": env.overshoot}
            )
        outcome.closest = max(outcome.closest, env.overshoot / max(cost, 1))
    outcome.steps += env.unwrapped.steps
    outcome.held += env.limit_report()["held_steps"] > 0
    outcome.episodes[f"opaque/{mode}"] += 1


def campaign(steps: int, seed: int, episode: Callable[[np.random.Generator, Outcome], None]) -> Outcome:
    """Run episodes until ``steps`` environment steps have been made."""
    rng, outcome = np.random.default_rng(seed), Outcome()
    while outcome.steps < steps:
        episode(rng, outcome)
    return outcome


def main() -> int:
    """Run both campaigns, store what they found and return 1 if the law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="environment steps of each campaign")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "limit" / "adversary.json")
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
        }
        for name, closest, outcome in (
            ("hard", "greatest_share_of_limit_executed", hard),
            ("opaque", "greatest_overshoot_as_share_of_the_last_step", opaque),
        )
    }
    path = store(arguments.output, {"seed": arguments.seed, **record})
    print(f"{path}: {len(hard.violations)} + {len(opaque.violations)} violations")
    return int(bool(hard.violations or opaque.violations))


if __name__ == "__main__":
    raise SystemExit(main())
