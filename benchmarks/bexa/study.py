"""BEXA beside the plain agents: train one method on one task at one budget.

    python -m benchmarks.bexa.study run cheetah sac --seed 0
    python -m benchmarks.bexa.study run cheetah bexa-sac --budget 0.4 --seed 0

``sac`` and ``td3`` are plain, with the settings of their BEXA, learning starts included. ``-batch`` solves one program
over the batch, ``-mixture`` weighs gates by how often they are asked, ``-conditioned`` reads its budget from the
observation, and the rest are the published ablations. ``--units 16`` makes every hidden layer of actor and critics
that wide. A run goes on from its last checkpoint when the same command is given again, and ``--steps`` makes a shorter
or longer study, kept apart. ``benchmarks.bexa.tables`` has the tables and pictures.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from agents.loop.evaluate import REPORT_SEED, evaluate_policy, undisturbed
from agents.methods.bexa_config import BexaSACConfig, BexaTD3Config
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.studies.names import agent_named
from benchmarks.card import RESULTS, store

FOLDER = RESULTS / "bexa"
RUNS = Path("runs") / "bexa"
TASKS = {
    "cheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "ant": "Ant-v5",
    "humanoid": "Humanoid-v5",
    "pendulum": "Pendulum-v1",
}
PLAIN = ("sac", "td3")
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "batch": {"gate_training": "batch_budget"},
    "mixture": {"gate_loss": "mixture"},
    "batch-mixture": {"gate_training": "batch_budget", "gate_loss": "mixture"},
    "conditioned": {"budget_from_observation": True, "gate_loss": "mixture"},
    "backbone": {"acting": "backbone"},
    "ensemble": {"acting": "ensemble"},
    "imitate": {"exit_training": "imitate"},
    "advantage": {"gate_training": "advantage"},
    "softmax": {"gate_training": "softmax"},
    "greedy": {"gate_training": "greedy"},
    "stepwise": {"scheme": "stepwise"},
}
"""What each variant changes in BEXA's settings."""
METHODS = (*PLAIN, *(f"bexa-{plain}-{name}".rstrip("-") for plain in PLAIN for name in VARIANTS))
BUDGETS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
EVALUATE_EVERY, EPISODES, FINAL_EPISODES = 10_000, 5, 20


def settings_of(method: str, budget: float, units: int | None) -> tuple[str, dict[str, Any]]:
    """Return the agent's name and settings; plain agents wait as long as theirs with exits before they learn."""
    widths = {} if units is None else {"net_arch": (units, units)}
    if method in PLAIN:
        published = BexaSACConfig() if method == "sac" else BexaTD3Config()
        same = {key: getattr(published, key) for key in ("learning_starts", "learning_rate")}
        return method, {**widths, **same}
    _, plain, *variant = method.split("-", 2)
    changes = VARIANTS[variant[0] if variant else ""]
    given = {} if "budget_from_observation" in changes else {"budget": budget}
    return f"bexa-{plain}", {**widths, **given, **changes}


def name_of(method: str, budget: float, units: int | None, steps: int, seed: int) -> str:
    """Return the name that a run's folder and record have."""
    at = "" if method in PLAIN or method.endswith("conditioned") else f"-b{budget:g}"
    wide = "" if units is None else f"-units{units}"
    return f"{method}{at}{wide}-{steps}-seed{seed}"


def train(task: str, method: str, budget: float, seed: int, steps: int, units: int | None, folder: Path) -> dict:
    """Train to the end, from the last checkpoint where there is one; return the record of the run.

    Raises:
        SystemExit: interrupted.
    """
    name, settings = settings_of(method, budget, units)
    config = RunConfig(
        env=TASKS[task],
        steps=steps,
        budget_input=method.endswith("conditioned"),
        eval_every=min(EVALUATE_EVERY, max(steps // 5, 1)),
        eval_episodes=EPISODES,
        checkpoint_every=EVALUATE_EVERY,
        tensorboard=False,
    )
    with Run.open(agent_named(name), {**settings, "seed": seed}, config, folder) as run:
        if not run.train():
            raise SystemExit(f"interrupted at step {run.agent.num_timesteps}; the same command goes on from there")
        return record_of(run, task, method, budget, units)


def record_of(run: Run, task: str, method: str, budget: float, units: int | None) -> dict[str, Any]:
    """Return what is stored of a run that is at its end."""
    agent, config = run.agent, run.config
    rows = [row for row in run.folder.rows("training") if row["step"] > agent.config.learning_starts]
    gates = [
        {"step": row["step"], **{key[5:]: row[key] for key in row if key.startswith(("loss/gate/", "loss/acting/"))}}
        for row in rows
    ]
    curve = [
        {"step": row["step"], "return": row["raw_return"], "flops_per_step": row["flops_per_step"]}
        for row in run.folder.rows("evaluation")
    ]
    policy_steps = agent.num_timesteps - min(agent.config.learning_starts, agent.num_timesteps)
    conditioned = method.endswith("conditioned")
    return {
        "task": task,
        "method": method,
        "budget": None if method in PLAIN or conditioned else budget,
        "units": units,
        "seed": agent.config.seed,
        "run": dataclasses.asdict(config),
        "settings": agent.config.to_dict(),
        "exit_flops": list(agent.policy.flops) if hasattr(agent, "exits") else [agent.flops_per_action],
        "curve": curve,
        "gates": gates[:: max(len(gates) // 200, 1)],
        "acting_flops_a_step": agent.meter.totals["act"] / max(policy_steps, 1),
        "learning_flops": int(agent.meter.totals["learn"]),
        "final": {f"{b:g}": outcome_of(run, b) for b in BUDGETS} if conditioned else outcome_of(run, None),
    }


def outcome_of(run: Run, budget: float | None) -> dict[str, Any]:
    """Evaluate the agent of a run, at a budget that its observations are to hold, and return every episode, too."""
    if budget is not None:
        run.evaluation_env.get_wrapper_attr("set_budget")(budget)
    with undisturbed(run.agent, run.evaluation_env):
        result = evaluate_policy(run.agent, run.evaluation_env, FINAL_EPISODES, REPORT_SEED)
    return {**result.summary(), **run.agent.spending(result.shares), "by_episode": result.by_episode()}


def stored(task: str) -> list[dict[str, Any]]:
    """Return the stored runs of one task."""
    return [json.loads(path.read_text()) for path in sorted((FOLDER / task).glob("*.json"))]


def main() -> None:
    """Run one training and store its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    running = parser.add_subparsers(dest="command", required=True).add_parser("run", help="train one method")
    running.add_argument("task", choices=TASKS)
    running.add_argument("method", choices=METHODS)
    running.add_argument("--budget", type=float, default=0.5)
    running.add_argument("--seed", type=int, required=True)
    running.add_argument("--steps", type=int, default=200_000)
    running.add_argument("--units", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    name = name_of(given.method, given.budget, given.units, given.steps, given.seed)
    folder = RUNS / given.task / name
    record = train(given.task, given.method, given.budget, given.seed, given.steps, given.units, folder)
    store(FOLDER / given.task / f"{name}.json", record)
    print(json.dumps({key: record[key] for key in ("method", "budget", "acting_flops_a_step")}))


if __name__ == "__main__":
    main()
