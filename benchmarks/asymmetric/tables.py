"""Tables and pictures of the stored runs of the asymmetric study, beside the published numbers.

    python -m benchmarks.asymmetric.tables

Writes, for each task with an asymmetric and a large-only run, ``results/asymmetric/<task>.md`` and ``.json``; of the
longest study of it ``<task>-cloud.png``, every episode's cost and score where a random policy is stored, too, and
``<task>-front.png``, return against FLOPs over the prices of compute, where several are.
"""

from pathlib import Path
from typing import Any

import numpy as np

from agents.report.cloud import plot_cloud
from agents.report.pictures import plot_tradeoff
from agents.report.tradeoff import TradeoffPoint, summarise
from agents.studies.names import presets_of
from benchmarks.asymmetric.costs import FOLDER
from benchmarks.asymmetric.study import BASELINES, EPISODES, PRICES, RANDOM, STUDENTS, VARIANTS, stored
from benchmarks.card import store

ANOTHER_MASTER = "sb3-master"
"""What ``benchmarks.asymmetric.sb3_master`` trains."""
EVALUATIONS = ("deterministic", "stochastic")
SCORES = {"fetch": "share that end at the goal"}
"""What a score is, where it is not the return."""
DIGITS = {"fetch": 3}
"""Behind the point of a score, where not one."""

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
    whole = float(np.mean([flops_an_episode(run["final"][evaluation]) for run in by_method["large-only"]]))
    episodes = [1 - flops_an_episode(final) / whole for final in finals]
    own = row[variant]
    own |= {"saved": saved, "share_large": shares, "mean_saved": float(np.mean(saved))}
    own |= {"saved_an_episode": episodes, "mean_saved_an_episode": float(np.mean(episodes))}
    best = int(np.argmax(own["scores"]))
    row["best"] = {"score": own["scores"][best], "share_large": shares[best], "saved": saved[best]}
    return row


def flops_an_episode(final: dict[str, Any]) -> float:
    """Return the mean FLOPs of a whole episode: a policy that takes more steps to the goal spends more."""
    if "by_episode" not in final:  # few seeds of a short trial keep no episodes
        return float(final["flops_per_step"])
    return float(np.mean([episode["flops"] for episode in final["by_episode"]]))


