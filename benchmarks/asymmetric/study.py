"""The published study of asymmetric sub-policies: train one method on one task.

    python -m benchmarks.asymmetric.study run mountain-car asymmetric --seed 0

``run`` takes the task's preset; ``large-only`` and ``small-only`` are plain SAC with the preset's settings of that
sub-policy, ``fit`` is plain SAC of the width whose FLOPs are nearest to the stored asymmetric runs' average, and
``no-cost``, ``price-xN`` (N times the preset's λ), ``separate-buffers`` and ``hold-N`` are the ablations;
``adaptive-hold`` lets the master pick among 1, 5 and 20 steps, and in ``explore-half`` its ε falls over half of the
run, as a tenth of a shortened one ends before there is anything to choose between; ``random`` only evaluates. A run
goes on from its last checkpoint when the same command is given again, and ``--steps`` makes a shorter or longer study,
kept apart. ``benchmarks.asymmetric.tables`` has the tables and pictures.
"""

import argparse
import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.loop.evaluate import REPORT_SEED, Evaluation, evaluate_policy, undisturbed
from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from agents.report.cloud import RandomPolicy
from agents.runs.log import CONFIG, read_json
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from agents.studies.names import PRESETS, presets_of
from benchmarks.asymmetric.costs import FOLDER, SIZES
from benchmarks.card import store

RUNS = Path("runs") / "asymmetric"
BASELINES = ("large-only", "small-only", "fit")
STUDENTS = ("gail", "bc")
"""What ``benchmarks.asymmetric.students`` trains: they imitate large-only."""
RANDOM = "random"
PRICES = {"no-cost": 0.0, "asymmetric": 1.0, "price-x10": 10.0, "price-x100": 100.0}
"""Variants that differ in the price of compute alone: its multiple of the preset's λ."""
VARIANTS: dict[str, dict[str, Any]] = {
    "asymmetric": {},
    **{name: {"price": factor} for name, factor in PRICES.items() if name != "asymmetric"},
    "separate-buffers": {"shared_buffer": False},
    **{f"hold-{steps}": {"hold": steps} for steps in (1, 2, 10, 20)},
    "adaptive-hold": {"hold": (1, 5, 20)},
    "explore-half": {"master_exploration_fraction": 0.5},
}
"""The method and its ablations: what each changes in the preset, λ by a factor."""
EPISODES = {"mountain-car": 200, "swimmer": 50, "ant": 20, "fetch": 100, "walker-stand": 10, "finger-spin": 10}
"""Episodes of the final evaluation, each way of acting; the publication has 200."""


def settings_of(task: str, changes: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run's configuration and the recipe's settings: the preset with ``changes`` over it."""
    table = {**tomllib.loads((PRESETS / "asymmetric" / f"{task}.toml").read_text()), **changes}
    table["weight"] *= table.pop("price", 1.0)
    run = {key: table.pop(key) for key in ("env", "steps")}
    run |= {"eval_every": max(run["steps"] // 20, 1_000), "eval_episodes": 5, "tensorboard": False}
    AsymmetricConfig.of(table)  # raises for a misspelt key
    return RunConfig.of({**run, "checkpoint_every": max(run["steps"] // 20, 1_000)}), table


def train(task: str, method: str, seed: int, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train to the end, from the last checkpoint where there is one; return the record of the run."""
    config, recipe = settings_of(task, {**changes, **VARIANTS.get(method, {})})
    if method == RANDOM:
        return record_of_random(task, seed, config)
    recipe |= {"seed": seed}
    agent_class: type = Asymmetric
    if method == "fit":
        width = width_of_fit(task, config.steps, folder)
        agent_class, recipe = SAC, {**AsymmetricConfig.of(recipe).sub_policy("large"), "net_arch": (width, width)}
    elif method in BASELINES:
        agent_class, recipe = SAC, AsymmetricConfig.of(recipe).sub_policy(method.removesuffix("-only"))
    with Run.open(agent_class, recipe, config, folder) as run:
        to_the_end(run)
        return record_of(run, task, method, seed, config)


def to_the_end(run: Run) -> None:
    """Train what is left to train.

    Raises:
        SystemExit: interrupted.
    """
    if not run.train():
        raise SystemExit(f"interrupted at step {run.agent.num_timesteps}; the same command goes on from there")


def record_of(run: Run, task: str, method: str, seed: int, config: RunConfig) -> dict[str, Any]:
    """Return what is stored of a run that is at its end; ``config`` says in which row of the table it stands."""
    curve = [
        {"step": row["step"], "return": row["raw_return"], "flops_per_step": row["flops_per_step"]}
        for row in run.folder.rows("evaluation")
    ]
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "run": dataclasses.asdict(config),
        "settings": run.agent.config.to_dict(),
        "curve": curve,
        "final": {
            name: outcome_of(run, EPISODES[task], deterministic)
            for name, deterministic in (("deterministic", True), ("stochastic", False))
        },
        "training_flops": {key: int(run.agent.meter.totals[key]) for key in ("act", "learn")},
    }


