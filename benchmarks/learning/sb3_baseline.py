"""Train Stable-Baselines3 on one row of the protocol and store its learning curve.

``python -m benchmarks.learning.sb3_baseline sac-halfcheetah --seed 0``
"""

import argparse
import time
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise

from benchmarks.card import RESULTS, store
from benchmarks.learning.protocol import CURVE_EPISODES, FINAL_EPISODES, TASKS, Task, evaluate, summary


class LearningCurve(BaseCallback):
    """Evaluates every ``task.evaluate_every`` steps; the clock stands still meanwhile."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.points: list[dict[str, Any]] = []
        self.evaluation_seconds = 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps % self.task.evaluate_every == 0:
            start = time.perf_counter()
            returns = evaluate(self.model, self.task.env_id, CURVE_EPISODES)
            self.points.append({"step": self.num_timesteps, **summary(returns)})
            self.evaluation_seconds += time.perf_counter() - start
        return True


def build(task: Task, seed: int) -> sb3.common.base_class.BaseAlgorithm:
    """Return the untrained Stable-Baselines3 agent with the task's hyper-parameters."""
    settings = dict(task.settings)
    settings["policy_kwargs"] = {"net_arch": settings.pop("net_arch")}
    env = gym.make(task.env_id)
    if task.algorithm == "td3":
        width = env.action_space.shape[0]
        sigma = settings.pop("exploration_noise") * np.ones(width)
        settings["action_noise"] = NormalActionNoise(mean=np.zeros(width), sigma=sigma)
    algorithm = {"sac": sb3.SAC, "td3": sb3.TD3, "dqn": sb3.DQN}[task.algorithm]
    return algorithm("MlpPolicy", env, seed=seed, device="cpu", **settings)


def main() -> None:
    """Train, evaluate, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.task]
    model, curve = build(task, arguments.seed), LearningCurve(task)
    start = time.perf_counter()
    model.learn(task.steps, callback=curve)
    seconds = time.perf_counter() - start - curve.evaluation_seconds
    final = summary(evaluate(model, task.env_id, FINAL_EPISODES))
    store(
        RESULTS / "against_sb3" / arguments.task / f"sb3-seed{arguments.seed}.json",
        {
            "library": "stable_baselines3",
            "task": arguments.task,
            "seed": arguments.seed,
            "settings": task.settings,
            "steps": task.steps,
            "curve": curve.points,
            "final": final,
            "train_seconds": seconds,
        },
    )


if __name__ == "__main__":
    main()
