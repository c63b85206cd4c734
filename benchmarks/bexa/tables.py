"""Tables and pictures of BEXA's stored runs.

    python -m benchmarks.bexa.tables

Writes, for each task with stored runs, ``results/bexa/<task>.md`` and ``.json``: returns, what acting cost over the
whole training beside the plain agent's (same steps and widths, seeds that both have), and the executed cost beside the
budget; ``<task>-budget.png``, executed FLOPs against the budget with a straight line through them, where a method has
three budgets or more; and, for each plain agent with runs of its exits beside it, ``<task>-<agent>-…-curves.png``,
returns while training, and ``…-front.png``, return against acting FLOPs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.report.pictures import DOTS_PER_INCH, FAINT_INK, INK, METHOD_COLOURS, plot_curves, plot_tradeoff
from agents.report.tradeoff import TradeoffPoint, summarise
from benchmarks.bexa.study import FOLDER, PLAIN, TASKS, stored
from benchmarks.card import store
from budget_wrappers.files import replacing

Run = dict[str, Any]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the sample's standard deviation (0 of one) and the values."""
    own = [float(value) for value in values]
    return {"mean": float(np.mean(own)), "std": float(np.std(own, ddof=1)) if len(own) > 1 else 0.0, "each": own}


def plain_of(method: str) -> str:
    """Return the plain agent that a method is compared with."""
    return method if method in PLAIN else method.split("-")[1]


def key_of(run: Run) -> tuple[Any, ...]:
    """Return what runs of one row share: all but the seed."""
    return run["method"], run["budget"], run["units"], run["run"]["steps"]


def table_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each method, budget, width and length; one for each budget of a conditioned agent."""
    rows = []
    for key in sorted({key_of(run) for run in runs}, key=lambda key: tuple(map(str, key))):
        own = [run for run in runs if key_of(run) == key]
        method, budget, units, steps = key
        peers = {run["seed"]: run for run in runs if key_of(run) == (plain_of(method), None, units, steps)}
        # What a conditioned agent did while training was at budgets that were drawn, not at that of any row.
        drawn = "raw_return" not in own[0]["final"]
        common = [] if drawn or method in PLAIN else [run for run in own if run["seed"] in peers]
        common = [run for run in common if run["acting_flops_a_step"]]
        row = {
            "method": method,
            "budget": budget,
            "units": units,
            "steps": steps,
            "seeds": [run["seed"] for run in own],
            "over_training": None
            if drawn
            else spread([np.mean([point["return"] for point in run["curve"]]) for run in own]),
            "acting_flops": None if drawn else spread([run["acting_flops_a_step"] for run in own]),
            "speed_up": spread([peers[r["seed"]]["acting_flops_a_step"] / r["acting_flops_a_step"] for r in common])
            if common
            else None,
        }
        rows += [row | final_of(own, at) for at in (own[0]["final"] if drawn else [None])]
    return rows


def final_of(runs: Sequence[Run], at: str | None) -> dict[str, Any]:
    """Return the final evaluations of ``runs``, of a conditioned agent at one of its budgets."""
    finals = [run["final"] if at is None else run["final"][at] for run in runs]
    found: dict[str, Any] = {} if at is None else {"budget": float(at)}
    found |= {
        "final": spread([final["raw_return"] for final in finals]),
        "flops_per_step": spread([final["flops_per_step"] for final in finals]),
    }
    return found | ({"cost": spread([final["cost"] for final in finals])} if "cost" in finals[0] else {})


def lines_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a straight line through executed FLOPs over the budget for each method with three budgets or more.

    ``overdraft`` is the largest mean normalised cost less its budget.
    """
    found = []
    for method, units, steps in dict.fromkeys((row["method"], row["units"], row["steps"]) for row in rows):
        own = [row for row in rows if (row["method"], row["units"], row["steps"]) == (method, units, steps)]
        own = [row for row in own if "cost" in row]
        if len(own) < 3:
            continue
        points = np.array([(row["budget"], value) for row in own for value in row["flops_per_step"]["each"]])
        slope, intercept = np.polyfit(points[:, 0], points[:, 1], 1)
        residual = points[:, 1] - (slope * points[:, 0] + intercept)
        total = np.square(points[:, 1] - points[:, 1].mean()).sum()
        found.append(
            {
                "method": method,
                "units": units,
                "steps": steps,
                "budgets": [row["budget"] for row in own],
                "slope": float(slope),
                "intercept": float(intercept),
                "r_squared": float(1 - np.square(residual).sum() / total) if total else 0.0,
                "overdraft": max(row["cost"]["mean"] - row["budget"] for row in own),
                "points": points.tolist(),
            }
        )
    return found