def record_of_random(task: str, seed: int, config: RunConfig) -> dict[str, Any]:
    """Return the record of uniformly random actions, drawn with ``seed``."""
    env = config.make_env()
    result = evaluate_policy(RandomPolicy(env.action_space, seed), env, EPISODES[task], REPORT_SEED)
    env.close()
    final = {**result.summary(), "share_large": None, "by_episode": result.by_episode()}
    common = {"task": task, "method": RANDOM, "seed": seed, "run": dataclasses.asdict(config), "curve": []}
    return {**common, "final": {"deterministic": final, "stochastic": final}}


def width_of_fit(task: str, steps: int, folder: Path) -> int:
    """Return the width of ``fit``: that of the run begun in ``folder``, else from the asymmetric runs stored by now."""
    if (folder / CONFIG).is_file():
        return read_json(folder / CONFIG)["settings"]["net_arch"][0]
    return fit_width(*SIZES[task], average_flops(task, steps))


def fit_width(observation: int, action: int, flops: float) -> int:
    """Return H, at least 1, for which a Gaussian actor of 2×H costs nearest to ``flops``: ``2·(O·H + H² + 2·H·A)``."""
    linear = observation + 2 * action
    exact = (math.sqrt(linear**2 + 2 * flops) - linear) / 2
    candidates = (max(math.floor(exact), 1), max(math.ceil(exact), 1))
    return min(candidates, key=lambda h: abs(2 * h * (linear + h) - flops))


def stored(task: str) -> list[dict[str, Any]]:
    """Return the stored runs of one task."""
    return [json.loads(path.read_text()) for path in sorted((FOLDER / task).glob("*.json"))]


def average_flops(task: str, steps: int) -> float:
    """Return the mean FLOPs of a step over the stored asymmetric runs of that length.

    Raises:
        SystemExit: none is stored.
    """
    runs = [run for run in stored(task) if run["method"] == "asymmetric" and run["run"]["steps"] == steps]
    if not runs:
        raise SystemExit(f"fit needs asymmetric runs of {task} over {steps} steps: run these first")
    return float(np.mean([run["final"]["deterministic"]["flops_per_step"] for run in runs]))


def outcome_of(run: Run, episodes: int, deterministic: bool) -> dict[str, Any]:
    """Evaluate the agent of a run and return what the table needs, and every episode."""
    with undisturbed(run.agent, run.evaluation_env):
        result = evaluate_policy(run.agent, run.evaluation_env, episodes, REPORT_SEED, deterministic)
    return {**result.summary(), "share_large": share_of_large(result), "by_episode": result.by_episode()}


def share_of_large(result: Evaluation) -> float | None:
    """Return the share of all steps on which the large sub-policy acted; ``None`` for a policy of one network."""
    if "large" not in result.compute[0]["share_steps"]:
        return None
    steps = np.array(result.lengths, dtype=np.float64)
    return float(np.dot(steps, [report["share_steps"]["large"] for report in result.compute]) / steps.sum())


def main() -> None:
    """Run one training and store its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train one method on one task")
    running.add_argument("task", choices=presets_of("asymmetric"))
    running.add_argument("method", choices=(*VARIANTS, *BASELINES, RANDOM))
    running.add_argument("--seed", type=int, required=True)
    running.add_argument("--steps", type=int, help="instead of the preset's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task, method, seed = arguments.task, arguments.method, arguments.seed
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    steps = settings_of(task, changes)[0].steps
    name = f"{method}-{steps}-seed{seed}"
    record = train(task, method, seed, changes, RUNS / task / name)
    store(FOLDER / task / f"{name}.json", record)
    print(json.dumps({key: value for key, value in record["final"]["deterministic"].items() if key != "by_episode"}))


if __name__ == "__main__":
    main()
