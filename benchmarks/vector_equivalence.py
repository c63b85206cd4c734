"""Runs the same episodes in a batch and singly and compares what they cost, to the digit: 10^5 vector steps a mode.

The policy's cost is a function of the observation, an integer up to 10^9, another one for each row. In a batch the
vector ``RecordComputeStatistics`` reads the meter, singly the scalar one; episodes have random lengths. Compared are
each episode's account and the sum over all steps, in each autoreset mode, with environments in this process and in
workers. What ran is counted a third time, by the policy itself.

    python -m benchmarks.vector_equivalence --steps 100000
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from benchmarks.card import RESULTS, store
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import RecordComputeStatistics, vector

LARGEST_COST = 10**9
END_PROBABILITY = 0.05


class FickleEnv(gym.Env):
    """Shows a random number and ends at random."""

    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start."""
        super().reset(seed=seed)
        return self.np_random.random(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step."""
        observation, chance = self.np_random.random(1), self.np_random.random()
        return observation, 1.0, bool(chance < END_PROBABILITY / 2), bool(chance > 1 - END_PROBABILITY / 2), {}


def costs_of(observations: np.ndarray) -> np.ndarray:
    """Return the FLOPs of acting on each observation."""
    return (observations[:, 0] * LARGEST_COST).astype(np.int64)


@dataclass
class Batch:
    """What a batch has cost.

    Attributes:
        costs: sum over the steps of each environment, FLOPs.
        steps: of each environment that are steps of an episode.
        episodes: FLOPs of each ended episode of each environment.
        executed: by the policy's own count.
        wasted: of it on rows that only reset.
    """

    costs: list[int]
    steps: list[int]
    episodes: list[list[int]]
    executed: int = 0
    wasted: int = 0


def charge(meter: ComputeMeter, costs: np.ndarray, way: int) -> None:
    """Charge the rows in one of three ways: as a batch, row by row, or in two halves that are added up."""
    if way == 0:
        meter.add(int(costs.sum()), rows=len(costs), by_row=costs)
    elif way == 1:
        for cost in costs.tolist():
            meter.add(cost)
    else:
        for part in (costs // 2, costs - costs // 2):
            meter.add(int(part.sum()), rows=len(costs), by_row=part)


def run_batch(envs: VectorEnv, mode: str, meter: ComputeMeter, steps: int, seed: int) -> Batch:
    """Step ``envs`` and add up what the infos say."""
    n, rng = envs.num_envs, np.random.default_rng(seed)
    total, counted = np.zeros(n, np.int64), np.zeros(n, np.int64)
    batch = Batch([0] * n, [0] * n, [[] for _ in range(n)])
    resetting = np.zeros(n, bool)
    observations, infos = envs.reset(seed=seed)
    for _ in range(steps):
        costs = costs_of(observations)
        batch.executed += int(costs.sum())
        batch.wasted += int(costs[resetting].sum())
        charge(meter, costs, int(rng.integers(3)))
        observations, _, terminations, truncations, infos = envs.step(np.zeros(n, np.int64))
        over = terminations | truncations
        total += infos["cost"].astype(np.int64)
        counted += ~resetting
        if over.any():
            last = infos["final_info"] if mode == "SameStep" else infos
            if mode == "SameStep":
                total += last["cost"].astype(np.int64)
            for row in np.flatnonzero(over & last["_compute"]):
                batch.episodes[row].append(int(last["compute"]["flops"][row]))
            if mode == "Disabled":
                observations, _ = envs.reset(options={"reset_mask": over.copy()})
        resetting = over if mode == "NextStep" else resetting
    envs.close()
    batch.costs, batch.steps = total.tolist(), counted.tolist()
    return batch


def run_single(steps: int, seed: int) -> tuple[int, list[int]]:
    """Return FLOPs of ``steps`` steps of one environment with the scalar wrapper, and of each ended episode."""
    meter = ComputeMeter("equivalence")
    env = RecordComputeStatistics(FickleEnv(), meter)
    total, episodes = 0, []
    observation, _ = env.reset(seed=seed)
    for _ in range(steps):
        meter.add(int(costs_of(observation[None])[0]))
        observation, _, terminated, truncated, info = env.step(0)
        total += int(info["cost"])
        if terminated or truncated:
            episodes.append(int(info["compute"]["flops"]))
            observation, _ = env.reset()
    return total, episodes


def compare(make: Callable[..., VectorEnv], mode: str, steps: int, num_envs: int = 4, seed: int = 0) -> dict[str, Any]:
    """Return what a batch and its environments run singly have cost, and where they differ."""
    started = time.perf_counter()
    meter = ComputeMeter("equivalence")
    envs = make([FickleEnv] * num_envs, autoreset_mode=AutoresetMode(mode))
    batch = run_batch(vector.RecordComputeStatistics(envs, meter), mode, meter, steps, seed)
    mismatches = []
    for row in range(num_envs):
        total, episodes = run_single(batch.steps[row], seed + row)
        if (total, episodes) != (batch.costs[row], batch.episodes[row]):
            mismatches.append({"environment": row, "single": total, "batch": batch.costs[row]})
    if (meter.executed, meter.uncharged) != (batch.executed, batch.wasted):
        mismatches.append({"meter": [meter.executed, meter.uncharged], "policy": [batch.executed, batch.wasted]})
    if meter.executed - meter.uncharged != sum(batch.costs):
        mismatches.append({"charged": meter.executed - meter.uncharged, "infos": sum(batch.costs)})
    return {
        "vector_steps": steps,
        "environments": num_envs,
        "episodes": sum(map(len, batch.episodes)),
        "flops_in_infos": sum(batch.costs),
        "flops_executed": batch.executed,
        "flops_on_rows_that_reset": batch.wasted,
        "mismatches": mismatches,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> int:
    """Compare in every mode, store what was found and return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="vector steps in each mode; a tenth with workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "vector" / "equivalence.json")
    arguments = parser.parse_args()
    record = {
        f"{make.__name__}/{mode.name}": compare(make, mode.value, steps, seed=arguments.seed)
        for make, steps in ((SyncVectorEnv, arguments.steps), (AsyncVectorEnv, arguments.steps // 10))
        for mode in AutoresetMode
    }
    path = store(arguments.output, {"seed": arguments.seed, "largest_cost": LARGEST_COST, **record})
    mismatches = sum(len(entry["mismatches"]) for entry in record.values())
    print(f"{path}: {mismatches} mismatches in {sum(entry['episodes'] for entry in record.values())} episodes")
    return int(mismatches > 0)


if __name__ == "__main__":
    raise SystemExit(main())
