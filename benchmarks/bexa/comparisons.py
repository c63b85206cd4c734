"""What BEXA's switches are worth, from the stored runs: programs and losses, ablations, one agent for all budgets.

    python -m benchmarks.bexa.comparisons

Writes ``results/bexa/comparisons.md`` and ``.json``. Differences are between runs of the same seed; beside their mean
stands their range, or from five seeds on the 95 % interval of the mean (Student).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agents.report.spread import spread_of
from benchmarks.bexa.study import BUDGETS, FOLDER, PLAIN, TASKS, VARIANTS, stored
from benchmarks.bexa.tables import cell, key_of, plain_of, spread
from benchmarks.card import store

Run = dict[str, Any]

PROGRAMS = ("", "batch", "mixture", "batch-mixture")
"""Variants that differ in the program and the loss of the gates: each state or the batch, each gate or the mixture."""
PAIRS = (("batch", ""), ("batch-mixture", "mixture"), ("mixture", ""), ("batch-mixture", "batch"))
"""Pairs of them that differ in one thing."""
ABLATED = ("backbone", "ensemble", "imitate", "advantage", "softmax", "greedy", "stepwise", "")


def variant_of(method: str) -> str | None:
    """Return what a method changes, ``None`` of a plain one."""
    return None if method in PLAIN else method.split("-", 2)[2] if method.count("-") > 1 else ""


def groups_of(runs: Iterable[Run], variants: Sequence[str]) -> dict[tuple[Any, ...], dict[str, list[Run]]]:
    """Return runs of some variants, by agent, budget, width and steps, then by variant."""
    groups: dict[tuple[Any, ...], dict[str, list[Run]]] = {}
    for run in runs:
        variant = variant_of(run["method"])
        if variant in variants:
            _, budget, units, steps = key_of(run)
            own = groups.setdefault((plain_of(run["method"]), budget, units, steps), {})
            own.setdefault(variant, []).append(run)
    return groups


def score_of(run: Run) -> float:
    """Return the mean return of all evaluations of a run, which is what the publication ranks by."""
    return float(np.mean([point["return"] for point in run["curve"]]))


def difference(one: Sequence[Run], other: Sequence[Run], what: Any) -> dict[str, Any] | None:
    """Return what ``one`` has more of than ``other``, over their common seeds; ``None`` without any."""
    theirs = {run["seed"]: what(run) for run in other}
    each = [what(run) - theirs[run["seed"]] for run in one if run["seed"] in theirs]
    if not each:
        return None
    ends = spread_of(each)
    return {**spread(each), "low": ends.low, "high": ends.high, "ends": ends.kind}


def programs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return a row for each program and loss at one setting, and what each single change makes of it."""
    rows = []
    for (plain, budget, units, steps), own in groups_of(runs, PROGRAMS).items():
        if len(own) < 2:
            continue
        cells = {
            name: {
                "over_training": spread([score_of(run) for run in own[name]]),
                "final": spread([run["final"]["raw_return"] for run in own[name]]),
                "cost": spread([run["final"]["cost"] for run in own[name]]),
                "beyond_budget": spread([run["final"]["cost"] - budget for run in own[name]]),
                "acting_flops": spread([run["acting_flops_a_step"] for run in own[name]]),
            }
            for name in PROGRAMS
            if name in own
        }
        changes = [
            {
                "with": one,
                "without": other,
                "over_training": difference(own[one], own[other], score_of),
                "final": difference(own[one], own[other], lambda run: run["final"]["raw_return"]),
                "cost": difference(own[one], own[other], lambda run: run["final"]["cost"]),
                "acting_flops": difference(own[one], own[other], lambda run: run["acting_flops_a_step"]),
            }
            for one, other in PAIRS
            if one in own and other in own
        ]
        rows.append(
            {"agent": plain, "budget": budget, "units": units, "steps": steps, "cells": cells, "changes": changes}
        )
    return rows


