"""A third-party Stable-Baselines3 agent, metered to the digit.

``python -m benchmarks.sb3_accounting``

SAC (and TD3, whose updates are of two kinds, and DQN) is trained for 2,000 steps with ``learning_starts=100`` in a
wrapped environment. Acting must be 1,900 × the FLOPs of what acts (DQN explores at random: × its greedy decisions);
learning must be what torch's own counter sees in the updates of an identical model that is not metered.
"""

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import DQN, SAC, TD3
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.card import RESULTS, store
from budget_wrappers import ComputeMeter, RecordComputeStatistics
from budget_wrappers.integrations.sb3 import flops_per_action, metered

STEPS, LEARNING_STARTS, SEED = 2_000, 100, 0
TASKS: dict[str, tuple[type, str]] = {
    "sac": (SAC, "Pendulum-v1"),
    "td3": (TD3, "Pendulum-v1"),
    "dqn": (DQN, "CartPole-v1"),
}


def build(name: str, meter: ComputeMeter | None) -> Any:
    """Return an untrained model, in an environment whose wrapper reads ``meter``."""
    model_class, env_id = TASKS[name]
    env = gym.make(env_id)
    if meter is not None:
        env = RecordComputeStatistics(env, meter)
    return model_class("MlpPolicy", env, learning_starts=LEARNING_STARTS, seed=SEED, device="cpu")


def count_updates(model: Any) -> Callable[[], int]:
    """Put torch's counter around every round of updates; return what tells its sum."""
    total, train = 0, model.train

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            train(*args, **kwargs)
        total += counter.get_total_flops()

    model.train = counted
    return lambda: total


def count_greedy(model: Any) -> Callable[[], int]:
    """Count how often the policy's network chose; return what tells the number."""
    count, predict = 0, model.policy.predict

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return predict(*args, **kwargs)

    model.policy.predict = counted
    return lambda: count


def measure(name: str) -> dict[str, Any]:
    """Return the account of one algorithm and what it should be."""
    meter = ComputeMeter()
    model = metered(build(name, meter), meter)
    start = time.perf_counter()
    model.learn(STEPS)
    seconds = time.perf_counter() - start
    plain = build(name, None)
    learned, acted = count_updates(plain), count_greedy(plain)
    plain.learn(STEPS)
    each = flops_per_action(model)
    states = zip(model.policy.state_dict().values(), plain.policy.state_dict().values(), strict=True)
    return {
        "environment": TASKS[name][1],
        "flops_per_action": each,
        "actions": acted(),
        "acting": {"metered": meter.totals["act"], "expected": acted() * each},
        "learning": {"metered": meter.totals["learn"], "torch": learned()},
        "by_name": dict(meter.totals.by_name),
        "same_weights_as_unmetered": all(torch.equal(mine, theirs) for mine, theirs in states),
        "seconds_metered": seconds,
    }


def main() -> None:
    """Measure, print and store."""
    torch.set_num_threads(1)
    results = {name: measure(name) for name in TASKS}
    for name, result in results.items():
        exact = (
            result["acting"]["metered"] == result["acting"]["expected"]
            and result["learning"]["metered"] == result["learning"]["torch"]
            and result["same_weights_as_unmetered"]
        )
        print(f"{name}: {'exact' if exact else 'DIFFERS'} {result['acting']} {result['learning']}")
    sac = results["sac"]
    print(f"SAC acted {sac['actions']} = {STEPS} − {LEARNING_STARTS} times")
    record = {"steps": STEPS, "learning_starts": LEARNING_STARTS, "seed": SEED, "convention": "matmul"}
    store(RESULTS / "sb3" / "accounting.json", {**record, "results": results})


if __name__ == "__main__":
    main()
