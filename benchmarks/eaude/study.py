"""The studies of EauDeQN: train one method on one task at one width.

    python -m benchmarks.eaude.study breakout 32 eaude --seed 0
    python -m benchmarks.eaude.study breakout 32            # every method and seed that is not stored yet

Tasks are MinAtar's Breakout and Space Invaders (200,000 steps, 400 moves of the target network) and HalfCheetah-v5
(100,000 steps, 400 generations of critics). Methods:

- ``plain``: the agent alone, dense.
- ``dense``: a population that is selected and never pruned: members alone return more than one.
- ``eaude``: the method. With ``ambitious`` and ``aggressive`` sparsities may grow 10 and 30 times a straight line.
- ``null``: the null model, in which members are selected by random numbers: what sparsity comes of itself.
- ``polyprune``: a schedule to a sparsity of .95.
- ``polyprune-found``: the same to the mean sparsity that ``eaude`` has found over the stored seeds: an oracle.

``growth_cap`` times the number of generations is 10 everywhere, as it was published. A run goes on from its last
checkpoint when the same command is given again, and its record is stored when it is at its end; ``--steps`` makes a
shorter or longer study, kept apart. ``benchmarks.eaude.tables`` has the tables and pictures.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import DQN, SAC, PolyPrune, Population
from agents.loop.evaluate import REPORT_SEED, evaluate_policy, undisturbed
from agents.loop.method import Method
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from benchmarks.card import RESULTS, store

FOLDER, RUNS = RESULTS / "eaude", Path("runs") / "eaude"
METHODS = ("plain", "dense", "eaude", "null", "polyprune", "ambitious", "aggressive", "polyprune-found")
STANDARD = METHODS[:5]
SEEDS = (0, 1, 2)
GENERATIONS = 400
FINAL = 0.95
EPISODES = 50

MINATAR: dict[str, Any] = {
    "learning_rate": 2.5e-4,
    "adam_eps": 3.125e-4,
    "buffer_size": 100_000,
    "learning_starts": 5_000,
    "batch_size": 32,
    "train_freq": 2,
    "exploration_fraction": 0.25,
    "exploration_final_eps": 0.01,
    "loss": "squared",
}
CHEETAH: dict[str, Any] = {"learning_starts": 1_000, "net_arch": (256, 256)}
TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "breakout": ("budget/MinAtarBreakout-v0", 200_000, MINATAR),
    "space-invaders": ("budget/MinAtarSpaceInvaders-v0", 200_000, MINATAR),
    "half-cheetah": ("HalfCheetah-v5", 100_000, CHEETAH),
}
"""Task -> environment, steps, settings of the agent."""


def settings_of(task: str, width: int, steps: int) -> dict[str, Any]:
    """Return the settings of the plain agent: of DQN's network, or of the critics alone beside an actor of 2×256."""
    own = TASKS[task][2]
    if task == "half-cheetah":
        return {**own, "critic_net_arch": (width, width)}
    return {**own, "net_arch": (width, width), "target_update_interval": steps // GENERATIONS}


def method_of(task: str, width: int, name: str, steps: int) -> list[Method]:
    """Return the method of a row, if any."""
    if name == "plain":
        return []
    if name.startswith("polyprune"):
        final = found_sparsity(task, width, steps) if name == "polyprune-found" else FINAL
        every = steps // GENERATIONS if task == "half-cheetah" else steps // GENERATIONS // MINATAR["train_freq"]
        return [PolyPrune(final=final, every=every)]
    changes: dict[str, Any] = {
        "dense": {"max_growth": 0.0},
        "eaude": {},
        "null": {"selection": "random"},
        "ambitious": {"max_growth": "ambitious"},
        "aggressive": {"max_growth": "aggressive"},
    }[name]
    often = {"generation_every": steps // GENERATIONS} if task == "half-cheetah" else {}
    return [Population(growth_cap=10 / GENERATIONS, **often, **changes)]


def found_sparsity(task: str, width: int, steps: int) -> float:
    """Return the mean realised sparsity that the method has found over the stored seeds.

    Raises:
        SystemExit: none is stored.
    """
    found = [run["final"]["sparsity"] for run in stored(task, width, "eaude", steps)]
    if not found:
        raise SystemExit(f"polyprune-found needs eaude on {task} at {width}: run it first")
    return float(np.mean(found))


def stored(task: str, width: int, method: str, steps: int) -> list[dict[str, Any]]:
    """Return the stored runs of one row, by seed."""
    pattern = f"{method}-{width}-{steps}-seed*.json"
    runs = [json.loads(path.read_text()) for path in (FOLDER / task).glob(pattern)]
    return sorted(runs, key=lambda run: run["seed"])


def train(task: str, width: int, method: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Train to the end, from the last checkpoint where there is one; return the record of the run.

    Raises:
        SystemExit: interrupted.
    """
    often = max(steps // 20, 1)
    asked = {"env": TASKS[task][0], "steps": steps, "eval_every": often, "checkpoint_every": often}
    config = RunConfig.of({**asked, "eval_episodes": 5, "tensorboard": False})
    settings = {**settings_of(task, width, steps), "seed": seed}
    agent_class = SAC if task == "half-cheetah" else DQN
    methods = method_of(task, width, method, steps)
    with Run.open(agent_class, settings, config, folder, methods=methods) as run:
        if not run.train():
            raise SystemExit(f"interrupted at step {run.agent.num_timesteps}; the same command goes on from there")
        card = {"task": task, "width": width, "method": method, "seed": seed, "steps": steps}
        return {**card, **record_of(run, config)}


def record_of(run: Run, config: RunConfig) -> dict[str, Any]:
    """Return what is stored of a run that is at its end."""
    agent, rows = run.agent, list(run.folder.rows("training"))
    network = "q_network" if agent.discrete else "critic"
    with undisturbed(agent, run.evaluation_env):
        result = evaluate_policy(agent, run.evaluation_env, EPISODES, REPORT_SEED)
    curve = []
    for row in rows:
        own = {key.removeprefix("loss/sparsity/"): value for key, value in row.items() if "/sparsity/" in key}
        curve.append({"step": row["step"], "return": row.get("return"), "episodes": row["episodes"], "sparsity": own})
    logged = {name.removeprefix("sparsity/"): float(own) for name, own in agent.logged().items() if "sparsity" in name}
    realised = logged.get("crowned/realised", logged.get(network, 0.0))
    weights = [part.weight for part in agent.own_modules[network].modules() if isinstance(part, torch.nn.Linear)]
    return {
        "run": dataclasses.asdict(config),
        "settings": agent.config.to_dict(),
        "methods": agent.methods_given,
        "curve": curve,
        "evaluations": [[row["step"], row["raw_return"]] for row in run.folder.rows("evaluation")],
        "final": {
            **result.summary(),
            "sparsity": realised,
            "sparsities": logged,
            "weights": sum(weight.numel() for weight in weights),
            "nonzero": sum(int(weight.count_nonzero()) for weight in weights),
        },
        "training_flops": {key: int(agent.meter.totals[key]) for key in ("act", "learn")},
        "updates": agent.num_updates,
        "seconds": sum(row["clock"]["seconds"] for row in rows),
    }


def main() -> None:
    """Run one training, or all of one task and width that are not stored yet, and store their records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("width", type=int, help="units of each of two hidden layers")
    parser.add_argument("method", nargs="*", metavar="METHOD", help=f"one or more of {', '.join(METHODS)}")
    parser.add_argument("--seed", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--steps", type=int, help="instead of the task's")
    arguments = parser.parse_args()
    if unknown := set(arguments.method) - set(METHODS):
        parser.error(f"{', '.join(sorted(unknown))}: expected methods among {', '.join(METHODS)}")
    torch.set_num_threads(1)
    task, width, steps = arguments.task, arguments.width, arguments.steps or TASKS[arguments.task][1]
    for seed in arguments.seed:
        for method in arguments.method or STANDARD:
            name = f"{method}-{width}-{steps}-seed{seed}"
            if (FOLDER / task / f"{name}.json").is_file():
                continue
            record = train(task, width, method, seed, steps, RUNS / task / name)
            store(FOLDER / task / f"{name}.json", record)
            final = record["final"]
            print(
                name,
                round(final["raw_return"], 2),
                round(final["sparsity"], 3),
                f"{record['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
