"""Environment steps per second of training, everything included, beside Stable-Baselines3 and sbx in one run.

``python -m benchmarks.agent_speed --threads 1``

Each library trains in a process of its own on the same cores and threads; the processes take turns, segment by
segment, so that a machine whose speed drifts slows all of them alike. What is reported is the median over segments and
the median of the ratios within a round. ``medium`` rows run float32 products in bfloat16 where the machine can: other
numbers, reported apart. ``bexa`` is ours with three early exits, beside Stable-Baselines3's without.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

from benchmarks.card import RESULTS, store

ENVIRONMENT = "HalfCheetah-v5"
CONTENDERS = ("ours", "sb3", "sbx", "ours-medium", "sb3-medium", "bexa")
COMMON = {"learning_starts": 100, "batch_size": 256, "gamma": 0.99, "tau": 0.005}
LEARNING_RATE = {"sac": 3e-4, "td3": 1e-3}


def build(contender: str, algorithm: str) -> Any:
    """Return the untrained agent: two layers of 256 everywhere, one update a step."""
    import gymnasium as gym
    import numpy as np

    env = gym.make(ENVIRONMENT)
    settings: dict[str, Any] = {**COMMON, "learning_rate": LEARNING_RATE[algorithm]}
    if contender == "bexa":
        from agents.methods.bexa import BexaSAC, BexaTD3

        return (BexaSAC if algorithm == "sac" else BexaTD3)(env, net_arch=(256, 256), **settings)
    if contender.startswith("ours"):
        from agents.sac import SAC
        from agents.td3 import TD3

        return (SAC if algorithm == "sac" else TD3)(env, net_arch=(256, 256), **settings)
    settings |= {"policy_kwargs": {"net_arch": [256, 256]}}
    if algorithm == "td3":
        from stable_baselines3.common.noise import NormalActionNoise

        settings["action_noise"] = NormalActionNoise(np.zeros(6), 0.1 * np.ones(6))
    if contender == "sbx":
        import sbx as library
    else:
        import stable_baselines3 as library

        settings["device"] = "cpu"
    return (library.SAC if algorithm == "sac" else library.TD3)("MlpPolicy", env, **settings)


def work(contender: str, algorithm: str, threads: int) -> None:
    """Train as many steps as each line of standard input says, and answer with the seconds that it took."""
    import torch

    torch.set_num_threads(threads)
    if contender.endswith("medium"):
        torch.set_float32_matmul_precision("medium")
    agent = build(contender, algorithm)
    keep = {} if contender.startswith(("ours", "bexa")) else {"reset_num_timesteps": False}
    for line in sys.stdin:
        start = time.perf_counter()
        agent.learn(int(line), **keep)
        sys.stdout.write(f"{time.perf_counter() - start}\n")
        sys.stdout.flush()


def start_worker(contender: str, algorithm: str, threads: int) -> subprocess.Popen:
    """Return a running worker, bound to the first ``threads`` cores."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false" if threads == 1 else "",
        "JAX_PLATFORMS": "cpu",
    }
    arguments = [sys.executable, "-m", "benchmarks.agent_speed", "--worker", contender, algorithm]
    worker = subprocess.Popen(
        [*arguments, "--threads", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    os.sched_setaffinity(worker.pid, set(sorted(os.sched_getaffinity(0))[:threads]))
    return worker


def train(worker: subprocess.Popen, steps: int) -> float:
    """Have ``worker`` train for ``steps`` and return the seconds."""
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def compare(contenders: list[str], algorithm: str, threads: int, rounds: int, steps: int) -> dict[str, Any]:
    """Return steps per second of each contender and its ratio to Stable-Baselines3's float32."""
    workers = {name: start_worker(name, algorithm, threads) for name in contenders}
    for worker in workers.values():
        train(worker, COMMON["learning_starts"] + 300)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, worker in workers.items():
            speeds[name].append(steps / train(worker, steps))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    rows = {}
    for name, values in speeds.items():
        ratios = [value / peer for value, peer in zip(values, speeds["sb3"], strict=True)]
        rows[name] = {"steps_per_second": median(values), "ratio_to_sb3": median(ratios), "segments": values}
    return rows


def main() -> None:
    """Compare on the command line's terms, or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--algorithms", nargs="+", default=["sac", "td3"], choices=["sac", "td3"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "ALGORITHM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker, arguments.threads)
        return
    contenders = list(dict.fromkeys(["sb3", *arguments.contenders]))
    chosen = "" if set(contenders) == set(CONTENDERS) else "-" + "-".join(contenders)
    result = {
        algorithm: compare(contenders, algorithm, arguments.threads, arguments.rounds, arguments.steps)
        for algorithm in arguments.algorithms
    }
    for algorithm, rows in result.items():
        for name, row in rows.items():
            speed, ratio = row["steps_per_second"], row["ratio_to_sb3"]
            sys.stdout.write(f"{algorithm:4s} {name:12s} {speed:7.1f} steps/s  {ratio:5.2f} x Stable-Baselines3\n")
    store(
        RESULTS / "agent_speed" / f"threads{arguments.threads}{chosen}.json",
        {"environment": ENVIRONMENT, "threads": arguments.threads, "steps": arguments.steps, "result": result},
    )


if __name__ == "__main__":
    main()
