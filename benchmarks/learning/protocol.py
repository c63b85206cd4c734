"""The protocol of the comparison with Stable-Baselines3: tasks, hyper-parameters, seeds and evaluation.

Hyper-parameters are Stable-Baselines3's defaults (SAC, TD3; both with two layers of 256, ReLU and 10,000 random
steps, as rl-zoo has for HalfCheetah) and rl-zoo's tuned ones (DQN).
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

EVALUATION_SEED = 10_000
FINAL_EPISODES = 20
CURVE_EPISODES = 5


@dataclass(frozen=True)
class Task:
    """One row of the comparison.

    Attributes:
        algorithm: ``"sac"``, ``"td3"`` or ``"dqn"``.
        env_id: a Gymnasium id.
        steps: environment steps of training.
        evaluate_every: environment steps between two points of the learning curve.
        settings: hyper-parameters that both libraries get, under Stable-Baselines3's names.
    """

    algorithm: str
    env_id: str
    steps: int
    evaluate_every: int
    settings: dict[str, Any] = field(default_factory=dict)


CONTINUOUS = {"net_arch": [256, 256], "batch_size": 256, "gamma": 0.99, "tau": 0.005, "learning_starts": 10_000}
TASKS = {
    "sac-halfcheetah": Task("sac", "HalfCheetah-v5", 100_000, 10_000, {**CONTINUOUS, "learning_rate": 3e-4}),
    "td3-halfcheetah": Task(
        "td3", "HalfCheetah-v5", 100_000, 10_000, {**CONTINUOUS, "learning_rate": 1e-3, "exploration_noise": 0.1}
    ),
    "dqn-cartpole": Task(
        "dqn",
        "CartPole-v1",
        50_000,
        5_000,
        {
            "net_arch": [256, 256],
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
        },
    ),
    "dqn-lunarlander": Task(
        "dqn",
        "LunarLander-v3",
        100_000,
        10_000,
        {
            "net_arch": [256, 256],
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 0,
            "gamma": 0.99,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": -1,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
        },
    ),
}


def evaluate(policy: Any, env_id: str, episodes: int) -> list[float]:
    """Return the undiscounted return of each of ``episodes`` seeded episodes of the deterministic policy.

    ``policy`` is anything with ``predict(observation, deterministic=True) -> (action, state)``.
    """
    env = gym.make(env_id)
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=EVALUATION_SEED + episode)
        total, over = 0.0, False
        while not over:
            action, _ = policy.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            over = terminated or truncated
        returns.append(total)
    env.close()
    return returns


def summary(returns: list[float]) -> dict[str, Any]:
    """Return mean, standard deviation and the raw returns of one evaluation."""
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "returns": returns}
