"""Offline learning: CQL against behaviour cloning on data of a half-trained agent.

    python -m benchmarks.learning.offline collect cartpole
    python -m benchmarks.learning.offline train cartpole cql --seed 0
    python -m benchmarks.learning.offline table

``collect`` trains our SAC or DQN until an evaluation is within 20 % of a third of its final return, rolls that policy
out with its own noise, and stores the episodes in Minari's format under ``datasets/`` (or ``MINARI_DATASETS_PATH``),
outside git. ``train`` learns from that data set alone and evaluates afterwards, on the protocol's seeded episodes.
``table`` writes ``results/offline/table.md`` and ``table.json`` from the stored runs.

The continuous study has 10 minutes of one core a seed. An update of CQL evaluates ``(3n + 1)·B`` rows with gradients:
with the authors' n = 10 and B = 256 it is thirty of SAC's, 5,000 updates in the budget. n = 3 and B = 128 make it a
sixth of that and leave the estimate of the integral unbiased, so the budget buys 30,000 updates instead.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.behaviour_cloning import BehaviourCloning
from agents.cql import CQL, DiscreteCQL
from agents.dqn import DQN
from agents.loop.agent import OffPolicyAgent
from agents.loop.evaluate import undisturbed
from agents.replay.dataset import minari_module, open_dataset, write_dataset
from agents.sac import SAC
from benchmarks.card import RESULTS, store
from benchmarks.learning.protocol import FINAL_EPISODES, TASKS, evaluate, summary

FOLDER = RESULTS / "offline"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Study:
    """One data set and what is learnt from it.

    Attributes:
        dataset: its Minari id.
        behaviour: the row of the protocol whose agent collects.
        final_return: what that agent reaches in the end; collection starts at a third of it.
        evaluate_every: environment steps between two looks at that.
        transitions: that are stored.
        methods: agent, updates and settings of each method.
    """

    dataset: str
    behaviour: str
    final_return: float
    evaluate_every: int
    transitions: int
    methods: dict[str, tuple[type[OffPolicyAgent], int, dict[str, Any]]] = field(default_factory=dict)


STUDIES = {
    "cartpole": Study(
        "cartpole/medium-v0",
        "dqn-cartpole",
        500.0,
        256,
        20_000,
        {
            "cql": (
                DiscreteCQL,
                20_000,
                {
                    "net_arch": [256, 256],
                    "learning_rate": 1e-3,
                    "batch_size": 64,
                    # A copy every few hundred updates is too few backups for returns of hundreds of steps.
                    "target_update_interval": 1,
                    "tau": 0.01,
                },
            ),
            "bc": (BehaviourCloning, 20_000, {"net_arch": [256, 256], "batch_size": 64}),
        },
    ),
    "halfcheetah": Study(
        "halfcheetah/medium-v0",
        "sac-halfcheetah",
        5_000.0,
        1_000,
        100_000,
        {
            "cql": (
                CQL,
                30_000,
                {
                    "batch_size": 128,
                    "action_samples": 3,
                    "cql_alpha": 1.0,
                    "actor_learning_rate": 3e-4,
                    # As the authors begin: the critics know nothing yet.
                    "imitation_steps": 5_000,
                },
            ),
            "bc": (BehaviourCloning, 30_000, {"batch_size": 256}),
        },
    ),
}


def collect(study: Study, seed: int = 0) -> None:
    """Train until a third of the final return, then write the data set.

    DQN's return on CartPole jumps: a first evaluation above a third can be one near the end, hence the upper bound.
    """
    task = TASKS[study.behaviour]
    agent = {"sac": SAC, "dqn": DQN}[task.algorithm](gym.make(task.env_id), seed=seed, **task.settings)
    stopped: dict[str, float] = {}

    def passed(agent: OffPolicyAgent) -> bool:
        # While ε still falls, what acts is mostly chance, however well the greedy policy does.
        beginning = max(agent.config.learning_starts, getattr(agent.config, "exploration_fraction", 0) * task.steps)
        if agent.num_timesteps % study.evaluate_every or agent.num_timesteps <= beginning:
            return True
        with undisturbed(agent):
            stopped["return"] = float(np.mean(evaluate(agent, task.env_id, 10)))
        print(f"{agent.num_timesteps} steps: return {stopped['return']:.1f}", flush=True)
        return not 0.8 <= stopped["return"] / (study.final_return / 3) <= 1.2

    agent.learn(task.steps, passed)
    if agent.num_timesteps == task.steps:
        raise SystemExit(f"no evaluation of seed {seed} came near {study.final_return / 3:.0f}: try another seed")
    data = write_dataset(
        study.dataset, agent, gym.make(task.env_id), study.transitions, seed=1000, algorithm=f"our {task.algorithm}"
    )
    report = {
        "behaviour": study.behaviour,
        "settings": task.settings,
        "seed": seed,
        "stopped_at_step": agent.num_timesteps,
        "stopped_at_return": stopped["return"],
        **statistics_of(data),
    }
    store(FOLDER / study.dataset.split("/")[0] / "data.json", report)
    print(json.dumps(report, indent=1))


def statistics_of(dataset: Any) -> dict[str, Any]:
    """Return size and mean return of a data set; an episode that collection cut off counts only where it is the one."""
    returns = [float(np.sum(episode.rewards)) for episode in open_dataset(dataset).iterate_episodes()]
    whole = returns[:-1] or returns
    return {
        "transitions": int(open_dataset(dataset).total_steps),
        "episodes": len(returns),
        "mean_return": float(np.mean(whole)),
        "std_return": float(np.std(whole)),
        "best_return": float(np.max(whole)),
    }


def train(name: str, method: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Learn from the data set, evaluate, and return the record of the run."""
    study = STUDIES[name]
    algorithm, updates, settings = study.methods[method]
    settings = {**settings, **changes}
    updates = settings.pop("updates", updates)
    env_id = TASKS[study.behaviour].env_id
    agent = algorithm(gym.make(env_id), study.dataset, seed=seed, **settings)
    curve, seconds = [], 0.0
    for _ in range(5):
        start = time.process_time()
        agent.learn(updates // 5)
        seconds += time.process_time() - start
        with undisturbed(agent):
            point = {"update": agent.num_updates, **summary(evaluate(agent, env_id, FINAL_EPISODES))}
        print(f"{name} {method} seed {seed}: {point['update']} updates, return {point['mean']:.1f}", flush=True)
        curve.append(point)
    metrics = {key: float(value) for key, value in agent.metrics.items()}
    return {
        "study": name,
        "method": method,
        "seed": seed,
        "dataset": {"id": study.dataset, **statistics_of(study.dataset)},
        "settings": settings,
        "updates": agent.num_updates,
        "curve": curve,
        "final": {key: value for key, value in curve[-1].items() if key != "update"},
        "last_metrics": metrics,
        "cpu_seconds": seconds,
    }


def comparison_table() -> str:
    """Return the comparison as Markdown and store it beside its numbers."""
    rows = []
    for name, study in STUDIES.items():
        runs = {method: runs_of(name, method) for method in study.methods}
        if not all(runs.values()):
            continue
        mean = {method: float(np.mean([run["final"]["mean"] for run in runs[method]])) for method in runs}
        std = {method: float(np.std([run["final"]["mean"] for run in runs[method]])) for method in runs}
        data = runs["cql"][0]["dataset"]
        rows.append(
            {
                "study": name,
                "transitions": data["transitions"],
                "data_mean": data["mean_return"],
                "seeds": [len(runs[method]) for method in runs],
                **{
                    f"{method}_{what}": value[method]
                    for method in runs
                    for what, value in (("mean", mean), ("std", std))
                },
                "passed": mean["cql"] >= mean["bc"] and mean["cql"] > data["mean_return"],
            }
        )
    lines = [
        "| data set | transitions | mean return of the data | behaviour cloning | CQL | CQL ≥ cloning and > data |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[f'{method}_mean']:.1f} ± {row[f'{method}_std']:.1f}" for method in ("bc", "cql")]
        lines.append(
            f"| {row['study']} | {row['transitions']:,} | {row['data_mean']:.1f} | {' | '.join(cells)} | "
            f"{'yes' if row['passed'] else 'no'} |"
        )
    text = "\n".join(lines) + "\n"
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "table.md").write_text(text)
    store(FOLDER / "table.json", {"rows": rows})
    return text


