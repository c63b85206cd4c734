"""Mediate between two trained policies that are left as they are: does a master buy the dear one's return for less?

``python -m benchmarks.asymmetric.mediation --seed 0``

Trains a small and a large SAC on InvertedDoublePendulum-v5 (MuJoCo), freezes both, trains a DQN on
``SubPolicyAction`` over their checkpoints, and evaluates all three on the same episodes; everything as ``budget train``
and ``--sub-policies`` do it, resumable. Writes ``results/asymmetric/mediation/seed<N>.json``, and over all stored seeds
``mediation.md``.

The master is the one with the highest evaluation while training, the price of compute included, on other episodes than
those of the report; what it was at the end is stored, too.
Claimed where small alone returns at most 70 % of large, and the master at least 95 % of that at no more than 60 % of
its FLOPs, its own included.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.dqn import DQN
from agents.loop.checkpoint import load_agent
from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.runs.log import BEST
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from agents.studies.sub_policies import open_sub_policies_with
from benchmarks.asymmetric.costs import FOLDER
from benchmarks.card import store
from budget_wrappers.metering import ComputeMeter

ENVIRONMENT = "InvertedDoublePendulum-v5"
RUNS = Path("runs") / "mediation"
EPISODES = 50
POLICIES: dict[str, tuple[int, dict[str, Any]]] = {
    "small": (12_000, {"net_arch": (16, 16), "learning_rate": 1e-3}),
    "large": (20_000, {"net_arch": (256, 256)}),
}
"""Environment steps and settings of each policy."""

MASTER_STEPS, HOLD, WEIGHT = 20_000, 2, 0.01
MASTER = {
    "net_arch": (32, 32),
    "activation": "tanh",
    "learning_rate": 1e-3,
    "batch_size": 64,
    "learning_starts": 500,
    "train_freq": 1,
    "gradient_steps": 1,
    # Returns are near 10,000: at their own scale the network spends the run on growing to them, and picks one policy.
    "reward_scale": 0.01,
    "target_update_interval": 500,
    "gamma": 0.98,
    # A wrong choice shows only some steps later, when the pole has begun to fall.
    "n_step": 5,
    "exploration_fraction": 0.4,
    "exploration_final_eps": 0.02,
}


def trained(agent_class: type, settings: dict[str, Any], config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train to the end, from the last checkpoint where there is one, and return what the policy earns and spends."""
    with Run.open(agent_class, settings, config, folder) as run:
        if not run.train():
            raise SystemExit("interrupted; the same command goes on from there")
        return outcome_of(run.agent, run.evaluation_env)


def outcome_of(agent: Any, env: gym.Env) -> dict[str, Any]:
    """Return what a policy earns and spends."""
    result = evaluate_policy(agent, env, EPISODES, REPORT_SEED)
    shares = [report["share_steps"] for report in result.compute]
    return {
        **result.summary(),
        "share_steps": {name: float(np.mean([share[name] for share in shares])) for name in shares[0]},
        "by_episode": result.by_episode(),
    }


def study(seed: int) -> dict[str, Any]:
    """Return the record of one seed."""
    common = {"env": ENVIRONMENT, "tensorboard": False}
    folder, outcomes = RUNS / f"seed{seed}", {}
    for name, (steps, settings) in POLICIES.items():
        config = RunConfig(steps=steps, eval_every=steps // 5, **common)
        outcomes[name] = trained(SAC, {**settings, "seed": seed}, config, folder / name)
    paths = tuple(str(folder / name) for name in POLICIES)
    config = RunConfig(
        steps=MASTER_STEPS,
        eval_every=MASTER_STEPS // 20,
        sub_policies=paths,
        sub_policy_hold=HOLD,
        sub_policy_weight=WEIGHT,
        **common,
    )
    last = trained(DQN, {**MASTER, "seed": seed}, config, folder / "master")
    meter = ComputeMeter()
    env = config.make_env(meter)
    outcomes["master"] = outcome_of(load_agent(DQN, folder / "master" / BEST, env, meter, replay=False), env)
    large = outcomes["large"]
    return {
        "environment": ENVIRONMENT,
        "seed": seed,
        "hold": HOLD,
        "weight": WEIGHT,
        "master_steps": MASTER_STEPS,
        "master_settings": MASTER,
        "policies": {name: {"steps": steps, **settings} for name, (steps, settings) in POLICIES.items()},
        "outcomes": outcomes,
        "master_at_the_end": last,
        "small_return": outcomes["small"]["raw_return"] / large["raw_return"],
        "master_return": outcomes["master"]["raw_return"] / large["raw_return"],
        "master_flops": outcomes["master"]["flops_per_step"] / large["flops_per_step"],
    }


def markdown(records: list[dict[str, Any]]) -> str:
    """Return the stored seeds as a Markdown table."""
    lines = [
        f"{ENVIRONMENT}, {EPISODES} seeded episodes, deterministic; FLOPs of acting, the master's included, `matmul` "
        "convention, per environment step.",
        "",
        "| seed | small | FLOPs | large | FLOPs | master | FLOPs | small / large | master / large | FLOPs / large "
        "| master at the end |",
        f"|{'---|' * 11}",
    ]
    for record in records:
        cells = [str(record["seed"])]
        for outcome in record["outcomes"].values():
            cells += [f"{outcome['raw_return']:,.0f}", f"{outcome['flops_per_step']:,.0f}"]
        cells += [f"{record[key]:.1%}" for key in ("small_return", "master_return", "master_flops")]
        last = record["master_at_the_end"]
        cells.append(f"{last['raw_return']:,.0f} at {last['flops_per_step']:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run one seed, or only write the table again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="train and evaluate it; without one, only the table is written")
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    open_sub_policies_with(trust=False)
    if seed is not None:
        store(FOLDER / "mediation" / f"seed{seed}.json", study(seed))
    records = [json.loads(path.read_text()) for path in sorted((FOLDER / "mediation").glob("seed*.json"))]
    text = markdown(records)
    (FOLDER / "mediation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
