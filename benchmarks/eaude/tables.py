"""Tables and pictures of the stored runs of EauDeQN's studies, beside the null model and the dense population.

    python -m benchmarks.eaude.tables

Writes ``results/eaude/<task>.md`` for each task with stored runs, and ``<task>.png``: sparsity against steps at each
width, with the band of the null model's drift, and return against sparsity.
"""

import functools
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.eaude.study import FOLDER, GENERATIONS, METHODS, TASKS, stored
from budget_wrappers.functional.intervals import interquartile_mean, t_interval
from budget_wrappers.selection.population import REGIMES, Exploration, Population

LAST = 0.2
"""Share of a run whose training returns count."""
NULL_RUNS = 100
NAMES = {
    "plain": "agent alone",
    "dense": "dense population",
    "eaude": "EauDe",
    "null": "null model",
    "polyprune": "PolyPrune .95",
    "polyprune-found": "PolyPrune, sparsity found",
    "ambitious": "EauDe, ambitious",
    "aggressive": "EauDe, aggressive",
}


def widths_of(task: str) -> list[int]:
    """Return the widths of which runs of the task's full length are stored."""
    steps = TASKS[task][1]
    return sorted(
        {int(path.name.split(f"-{steps}-")[0].rpartition("-")[2]) for path in (FOLDER / task).glob(f"*-{steps}-*")}
    )


def late_return(run: dict[str, Any]) -> float:
    """Return the mean return of the training episodes that ended in the last fifth of a run."""
    first = (1 - LAST) * run["steps"]
    rows, before = [], 0
    for row in run["curve"]:
        count, before = row["episodes"] - before, row["episodes"]
        if row["step"] > first and row["return"] is not None and count:
            rows.append((row["return"], count))
    values, counts = zip(*rows, strict=True)
    return float(np.average(values, weights=counts))


@functools.cache
def null_band(growth: float, generations: int = GENERATIONS) -> np.ndarray:
    """Return the sparsity that random selection drifts to, ``(3, generations + 1)``: 5 %, median and 95 % of runs."""
    curves = []
    for seed in range(NULL_RUNS):
        population = Population(Exploration(max_growth=growth, growth_cap=10 / generations, selection="random"))
        rng, own = np.random.default_rng(seed), [0.0]
        for step in range(generations):
            population.advance(step, step + 1, generations, rng)
            own.append(float(population.sparsities[population.crowned]))
        curves.append(own)
    return np.quantile(np.array(curves), [0.05, 0.5, 0.95], axis=0)


def row_of(runs: list[dict[str, Any]], dense: float | None) -> list[str]:
    """Return the cells of one row.

    Args:
        runs: of one method at one width.
        dense: mean return of the agent alone, by which returns are divided.
    """
    returns = [late_return(run) for run in runs]
    centre = float(interquartile_mean(np.array(returns)))
    low, high = t_interval(returns) if len(returns) > 1 else (math.nan, math.nan)
    final = [run["final"] for run in runs]

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    said = [own["sparsities"] for own in final]
    nominal = [own.get("crowned/nominal", own.get("q_network", own.get("critic", 0.0))) for own in said]
    effective = [
        own.get("crowned/effective", own.get("q_network/effective", own.get("critic/effective", 0.0))) for own in said
    ]
    return [
        ", ".join(f"{own:.1f}" for own in returns),
        f"{centre:.1f}",
        f"{low:.1f} … {high:.1f}" if len(returns) > 1 else "–",
        f"{centre / dense:.2f}" if dense else "–",
        f"{mean(nominal):.3f}",
        f"{mean([own['sparsity'] for own in final]):.3f}",
        f"{mean(effective):.3f}",
        f"{mean([own['flops_per_step'] for own in final]):,.0f}",
        f"{2 * mean([own['nonzero'] for own in final]):,.0f}",
        f"{mean([run['seconds'] for run in runs]) / 60:.0f}",
    ]


def markdown(task: str) -> str:
    """Return the table of one task."""
    env, steps, _ = TASKS[task]
    drift = {name: null_band(growth)[:, -1] for name, growth in REGIMES.items()}
    lines = [
        f"{env}, {steps:,} steps, {GENERATIONS} generations, growth cap {10 / GENERATIONS}. Return: of the training "
        "episodes in the last fifth, by seed, their interquartile mean (of fewer than four seeds the mean) and "
        "Student's interval of 95 %. Sparsities of the crowned member. FLOPs of one action of what acts, `matmul` "
        "convention; nonzero: two for each weight of the pruned network that is not 0. Minutes beside other work.",
        "",
        "Random selection drifts to a sparsity of "
        + ", ".join(f"{own[1]:.3f} ({own[0]:.3f} … {own[2]:.3f}) in the {name} regime" for name, own in drift.items())
        + f" (median and 90 % of {NULL_RUNS} simulated runs).",
        "",
        "| width | method | return by seed | mean | interval | of the agent alone | nominal | realised | effective "
        "| FLOPs | nonzero | minutes |",
        f"|{'---|' * 12}",
    ]
    for width in widths_of(task):
        plain = stored(task, width, "plain", steps)
        dense = float(np.mean([late_return(run) for run in plain])) if plain else None
        for method in METHODS:
            if runs := stored(task, width, method, steps):
                lines.append(f"| {' | '.join([f'2×{width}', NAMES[method], *row_of(runs, dense)])} |")
    return "\n".join(lines) + "\n"


def picture(task: str, path: Path) -> None:
    """Draw sparsity against steps at each width, and return against sparsity."""
    steps, widths = TASKS[task][1], widths_of(task)
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(4.2 * (len(widths) + 1), 3.6), layout="constrained")
        *axes, last = figure.subplots(1, len(widths) + 1, squeeze=False)[0]
        for axis, width in zip(axes, widths, strict=True):
            draw_sparsity(axis, task, width, steps)
        for number, method in enumerate(METHODS):
            for width, marker in zip(widths, "os^Dv", strict=False):
                if runs := stored(task, width, method, steps):
                    x, y = [run["final"]["sparsity"] for run in runs], [late_return(run) for run in runs]
                    last.scatter(x, y, color=f"C{number}", marker=marker, s=18, label=f"{NAMES[method]}, 2×{width}")
        last.set(title=task, xlabel="sparsity at the end", ylabel="return, last fifth of training")
        last.legend(fontsize=6)
        figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_sparsity(axis: Any, task: str, width: int, steps: int) -> None:
    """Draw the sparsity of each run's crowned member against steps, over the null model's band."""
    band = null_band(REGIMES["mild"])
    thousands = np.linspace(0, steps / 1000, band.shape[1])
    axis.fill_between(thousands, band[0], band[2], color="0.85", label="null model, simulated")
    for number, method in enumerate(METHODS):
        if method in ("plain", "dense"):
            continue
        for place, run in enumerate(stored(task, width, method, steps)):
            keys = ("crowned/realised", "q_network", "critic")
            curve = [(row["step"] / 1000, row["sparsity"].get(key)) for row in run["curve"] for key in keys]
            points = [(step, share) for step, share in curve if share is not None]
            label = NAMES[method] if place == 0 else None
            axis.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1, label=label)
    xlabel, ylabel = "thousand environment steps", "sparsity of the crowned member"
    axis.set(title=f"2×{width}", xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    axis.legend(fontsize=7)


def main() -> None:
    """Write them."""
    for task in TASKS:
        if (FOLDER / task).is_dir() and widths_of(task):
            (FOLDER / f"{task}.md").write_text(markdown(task))
            picture(task, FOLDER / f"{task}.png")
            print(f"eaude/{task}.md")


if __name__ == "__main__":
    main()
