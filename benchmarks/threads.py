"""Meters in threads: eight that act for 10,000 steps each, while others count, learn and compile, to the digit.

``python -m benchmarks.threads`` makes ``--runs`` runs, each with a switch interval of its own, and compares what every
meter and every recorder has counted with what each thread knows that it ran. Then two bundled agents, and two of
Stable-Baselines3, learn in threads, and their accounts are compared with the same agents' that learned one by one.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from agents import SAC
from benchmarks.card import RESULTS, store
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.wrappers import RecordComputeStatistics

THREADS = 8
INTERVALS = (1e-6, 1e-5, 1e-4, 1e-3, 5e-3)


class Counted(nn.Sequential):
    """Counted by what runs, forward by forward, as its forward is its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layers."""
        return super().forward(x)


class Null(gym.Env):
    """Ends after 100 steps."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (8,)), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start."""
        self.steps = 0
        return np.zeros(8, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step."""
        self.steps += 1
        return np.zeros(8, np.float32), 1.0, self.steps == 100, False, {}


def acts(number: int, seed: int, steps: int, seen: list[Any]) -> None:
    """Act for ``steps`` steps with a policy, a meter and an environment of one's own."""
    draw, meter = random.Random(seed), ComputeMeter(f"act {number}")
    width = draw.choice((4, 16, 32))
    net = (Counted if number % 4 == 3 else nn.Sequential)(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 2))
    each, x = 2 * (8 * width + width * 2), torch.zeros(1, 8)
    meter.watch(net)
    env = RecordComputeStatistics(Null(), meter)
    env.reset()
    told, right, ran = 0.0, True, 0
    with torch.no_grad():
        for _ in range(steps):
            if draw.random() < 0.01:  # another shape, to be counted in the middle of the others' steps
                rows = draw.randint(2, 400)
                with meter.phase("act"), meter.aside():
                    net(torch.zeros(rows, 8))
            net(x)
            ran += each
            *_, terminated, _, info = env.step(0)
            told += float(info["cost"])
            if terminated:
                right &= float(info["compute"]["flops"]) == 100 * each
                env.reset()
    seen.append(right and told == ran == meter.executed and meter.learned == 0)


def counts(stop: threading.Event, wrong: list[Any]) -> None:
    """Count modules of shapes that nobody has counted."""
    number = 0
    while not stop.is_set():
        number = number % 500 + 1
        if count_flops(nn.Sequential(nn.Linear(number, 3), nn.Dropout(0.5)), torch.zeros(2, number)) != 12 * number:
            wrong.append(f"count {number}")


def learns(stop: threading.Event, wrong: list[Any]) -> None:
    """Learn in phases that are counted, on a meter of its own."""
    meter, net = ComputeMeter("learns"), nn.Linear(6, 3)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    while not stop.is_set():
        before = meter.learned
        with meter.phase("learn"):
            optimizer.zero_grad()
            net(torch.ones(4, 6)).sum().backward()
            optimizer.step()
        if meter.learned - before != 2 * (2 * 4 * 6 * 3):  # forward, and the weight's gradient
            wrong.append(f"learned {meter.learned - before}")


def compiles(stop: threading.Event, wrong: list[Any]) -> None:
    """Compile functions, and count one that was compiled."""
    while not stop.is_set():
        act = torch.compile(lambda x: torch.tanh(x @ torch.ones(3, 2)), backend="eager")
        act(torch.ones(1, 3))
        if count_flops(act, torch.ones(1, 3)) != 12:
            wrong.append("compiled")
        time.sleep(0.05)


def run(number: int, steps: int) -> bool:
    """Return whether every thread of one run counted right."""
    sys.setswitchinterval(INTERVALS[number % len(INTERVALS)])
    stop, seen, wrong = threading.Event(), [], []
    others = [threading.Thread(target=work, args=(stop, wrong)) for work in (counts, learns, compiles)]
    actors = [threading.Thread(target=acts, args=(k, 100 * number + k, steps, seen)) for k in range(THREADS)]
    for thread in (*others, *actors):
        thread.start()
    for thread in actors:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    return seen == [True] * THREADS and not wrong


def bundled(number: int) -> Callable[[], dict[str, int]]:
    """Return what learns with a bundled agent, and returns its account."""

    def learn() -> dict[str, int]:
        meter = ComputeMeter(f"bundled {number}")
        width = (16, 64)[number]
        agent = SAC(gym.make("Pendulum-v1"), meter=meter, net_arch=(width, width), learning_starts=20, seed=number)
        agent.learn(400)
        return dict(meter.totals)

    return learn


def foreign(number: int) -> Callable[[], dict[str, int]]:
    """Return the same with an agent of Stable-Baselines3."""
    from stable_baselines3 import PPO

    from budget_wrappers.integrations.sb3 import metered

    def learn() -> dict[str, int]:
        meter = ComputeMeter(f"foreign {number}")
        width = (16, 64)[number]
        options = {"n_steps": 64, "batch_size": 32, "policy_kwargs": {"net_arch": [width, width]}, "device": "cpu"}
        metered(PPO("MlpPolicy", "CartPole-v1", seed=number, **options), meter).learn(256)
        return dict(meter.totals)

    return learn


def alike(make: Callable[[int], Callable[[], dict[str, int]]]) -> bool:
    """Return whether two agents that learn in threads have the accounts of two that learned one by one."""
    learns = [make(0), make(1)]
    one_by_one = [learn() for learn in learns]
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: learns[k]()})) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found.get(0), found.get(1)] == one_by_one


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000, help="of each thread")
    parser.add_argument("--output", type=Path, default=RESULTS / "threads" / "threads.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.compile(lambda: None)  # torch's compiler cannot be loaded by several threads at once
    interval, right = sys.getswitchinterval(), []
    for number in range(arguments.runs):
        right.append(run(number, arguments.steps))
        print(f"run {number}: {'to the digit' if right[-1] else 'WRONG'}", flush=True)
    sys.setswitchinterval(interval)
    agents = {"bundled": [alike(bundled) for _ in range(3)], "stable_baselines3": [alike(foreign) for _ in range(3)]}
    print(f"{sum(right)} of {len(right)} runs right; agents in threads: {agents}")
    store(
        arguments.output,
        {"threads": THREADS, "steps": arguments.steps, "intervals": INTERVALS, "right": right, "agents": agents},
    )
    sys.exit(not (all(right) and all(map(all, agents.values()))))


if __name__ == "__main__":
    main()
