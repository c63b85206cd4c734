"""What every point of a comparison says besides return and FLOPs: how long an action takes, and whose control it is."""

import statistics
import time
from typing import Any

import torch

from agents.loop.evaluate import Evaluation, handed_back
from agents.methods.budget_input import budget_wrapper
from agents.report.tradeoff import TradeoffPoint
from agents.runs.run_config import RunConfig

TIMED_STEPS, WARM_UP, KEPT = 300, 30, 0.95
"""Actions that are timed after as many to warm up, and the share of them, the fastest, whose mean is told."""
INHERITED = ("budget", "weight", "train_act_flops", "train_learn_flops", "duration_s", "date", "machine", "settings")
"""Extras of a point that a control has from the method in whose place it chooses: it is the same training."""


def label_of(control: str, label: str) -> str:
    """Return what the row of a control of ``label`` is called."""
    return f"{control} of {label}"


def control_extras(control: str, own: TradeoffPoint) -> dict[str, Any]:
    """Return extras of the point of a control, given the point of the method that it is compared with."""
    inherited = {key: own.extras[key] for key in INHERITED if key in own.extras}
    return inherited | {"baseline": True, "control": control, "of": own.label}


def point_of(
    method: str, label: str, seed: int, result: Evaluation, curve: Any, extras: dict[str, Any]
) -> TradeoffPoint:
    """Return an evaluation as a point; its returns are those without penalties."""
    return TradeoffPoint.from_episodes(method, label, seed, result.by_episode(), curve, extras)


def microseconds(policy: Any, setup: RunConfig, seed: int, budget: float | None = None) -> float:
    """Return how long an action takes in the mean, on the states that the policy visits, one at a time.

    The slowest 5 % are left out: other work of the machine. Torch runs on one thread.

    Args:
        policy: that acts.
        setup: of the environment.
        seed: of the first episode.
        budget: that its observations hold, where they hold one.
    """
    env, threads = setup.make_env(), torch.get_num_threads()
    if budget is not None:
        budget_wrapper(env).set_budget(budget)
    torch.set_num_threads(1)
    times, over, state = [], True, None
    try:
        for number in range(WARM_UP + TIMED_STEPS):
            if over:
                (observation, _), state = env.reset(seed=seed + number), None
            start = time.perf_counter_ns()
            action, state = policy.predict(observation, **handed_back(state), deterministic=True)
            times.append(time.perf_counter_ns() - start)
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    finally:
        torch.set_num_threads(threads)
        env.close()
    fastest = sorted(times[WARM_UP:])[: int(KEPT * TIMED_STEPS)]
    return statistics.fmean(fastest) / 1e3


__all__ = ["control_extras", "label_of", "microseconds", "point_of"]