def runs_of(name: str, method: str) -> list[dict[str, Any]]:
    """Return the stored runs of one method."""
    return [json.loads(path.read_text()) for path in sorted((FOLDER / name).glob(f"{method}-seed*.json"))]


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="make the data set")
    collecting.add_argument("study", choices=sorted(STUDIES))
    collecting.add_argument("--replace", action="store_true", help="delete the data set first, where there is one")
    training = commands.add_parser("train", help="learn from the data set")
    training.add_argument("study", choices=sorted(STUDIES))
    training.add_argument("method", choices=("cql", "bc"))
    training.add_argument("--seed", type=int, required=True)
    training.add_argument("--set", default="{}", help="JSON of settings to try; the run is not stored")
    commands.add_parser("table", help="write the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("MINARI_DATASETS_PATH", str(Path("datasets").resolve()))
    Path(os.environ["MINARI_DATASETS_PATH"]).mkdir(parents=True, exist_ok=True)
    if arguments.command == "table":
        print(comparison_table())
    elif arguments.command == "collect":
        study = STUDIES[arguments.study]
        minari = minari_module()
        if arguments.replace and study.dataset in minari.list_local_datasets():
            minari.delete_dataset(study.dataset)
        collect(study)
    else:
        changes = json.loads(arguments.set)
        record = train(arguments.study, arguments.method, arguments.seed, changes)
        if changes:
            print(json.dumps({**record, "curve": None}))
        else:
            store(FOLDER / arguments.study / f"{arguments.method}-seed{arguments.seed}.json", record)


if __name__ == "__main__":
    main()