def markdown(task: str, rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> str:
    """Return both as Markdown tables."""
    text = [
        f"{TASKS[task]}: mean ± standard deviation over seeds (number of seeds). Returns are undiscounted, of the mean "
        "action with gates drawn; over training, the mean of all evaluations. Acting FLOPs are in the `matmul` "
        "convention, gates included, of all steps that the policy drove; speed-up is the plain agent's over them, on "
        "common seeds. The executed cost is of the final evaluation, in the unit of b.",
        "",
        "| method | b | units | steps | over training | final | acting FLOPs a step | speed-up | executed cost |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["method"],
            "–" if row["budget"] is None else f"{row['budget']:g}",
            f"{row['units'] or 256}",
            f"{row['steps']:,}",
            cell(row["over_training"], 1),
            cell(row["final"], 1),
            cell(row["acting_flops"], 0),
            cell(row["speed_up"], 2),
            cell(row.get("cost"), 3),
        ]
        text.append(f"| {' | '.join(cells)} |")
    if lines:
        text += [
            "",
            "| method | units | steps | budgets | R² of executed FLOPs over b | largest cost − b |",
            "|---|---|---|---|---|---|",
        ]
    for line in lines:
        budgets = ", ".join(f"{budget:g}" for budget in line["budgets"])
        text.append(
            f"| {line['method']} | {line['units'] or 256} | {line['steps']:,} | {budgets} | {line['r_squared']:.4f} | "
            f"{line['overdraft']:+.3f} |"
        )
    return "\n".join(text) + "\n"


def cell(value: dict[str, Any] | None, digits: int) -> str:
    """Return one cell, a dash where there is nothing."""
    if value is None:
        return "–"
    deviation = f" ± {value['std']:.{digits}f}" if len(value["each"]) > 1 else ""
    return f"{value['mean']:.{digits}f}{deviation} ({len(value['each'])})"


def plot_budget(task: str, lines: Sequence[dict[str, Any]]) -> None:
    """Draw executed FLOPs against the budget, with a straight line through each method's."""
    figure = Figure(figsize=(7.2, 4.8), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line, colour in zip(lines, METHOD_COLOURS * len(lines), strict=False):
        points = np.array(line["points"])
        ends = np.array([points[:, 0].min(), points[:, 0].max()])
        label = f"{line['method']}, {line['steps']:,} steps, R² {line['r_squared']:.3f}"
        axes.scatter(*points.T, s=26, color=colour, label=label, zorder=2)
        axes.plot(ends, line["slope"] * ends + line["intercept"], color=colour, linewidth=1.2, alpha=0.7)
    axes.set_xlabel("budget b", color=INK)
    axes.set_ylabel("executed acting FLOPs per step (matmul)", color=INK)
    axes.set_title(TASKS[task], loc="left", fontsize=14, fontweight="bold", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT_INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.legend(frameon=False, fontsize=9)
    with replacing(FOLDER / f"{task}-budget.png") as partial:
        figure.savefig(partial, format="png", facecolor="white")


def points_of(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> list[TradeoffPoint]:
    """Return runs as points of a comparison, each named by method, budget and speed-up."""
    speed = {(row["method"], row["budget"]): row["speed_up"] for row in rows}
    points = []
    for run in runs:
        method, found = run["method"], speed[run["method"], run["budget"]]
        label = method if run["budget"] is None else f"{method}, b = {run['budget']:g}"
        label += f": {found['mean']:.1f}× fewer FLOPs" if found else ""
        curve = [(point["step"], point["return"]) for point in run["curve"]]
        extras = {"baseline": method in PLAIN}
        points.append(
            TradeoffPoint.from_episodes(method, label, run["seed"], run["final"]["by_episode"], curve, extras)
        )
    return points


def draw(task: str, runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> None:
    """Draw curves and front of each plain agent and its exits, of one width and length at a time."""
    for plain, units, steps in sorted({(plain_of(r["method"]), r["units"] or 256, r["run"]["steps"]) for r in runs}):
        shown = (plain, f"bexa-{plain}", f"bexa-{plain}-mixture")
        own = [r for r in runs if (r["method"] in shown, r["units"] or 256, r["run"]["steps"]) == (True, units, steps)]
        if len({run["method"] for run in own}) < 2 or plain not in {run["method"] for run in own}:
            continue
        of_these = [row for row in rows if (row["units"] or 256, row["steps"]) == (units, steps)]
        compared = summarise(points_of(own, of_these))
        name, title = f"{task}-{plain}-units{units}-{steps}", f"{TASKS[task]}, {units} units, {steps:,} steps"
        plot_curves(compared, FOLDER / f"{name}-curves.png", title)
        plot_tradeoff(compared, FOLDER / f"{name}-front.png", title)


def main() -> None:
    """Write the tables and pictures of every task with stored runs."""
    for task in TASKS:
        runs = stored(task)
        if not runs:
            continue
        rows = table_rows(runs)
        lines = lines_of(rows)
        text = markdown(task, rows, lines)
        (FOLDER / f"{task}.md").write_text(text)
        store(FOLDER / f"{task}.json", {"rows": rows, "lines": lines})
        if lines:
            plot_budget(task, lines)
        draw(task, runs, rows)
        print(text)


if __name__ == "__main__":
    main()