def scores_of(runs: list[dict[str, Any]], evaluation: str) -> dict[str, Any]:
    """Return seeds, scores, their mean and standard deviation (of the sample) of one method's runs."""
    scores = [run["final"][evaluation].get("success_rate", run["final"][evaluation]["raw_return"]) for run in runs]
    return {
        "seeds": [run["seed"] for run in runs],
        "scores": scores,
        "mean": float(np.mean(scores)) if runs else None,
        "std": float(np.std(scores, ddof=1)) if len(runs) > 1 else None,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    task = rows[0]["task"]
    digits = DIGITS.get(task, 1)
    lines = [
        f"{task}: {SCORES.get(task, 'mean undiscounted return')} of {EPISODES[task]} seeded episodes, mean ± standard "
        "deviation over seeds (number of seeds). FLOPs of acting, master included, `matmul` convention; saved is "
        "against large-only, a step and a whole episode.",
        "",
        "| method | steps | acting | small-only | large-only | fit | gail | bc | score | on large | saved a step "
        "| saved an episode | best | on large | saved |",
        f"|{'---|' * 15}",
    ]
    for row in rows:
        own, best = row[row["method"]], row["best"]
        cells = [
            row["method"],
            f"{row['steps']:,}",
            row["evaluation"],
            *(spread(row[method], digits) for method in ("small-only", "large-only", "fit", *STUDENTS, row["method"])),
            f"{np.mean(own['share_large']):.1%}",
            f"{own['mean_saved']:.1%}",
            f"{own['mean_saved_an_episode']:.1%}",
            f"{best['score']:.{digits}f}",
            f"{best['share_large']:.1%}",
            f"{best['saved']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    published = PUBLISHED[task] | PUBLISHED_STUDENTS[task]
    mean, best = published["mean"], published["best"]
    scores = " | ".join(str(published[name]) for name in ("small", "large", "fit", *STUDENTS))
    of_mean = f"{mean[0]} (5) | {mean[1]} % | {mean[2]} % | –"
    lines.append(
        f"| published | {PUBLISHED_STEPS[task]:,} | – | {scores} | {of_mean} | {best[0]} | {best[1]} % | {best[2]} % |"
    )
    return "\n".join(lines) + "\n"


def spread(scores: dict[str, Any], digits: int) -> str:
    """Return mean, standard deviation and number of seeds as text."""
    if scores["mean"] is None:
        return "–"
    deviation = "" if scores["std"] is None else f" ± {scores['std']:.{digits}f}"
    return f"{scores['mean']:.{digits}f}{deviation} ({len(scores['seeds'])})"


def points_of(runs: list[dict[str, Any]], methods: tuple[str, ...], evaluation: str) -> list[TradeoffPoint]:
    """Return the runs of some methods as points of a comparison."""
    points = []
    for run in runs:
        if run["method"] not in methods:
            continue
        final, priced = run["final"][evaluation], run["method"] in PRICES
        extras = {"baseline": not priced, "share_large": final["share_large"]}
        extras |= {"weight": run["settings"]["weight"]} if priced else {}
        name, label = (
            ("asymmetric", f"asymmetric, λ = {run['settings']['weight']:g}") if priced else (run["method"],) * 2
        )
        curve = [(point["step"], point["return"]) for point in run["curve"]]
        points.append(TradeoffPoint.from_episodes(name, label, run["seed"], final["by_episode"], curve, extras))
    return points


def draw(task: str, runs: list[dict[str, Any]]) -> list[Path]:
    """Draw the cloud and the λ front of the runs of one length; return what was drawn."""
    methods, pictures = {run["method"] for run in runs}, []
    if not {"asymmetric", "large-only"} <= methods:
        return []
    title = f"{task}, {runs[0]['run']['steps']:,} steps"
    chance = [run["final"]["deterministic"]["raw_return"] for run in runs if run["method"] == RANDOM]
    if chance:
        rows = summarise(points_of(runs, ("asymmetric", *BASELINES, *STUDENTS), "deterministic"))
        pictures.append(plot_cloud(rows, chance[0], FOLDER / f"{task}-cloud.png", title))
    if len(methods & set(PRICES)) > 1:
        rows = summarise(points_of(runs, (*PRICES, *BASELINES), "deterministic"))
        pictures.append(plot_tradeoff(rows, FOLDER / f"{task}-front.png", title))
    return [picture for picture in pictures if picture is not None]


def rows_of(task: str) -> list[dict[str, Any]]:
    """Return the rows of a task's table, one for each method, length and way of evaluating that has runs."""
    runs, rows = stored(task), []
    for steps in sorted({run["run"]["steps"] for run in runs}):
        same = [run for run in runs if run["run"]["steps"] == steps]
        rows += [
            summary_of(task, variant, evaluation, same)
            for variant in (*VARIANTS, ANOTHER_MASTER)
            for evaluation in EVALUATIONS
        ]
    return [row for row in rows if row is not None]


def tabulate() -> str:
    """Write every task's table and pictures, and return the tables as text."""
    texts = []
    for task in presets_of("asymmetric"):
        rows, runs = rows_of(task), stored(task)
        if rows:
            texts.append(markdown(rows))
            (FOLDER / f"{task}.md").write_text(texts[-1])
            store(FOLDER / f"{task}.json", {"rows": rows, "published": PUBLISHED[task] | PUBLISHED_STUDENTS[task]})
            longest = max(run["run"]["steps"] for run in runs)
            draw(task, [run for run in runs if run["run"]["steps"] == longest])
    return "\n".join(texts)


if __name__ == "__main__":
    print(tabulate())
