"""The published study of asymmetric sub-policies: train one method on one task, or tabulate what is stored.

    python -m benchmarks.asymmetric.study run mountain-car asymmetric --seed 0
    python -m benchmarks.asymmetric.study table

``run`` takes the task's preset; ``large-only`` and ``small-only`` are plain SAC with the preset's settings of that
sub-policy, ``fit`` is plain SAC of the width whose FLOPs are nearest to the stored asymmetric runs' average, and
``no-cost``, ``separate-buffers`` and ``hold-N`` are the ablations. A run goes on from its last checkpoint when
the same command is given again, and ``--steps`` makes a shorter or longer study, kept apart. ``table`` writes
``results/asymmetric/<task>.md`` and ``.json`` from the stored runs.
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

from agents.cli.arguments import PRESETS, presets_of
from agents.common.evaluate import REPORT_SEED, Evaluation, evaluate_policy, undisturbed
from agents.common.log import CONFIG
from agents.common.run import Run, RunConfig
from agents.recipes.asymmetric import Asymmetric, AsymmetricConfig
from agents.sac import SAC
from benchmarks.asymmetric.costs import FOLDER, SIZES
from benchmarks.card import store

RUNS = Path("runs") / "asymmetric"
BASELINES = ("large-only", "small-only", "fit")
STUDENTS = ("gail", "bc")
"""What ``benchmarks.asymmetric.students`` trains: they imitate large-only."""
VARIANTS: dict[str, dict[str, Any]] = {
    "asymmetric": {},
    "no-cost": {"weight": 0.0},
    "separate-buffers": {"shared_buffer": False},
    **{f"hold-{steps}": {"hold": steps} for steps in (1, 2, 10, 20)},
}
"""The method and its ablations: what each changes in the preset."""
EPISODES = {"mountain-car": 200, "swimmer": 50, "ant": 20, "fetch": 100, "walker-stand": 10, "finger-spin": 10}
"""Episodes of the final evaluation, each way of acting; the publication has 200."""


def settings_of(task: str, changes: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run's configuration and the recipe's settings: the preset with ``changes`` over it."""
    table = {**tomllib.loads((PRESETS / "asymmetric" / f"{task}.toml").read_text()), **changes}
    run = {key: table.pop(key) for key in ("env", "steps")}
    run |= {"eval_every": max(run["steps"] // 20, 1_000), "eval_episodes": 5, "tensorboard": False}
    AsymmetricConfig.of(table)  # raises for a misspelt key
    return RunConfig.of({**run, "checkpoint_every": max(run["steps"] // 20, 1_000)}), table


def train(task: str, method: str, seed: int, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train to the end, from the last checkpoint where there is one; return the record of the run."""
    config, recipe = settings_of(task, {**changes, **VARIANTS.get(method, {})})
    recipe |= {"seed": seed}
    agent_class: type = Asymmetric
    if method == "fit":
        width = fit_width(*SIZES[task], average_flops(task, config.steps))
        agent_class, recipe = SAC, {**AsymmetricConfig.of(recipe).sub_policy("large"), "net_arch": (width, width)}
    elif method in BASELINES:
        agent_class, recipe = SAC, AsymmetricConfig.of(recipe).sub_policy(method.removesuffix("-only"))
    with opened(agent_class, recipe, config, folder) as run:
        to_the_end(run)
        return record_of(run, task, method, seed, config)


def opened(agent_class: type, settings: dict[str, Any], config: RunConfig, folder: Path, **parts: Any) -> Run:
    """Return the run of ``folder`` as it was at its last checkpoint, or a new one where there is none."""
    if (folder / CONFIG).exists():
        return Run.resume(agent_class, folder, **parts)
    return Run.start(agent_class, settings, config, folder, **parts)


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


def fit_width(observation: int, action: int, flops: float) -> int:
    """Return H, at least 1, for which a Gaussian actor of 2×H costs nearest to ``flops``: ``2·(O·H + H² + 2·H·A)``."""
    linear = observation + 2 * action
    exact = (math.sqrt(linear**2 + 2 * flops) - linear) / 2
    candidates = (max(math.floor(exact), 1), max(math.ceil(exact), 1))
    return min(candidates, key=lambda h: abs(2 * h * (linear + h) - flops))


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


# ---- the table ------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "mountain-car": {"small": -11.6, "large": 93.6, "fit": 90.5, "best": (93.5, 44.5, 49.0), "mean": (35.5, 50.4, 43)},
    "swimmer": {"small": 35.5, "large": 84.1, "fit": 66.2, "best": (108.8, 54.9, 44.6), "mean": (98.9, 65.2, 34)},
    "ant": {"small": 1690, "large": 3927, "fit": 2553, "best": (3565, 53.9, 39.3), "mean": (2559, 47.8, 45)},
    "fetch": {"small": 0.351, "large": 0.980, "fit": 0.92, "best": (0.935, 46.5, 46.4), "mean": (0.822, 51.3, 42)},
    "walker-stand": {"small": 330, "large": 978, "fit": 820, "best": (967, 5.7, 82.3), "mean": (944, 19.7, 70)},
    "finger-spin": {"small": 33, "large": 978, "fit": 848, "best": (871, 55.2, 37.5), "mean": (830, 38.6, 54)},
}
"""Score of small-only, large-only and fit; score, percentage of steps on large and of FLOPs saved, of the best run and
of the five-run mean."""

PUBLISHED_STUDENTS = {
    "mountain-car": {"gail": -99.9, "bc": 93.3},
    "swimmer": {"gail": 63.2, "bc": 59.7},
    "ant": {"gail": -15.6, "bc": 1374},
    "fetch": {"gail": 0.078, "bc": 0.153},
    "walker-stand": {"gail": 597, "bc": 159},
    "finger-spin": {"gail": 537, "bc": 8},
}
"""Score of students of fit's size, from 25 stretches of 50 pairs of large-only."""

PUBLISHED_STEPS = {task: 100_000 if task == "mountain-car" else 2_500_000 for task in PUBLISHED}


def stored(task: str) -> list[dict[str, Any]]:
    """Return the stored runs of one task."""
    return [json.loads(path.read_text()) for path in sorted((FOLDER / task).glob("*.json"))]


def summary_of(task: str, variant: str, evaluation: str, runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return one row of the table, ``None`` without a run of the variant or a large-only one to compare with."""
    by_method = {
        method: [run for run in runs if run["method"] == method] for method in (variant, *BASELINES, *STUDENTS)
    }
    if not by_method["large-only"] or not by_method[variant]:
        return None
    row: dict[str, Any] = {
        "task": task,
        "method": variant,
        "steps": runs[0]["run"]["steps"],
        "evaluation": evaluation,
        **{method: scores_of(own, evaluation) for method, own in by_method.items()},
    }
    dense = by_method["large-only"][0]["final"][evaluation]["flops_per_step"]
    finals = [run["final"][evaluation] for run in by_method[variant]]
    saved, shares = (
        [1 - final["flops_per_step"] / dense for final in finals],
        [final["share_large"] for final in finals],
    )
    own = row[variant]
    own |= {"saved": saved, "share_large": shares, "mean_saved": float(np.mean(saved))}
    best = int(np.argmax(own["scores"]))
    row["best"] = {"score": own["scores"][best], "share_large": shares[best], "saved": saved[best]}
    return row


def scores_of(runs: list[dict[str, Any]], evaluation: str) -> dict[str, Any]:
    """Return seeds, scores, their mean and standard deviation (of the sample) of one method's runs."""
    scores = [run["final"][evaluation]["raw_return"] for run in runs]
    return {
        "seeds": [run["seed"] for run in runs],
        "scores": scores,
        "mean": float(np.mean(scores)) if runs else None,
        "std": float(np.std(scores, ddof=1)) if len(runs) > 1 else None,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    task = rows[0]["task"]
    lines = [
        f"{task}: mean undiscounted return of {EPISODES[task]} seeded episodes, mean ± standard deviation over seeds "
        "(number of seeds). FLOPs of acting, master included, `matmul` convention; saved is against large-only.",
        "",
        "| method | steps | acting | small-only | large-only | fit | gail | bc | score | on large | saved "
        "| best | on large | saved |",
        f"|{'---|' * 14}",
    ]
    for row in rows:
        own, best = row[row["method"]], row["best"]
        cells = [
            row["method"],
            f"{row['steps']:,}",
            row["evaluation"],
            *(spread(row[method]) for method in ("small-only", "large-only", "fit", *STUDENTS, row["method"])),
            f"{np.mean(own['share_large']):.1%}",
            f"{own['mean_saved']:.1%}",
            f"{best['score']:.1f}",
            f"{best['share_large']:.1%}",
            f"{best['saved']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    published = PUBLISHED[task] | PUBLISHED_STUDENTS[task]
    mean, best = published["mean"], published["best"]
    scores = " | ".join(str(published[name]) for name in ("small", "large", "fit", *STUDENTS))
    of_mean = f"{mean[0]} (5) | {mean[1]} % | {mean[2]} %"
    lines.append(
        f"| published | {PUBLISHED_STEPS[task]:,} | – | {scores} | {of_mean} | {best[0]} | {best[1]} % | {best[2]} % |"
    )
    return "\n".join(lines) + "\n"


def spread(scores: dict[str, Any]) -> str:
    """Return mean, standard deviation and number of seeds as text."""
    if scores["mean"] is None:
        return "–"
    deviation = "" if scores["std"] is None else f" ± {scores['std']:.1f}"
    return f"{scores['mean']:.1f}{deviation} ({len(scores['seeds'])})"


def tabulate() -> str:
    """Write every task's table and return all as text."""
    texts = []
    for task in presets_of("asymmetric"):
        runs = stored(task)
        rows = []
        for steps in sorted({run["run"]["steps"] for run in runs}):
            same = [run for run in runs if run["run"]["steps"] == steps]
            rows += [
                summary_of(task, variant, evaluation, same)
                for variant in VARIANTS
                for evaluation in ("deterministic", "stochastic")
            ]
        rows = [row for row in rows if row is not None]
        if rows:
            texts.append(markdown(rows))
            (FOLDER / f"{task}.md").write_text(texts[-1])
            store(FOLDER / f"{task}.json", {"rows": rows, "published": PUBLISHED[task] | PUBLISHED_STUDENTS[task]})
    return "\n".join(texts)


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train one method on one task")
    running.add_argument("task", choices=presets_of("asymmetric"))
    running.add_argument("method", choices=(*VARIANTS, *BASELINES))
    running.add_argument("--seed", type=int, required=True)
    running.add_argument("--steps", type=int, help="instead of the preset's")
    commands.add_parser("table", help="write the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "table":
        print(tabulate())
        return
    task, method, seed = arguments.task, arguments.method, arguments.seed
    changes = {} if arguments.steps is None else {"steps": arguments.steps}
    steps = settings_of(task, changes)[0].steps
    name = f"{method}-{steps}-seed{seed}"
    record = train(task, method, seed, changes, RUNS / task / name)
    store(FOLDER / task / f"{name}.json", record)
    print(json.dumps({key: value for key, value in record["final"]["deterministic"].items() if key != "by_episode"}))


if __name__ == "__main__":
    main()
