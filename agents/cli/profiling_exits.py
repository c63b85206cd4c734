"""``budget profile`` of a policy with early exits: on states that it visits, and judged by its slowest exit.

What one action costs depends on the state, so one state says nothing: states are those of some episodes.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.loop.agent import OffPolicyAgent
from agents.loop.evaluate import meters_of
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.metering import Energy, Latency, Profile, measure_latency, profile

EPISODES, MOST_STEPS = 5, 5_000


@dataclass(frozen=True)
class Visited:
    """States of seeded episodes, and what acting in them took.

    Attributes:
        observations: one a step.
        episodes: that ended, or were cut at ``MOST_STEPS`` in all.
        seed: of the first of them.
        flops_per_step: mean.
        shares: of the steps that each exit acted in.
    """

    observations: list[Any]
    episodes: int
    seed: int
    flops_per_step: float
    shares: tuple[float, ...]

    def words(self) -> str:
        """Return which states these are."""
        return f"{len(self.observations):,} states of {self.episodes} episodes, seeds from {self.seed} on"


def exits_of(policy: Any) -> ExitForward | None:
    """Return the exits through which a policy acts, ``None`` for one without exits or gates."""
    found = policy.exits if isinstance(policy, BudgetedExitPolicy) else None
    if isinstance(policy, OffPolicyAgent):
        found = next(
            (held.exits for held in policy.methods if isinstance(getattr(held, "exits", None), ExitForward)), None
        )
    return found if found is not None and len(found.names) > 1 else None


def visit(policy: Any, exits: ExitForward, env: gym.Env, seed: int) -> Visited:
    """Return the states of ``EPISODES`` episodes of ``policy``, with what each took."""
    observations: list[Any] = []
    counts = np.zeros(len(exits.names), dtype=np.int64)
    meters, episodes = meters_of(policy, env), 0
    before = sum(meter.totals["act"] for meter in meters)
    while episodes < EPISODES and len(observations) < MOST_STEPS:
        observation, _ = env.reset(seed=seed + episodes)
        over = False
        while not over and len(observations) < MOST_STEPS:
            observations.append(copy.deepcopy(observation))  # some environments write each one into the same array
            action, _ = policy.predict(observation, deterministic=True)
            counts[exits.taken] += 1
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        episodes += 1
    flops = sum(meter.totals["act"] for meter in meters) - before
    shares = tuple((counts / counts.sum()).tolist())
    return Visited(observations, episodes, seed, flops / len(observations), shares)


class InTurn:
    """A policy that acts on the next of some observations at each call, whatever it is given."""

    def __init__(self, policy: Any, observations: Sequence[Any]) -> None:
        self.policy, self.meter, self._turn = policy, policy.meter, itertools.cycle(observations)

    def predict(self, observation: Any = None, **settings: Any) -> Any:
        """Return what the policy does at the next observation."""
        return self.policy.predict(next(self._turn), deterministic=True)


def profile_of_exits(
    policy: Any, exits: ExitForward, states: Visited, options: Any, name: str
) -> tuple[Profile, dict[str, Profile]]:
    """Return the profile of the whole, and of each exit by its name.

    The whole has the mean FLOPs over the states, and the latency of its slowest exit, so that it fits a control rate
    only where every exit does.
    """
    turn = InTurn(policy, states.observations)
    mean = profile(
        turn, None, options.hz, samples=options.samples, threads=options.threads, watts=options.watts, name=name
    )
    mean = replace(
        mean,
        flops=round(states.flops_per_step),
        parameters=sum(parameter.numel() for parameter in exits.network.parameters()),
    )
    unknown = Energy(None, "unavailable", mean.energy.calls, mean.energy.seconds)
    by_exit = {}
    for way, exit_name in enumerate(exits.names):
        with exits.leaving_at(way), policy.meter.paused(), torch.no_grad():
            latency: Latency = measure_latency(turn.predict, samples=options.samples, threads=options.threads)
        one = replace(mean, policy=f"{exit_name} of {name}", flops=exits.flops[way], latency=latency, energy=unknown)
        by_exit[exit_name] = one
    slowest = max(by_exit.values(), key=lambda one: one.latency.p99_us)
    whole = replace(mean, latency=slowest.latency)
    return (whole if options.hz is None else whole.at(options.hz)), {"visited": mean, **by_exit}


def exit_lines(states: Visited, whole: Profile, by_exit: dict[str, Profile]) -> list[str]:
    """Return the lines about exits that the terminal shows."""
    lines = [f"  by exit           (share of {states.words()}; FLOPs; µs median, p95, p99)"]
    exits = {name: one for name, one in by_exit.items() if name != "visited"}
    for (name, one), share in zip(exits.items(), states.shares, strict=True):
        latency = one.latency
        times = f"{latency.p50_us:>10,.1f} {latency.p95_us:>10,.1f} {latency.p99_us:>10,.1f}"
        lines.append(f"  {name:<16}{100 * share:>8.1f} % {one.flops:>12,}{times}")
    slowest = next(name for name, one in exits.items() if one.latency == whole.latency)
    return [
        *lines,
        f"  FLOPs and latency above: acting in these states; a control rate is judged by {slowest}, the slowest",
    ]
