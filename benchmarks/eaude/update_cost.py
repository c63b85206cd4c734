"""What an update of a population takes beside the plain agent's, in turns.

    python -m benchmarks.eaude.update_cost

Stores ``results/eaude/update_cost.json``: milliseconds of an update, the median of the turns' ratios, and the ratio of
the FLOPs that the meter counted.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

import gymnasium as gym
import torch

from agents import DQN, SAC, Population
from benchmarks.card import RESULTS, store

CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "dqn 2x32": (DQN, "CartPole-v1", {"net_arch": (32, 32)}),
    "dqn 2x256": (DQN, "CartPole-v1", {"net_arch": (256, 256)}),
    "dqn 2x512": (DQN, "CartPole-v1", {"net_arch": (512, 512)}),
    "sac 2x32": (SAC, "HalfCheetah-v5", {"net_arch": (32, 32)}),
    "sac 2x256": (SAC, "HalfCheetah-v5", {"net_arch": (256, 256)}),
}
MEMBERS = 5


def made(case: str, members: int) -> Any:
    """Return an agent that has begun to learn; 0 members for the plain one."""
    agent_class, env, settings = CASES[case]
    methods = [Population(members=members)] if members else []
    agent = agent_class(gym.make(env), methods=methods, learning_starts=200, **settings)
    return agent.learn(300)


def measured(case: str, updates: int, turns: int) -> dict[str, Any]:
    """Return seconds of each turn and what follows from them."""
    agents = {name: made(case, members) for name, members in (("plain", 0), ("one", 1), ("population", MEMBERS))}
    flops = {}
    for name, agent in agents.items():
        before = agent.meter.totals["learn"]
        agent.train(4)
        flops[name] = (agent.meter.totals["learn"] - before) / 4
    seconds: dict[str, list[float]] = {name: [] for name in agents}
    for turn in range(turns + 1):
        for name in sorted(agents, reverse=bool(turn % 2)):
            start = time.perf_counter()
            agents[name].train(updates)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True))
        for name in ("one", "population")
    }
    ms = {name: 1000 * statistics.median(own) / updates for name, own in seconds.items()}
    of_flops = {name: flops[name] / flops["plain"] for name in ("one", "population")}
    return {"ms": ms, "ratios": ratios, "flops": flops, "ratios_of_flops": of_flops, "seconds": seconds}


def main() -> None:
    """Measure every case and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20, help="of a turn")
    parser.add_argument("--turns", type=int, default=21)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for case in CASES:
        found[case] = measured(case, arguments.updates, arguments.turns)
        print(case, json.dumps({key: found[case][key] for key in ("ms", "ratios", "ratios_of_flops")}), flush=True)
    asked = {"members": MEMBERS, "updates": arguments.updates, "turns": arguments.turns}
    store(RESULTS / "eaude" / "update_cost.json", {**asked, "load": os.getloadavg()[0], "cases": found})


if __name__ == "__main__":
    main()