def ablation(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return, for each setting with at least three of the published ablations, speed-up and returns of each."""
    tables = []
    for (plain, budget, units, steps), own in groups_of(runs, ABLATED).items():
        if len(own) < 3:
            continue
        peers = {run["seed"]: run for run in runs if key_of(run) == (plain, None, units, steps)}
        rows = []
        for name in (name for name in ABLATED if name in own):
            common = [run for run in own[name] if run["seed"] in peers]
            rows.append(
                {
                    "variant": name or "BEXA",
                    "speed_up": spread(
                        [peers[run["seed"]]["acting_flops_a_step"] / run["acting_flops_a_step"] for run in common]
                    )
                    if common
                    else None,
                    "over_training": spread([score_of(run) for run in own[name]]),
                    "final": spread([run["final"]["raw_return"] for run in own[name]]),
                    "cost": spread([run["final"]["cost"] for run in own[name]]),
                }
            )
        if peers:
            alone = list(peers.values())
            rows.append(
                {
                    "variant": f"plain {plain}",
                    "speed_up": None,
                    "over_training": spread([score_of(run) for run in alone]),
                    "final": spread([run["final"]["raw_return"] for run in alone]),
                    "cost": None,
                }
            )
        tables.append({"agent": plain, "budget": budget, "units": units, "steps": steps, "rows": rows})
    return tables


def area_under_front(points: Sequence[tuple[float, float]], reference: float) -> float:
    """Return ``∫₀¹ max(best return at a cost of at most c, reference) − reference dc``.

    Args:
        points: normalised cost and return of each policy.
        reference: return that is worth nothing, and what there is below the cheapest cost.
    """
    area, best, before = 0.0, reference, 0.0
    for cost, score in [*sorted(points), (1.0, reference)]:
        here = min(max(cost, 0.0), 1.0)
        area += (here - before) * (best - reference)
        before, best = here, max(best, score)
    return area


def fronts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one agent for all budgets beside agents trained for one each: fronts, areas and costs of training."""
    found = []
    conditioned = [run for run in runs if variant_of(run["method"]) == "conditioned"]
    for run in conditioned:
        plain, units, seed, steps = plain_of(run["method"]), run["units"], run["seed"], run["run"]["steps"]
        # Both gates' losses are the mixture's.
        apart = {
            other["budget"]: other
            for other in runs
            if (plain_of(other["method"]), variant_of(other["method"])) == (plain, "mixture")
            and (other["units"], other["seed"], other["run"]["steps"]) == (units, seed, steps)
        }
        if len(apart) < 5:
            continue
        apart = dict(sorted(apart.items()))
        one = [(final["cost"], final["raw_return"]) for final in run["final"].values()]
        many = [(other["final"]["cost"], other["final"]["raw_return"]) for other in apart.values()]
        worst = min(score for _, score in one + many)
        found.append(
            {
                "agent": plain,
                "units": units,
                "seed": seed,
                "reference": worst,
                "one": front_of(one, worst, [run], list(map(float, run["final"]))),
                "many": front_of(many, worst, list(apart.values()), list(apart)),
            }
        )
    return found


def front_of(points: list[tuple[float, float]], worst: float, runs: Sequence[Run], budgets: Sequence[float]) -> Any:
    """Return points by budget, the area under their front, and what training took."""
    return {
        "budgets": list(budgets),
        "points": points,
        "area": area_under_front(points, worst),
        "environment_steps": sum(run["run"]["steps"] for run in runs),
        "learning_flops": sum(run["learning_flops"] for run in runs),
    }


def where(row: dict[str, Any]) -> str:
    """Return the setting of a row as text."""
    budget = "" if row.get("budget") is None else f", b = {row['budget']:g}"
    steps = f", {row['steps']:,} steps" if "steps" in row else ""
    return f"{row['agent'].upper()}, {row['units'] or 256} units{budget}{steps}"


def markdown_of_programs(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of programs and losses, and of the differences that one change makes."""
    named = {"": "each state, each gate", "batch": "batch, each gate"}
    named |= {"mixture": "each state, mixture", "batch-mixture": "batch, mixture"}
    text = []
    for row in rows:
        text += [
            f"{where(row)}:",
            "",
            "| program, loss | over training | final | acting FLOPs a step | executed cost − b |",
            "|---|---|---|---|---|",
        ]
        for name, own in row["cells"].items():
            columns = (("over_training", 1), ("final", 1), ("acting_flops", 0), ("beyond_budget", 3))
            cells = [cell(own[what], digits) for what, digits in columns]
            text.append(f"| {named[name]} | {' | '.join(cells)} |")
        text += [
            "",
            "| change | over training | final | acting FLOPs a step | executed cost |",
            "|---|---|---|---|---|",
        ]
        columns = (("over_training", 1), ("final", 1), ("acting_flops", 0), ("cost", 3))
        for change in row["changes"]:
            cells = [interval(change[what], digits) for what, digits in columns]
            text.append(f"| {named[change['without']]} → {named[change['with']]} | {' | '.join(cells)} |")
        text.append("")
    return text


def interval(value: dict[str, Any] | None, digits: int) -> str:
    """Return a difference with the range of its seeds, or its interval, as text; of one seed alone."""
    if value is None:
        return "–"
    if value["ends"] == "nothing":
        return f"{value['mean']:+.{digits}f} (1)"
    return f"{value['mean']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def markdown_of_ablation(tables: Sequence[dict[str, Any]]) -> list[str]:
    """Return the ablation tables."""
    text = []
    for table in tables:
        text += [
            f"{where(table)}:",
            "",
            "| | speed-up | over training | final | executed cost |",
            "|---|---|---|---|---|",
        ]
        for row in table["rows"]:
            cells = [
                cell(row["speed_up"], 2),
                cell(row["over_training"], 1),
                cell(row["final"], 1),
                cell(row["cost"], 3),
            ]
            text.append(f"| {row['variant']} | {' | '.join(cells)} |")
        text.append("")
    return text


def markdown_of_fronts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the tables of one agent for all budgets beside one each."""
    text = []
    for row in rows:
        text += [
            f"{where(row)}, seed {row['seed']}; area under the front of return over normalised cost, above the worst "
            f"return of both, {row['reference']:.1f}:",
            "",
            "| | area | environment steps | FLOPs of learning | executed cost: return |",
            "|---|---|---|---|---|",
        ]
        for name, own in (("one agent, budget as input", row["one"]), ("one agent a budget", row["many"])):
            points = ", ".join(f"{cost:.2f}: {score:.0f}" for cost, score in own["points"])
            cells = [f"{own['area']:.1f}", f"{own['environment_steps']:,}", f"{own['learning_flops']:.3g}", points]
            text.append(f"| {name} | {' | '.join(cells)} |")
        text.append("")
    return text


def compared() -> tuple[str, dict[str, Any]]:
    """Return the comparisons of every task with stored runs, as Markdown and as data."""
    text = [
        "Means ± standard deviations over seeds (number of seeds). Returns over training are means of all evaluations; "
        "final ones are of 20 episodes. Executed costs are of the final evaluation, in the unit of b. Acting FLOPs, in "
        "the `matmul` convention, are of all steps that the policy drove while training; speed-up is the plain agent's "
        "over the method's. Differences: mean [lowest, highest seed's]; of five seeds or more, mean [95 % interval "
        "(Student)].",
        "",
    ]
    record: dict[str, Any] = {"budgets": BUDGETS, "variants": VARIANTS, "tasks": {}}
    for task in TASKS:
        runs = stored(task)
        own = {"programs": programs(runs), "ablation": ablation(runs), "fronts": fronts(runs)}
        record["tasks"][task] = own
        if own["programs"]:
            text += [f"## {TASKS[task]}: programs and losses", "", *markdown_of_programs(own["programs"])]
        if own["ablation"]:
            text += [f"## {TASKS[task]}: ablations", "", *markdown_of_ablation(own["ablation"])]
        if own["fronts"]:
            text += [f"## {TASKS[task]}: the budget as an input", "", *markdown_of_fronts(own["fronts"])]
    return "\n".join(text), record


def main() -> None:
    """Write the comparisons."""
    text, record = compared()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "comparisons.md").write_text(text)
    store(FOLDER / "comparisons.json", record)
    print(text)


if __name__ == "__main__":
    main()
