"""A probe with a known answer: the cheap exit is enough in half of the states, only the dear one is right in the rest.

    python -m benchmarks.bexa.probe

Episodes last one step. In an easy state the action that pays is linear in what is observed; in a hard one it is a
product of two signs, of which the best linear guess is 0. Acting well pays 1, that guess 0. The cheap exit is linear,
so with budget b

- a program for each state by itself gives hard states the dear exit a share b of the time: ``½ + ½·b``;
- a program over a batch of B moves what easy states do not need to the hard ones, h of them: ``½ + E[min(h, bB)]/B``
  with h binomial, which is ``½ + min(b, ½)`` in a large batch.

At b = ¼ the batch wins by ⅛, at b = ½ by nearly ¼. BEXA-TD3 learns both and acts in 4,000 states.
"""

import argparse
import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.methods.bexa import BexaTD3
from benchmarks.card import RESULTS, store
from budget_wrappers.wrappers import RecordComputeStatistics

TARGET = 0.7
"""Absolute value of every paid action, within reach of a squashed output."""
SETTINGS: dict[str, Any] = {
    "net_arch": (32, 32),
    "exit_after": (0, 2),
    "learning_rate": 2e-3,
    "learning_starts": 500,
    "batch_size": 128,
    "exploration_noise": 0.3,
    "gate_loss_scale": 1.0,
}


class EasyOrHard(gym.Env):
    """One step: ``1 − ((a − t)/0.7)²``, ``t = 0.7·x`` in easy states and ``0.7·y·z`` in hard ones; x, y, z are signs.

    The observation is ``(hard, x, y, z)``, with zeros for the signs that do not count.
    """

    observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Draw a state."""
        super().reset(seed=seed)
        hard = bool(self.np_random.integers(2))
        x, y, z = self.np_random.choice([-1.0, 1.0], 3)
        self._target = TARGET * (y * z if hard else x)
        state = (1.0, 0.0, y, z) if hard else (0.0, x, 0.0, 0.0)
        self._observation = np.array(state, dtype=np.float32)
        return self._observation, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Pay for the action and end the episode."""
        reward = 1.0 - ((float(action[0]) - self._target) / TARGET) ** 2
        return self._observation, reward, True, False, {}


def expected(gate_training: str, budget: float) -> float:
    """Return the mean reward that the arithmetic promises."""
    if gate_training == "budget":
        return 0.5 + 0.5 * budget
    size = SETTINGS["batch_size"]
    moved = sum(math.comb(size, hard) * min(hard, budget * size) for hard in range(size + 1)) / 2**size
    return 0.5 + moved / size


def outcome(gate_training: str, budget: float, seed: int, steps: int = 8_000, states: int = 4_000) -> dict[str, float]:
    """Train and return the mean reward and the mean normalised cost over ``states`` fresh states."""
    env = RecordComputeStatistics(EasyOrHard())
    agent = BexaTD3(env, gate_training=gate_training, budget=budget, seed=seed, **SETTINGS).learn(steps)
    result = evaluate_policy(agent, env, states, REPORT_SEED)
    return {"reward": float(np.mean(result.raw_returns)), "cost": agent.spending(result.shares)["cost"]}


def main() -> None:
    """Train every cell and store what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        {
            "gate_training": training,
            "budget": budget,
            "expected": expected(training, budget),
            "seeds": [outcome(training, budget, seed) for seed in range(arguments.seeds)],
        }
        for budget in arguments.budgets
        for training in ("budget", "batch_budget")
    ]
    store(RESULTS / "bexa" / "probe.json", {"settings": SETTINGS, "rows": rows})
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
