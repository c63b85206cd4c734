"""Train our agent on one row of the protocol and store its learning curve.

``python -m benchmarks.learning.ours sac-halfcheetah --seed 0``

Hyper-parameters, seeds and evaluation are those of ``sb3_baseline``. A run that is interrupted goes on from its last
checkpoint when the same command is given again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from agents.dqn import DQN
from agents.loop.agent import OffPolicyAgent
from agents.loop.callbacks import Callback, load_state_of
from agents.loop.checkpoint import restore_agent
from agents.loop.evaluate import undisturbed
from agents.runs.monitors import Checkpoint
from agents.sac import SAC
from agents.td3 import TD3
from benchmarks.card import RESULTS, store
from benchmarks.learning.protocol import CURVE_EPISODES, FINAL_EPISODES, TASKS, Task, evaluate, summary

ALGORITHMS = {"sac": SAC, "td3": TD3, "dqn": DQN}
RUNS = Path("runs") / "against_sb3"


class LearningCurve(Callback):
    """Evaluates every ``task.evaluate_every`` steps; the clock stands still meanwhile.

    Args:
        task: of the protocol.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.points: list[dict[str, Any]] = []
        self.seconds, self.started = 0.0, 0.0

    def on_training_start(self, agent: OffPolicyAgent) -> None:
        self.started = time.perf_counter()

    def on_training_end(self, agent: OffPolicyAgent) -> None:
        self.pause()

    def on_step(self, agent: OffPolicyAgent) -> bool:
        if agent.num_timesteps % self.task.evaluate_every == 0:
            self.pause()
            with undisturbed(agent):
                returns = evaluate(agent, self.task.env_id, CURVE_EPISODES)
            self.points.append({"step": agent.num_timesteps, **summary(returns)})
            self.started = time.perf_counter()
        return True

    def pause(self) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self.started

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "seconds": self.seconds + time.perf_counter() - self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.seconds = list(state["points"]), state["seconds"]


def build(task: Task, seed: int, env: gym.Env) -> OffPolicyAgent:
    """Return the untrained agent with the task's hyper-parameters."""
    return ALGORITHMS[task.algorithm](env, seed=seed, **task.settings)


def main() -> None:
    """Train, evaluate, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.task]
    env = gym.make(task.env_id)
    curve, saved = LearningCurve(task), RUNS / arguments.task / f"seed{arguments.seed}.safetensors"
    agent = build(task, arguments.seed, env)
    if saved.exists():
        load_state_of([curve], restore_agent(agent, saved)["callbacks"])
    agent.learn(task.steps - agent.num_timesteps, [curve, Checkpoint(saved, task.evaluate_every, alongside=[curve])])
    final = summary(evaluate(agent, task.env_id, FINAL_EPISODES))
    store(
        RESULTS / "against_sb3" / arguments.task / f"ours-seed{arguments.seed}.json",
        {
            "library": "ours",
            "task": arguments.task,
            "seed": arguments.seed,
            "settings": task.settings,
            "steps": task.steps,
            "curve": curve.points,
            "final": final,
            "train_seconds": curve.seconds,
        },
    )
    saved.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
