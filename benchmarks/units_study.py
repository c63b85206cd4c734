"""What pruning buys beside training the small network from scratch: the table of a comparison that has trained units.

    budget tradeoff --preset lunar-lander-units --folder FOLDER      # train, which takes hours
    python -m benchmarks.units_study lunar-lander FOLDER             # store what its run folders say
    python -m benchmarks.units_study                                 # the tables anew, of what is stored

Stores ``results/units/study-<name>.json``, a row for each training, and ``.md``, the table.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from agents.runs.records import read_config, read_json, read_rows
from benchmarks.card import RESULTS, store
from budget_wrappers.functional.intervals import t_quantile

FOLDER = RESULTS / "units"
LAST = 0.8
"""Share of a run after which returns count; θ are fixed at that point."""


def row_of(folder: Path) -> dict[str, Any]:
    """Return what is stored of one training."""
    config, point = read_config(folder), read_json(folder / "tradeoff.json")["points"][0]
    steps, acting = config["run"]["steps"], "q_network" if "DQN" in config["agent"] else "actor"
    training, evaluations = list(read_rows(folder, "training")), list(read_rows(folder, "evaluation"))
    fixed = LAST * steps
    late = [row["raw_return"] for row in evaluations if row["step"] > fixed]
    row = {
        "method": point["label"],
        "seed": point["seed"],
        "steps": steps,
        "parameters": parameters_of(folder / "checkpoint.safetensors", acting),
        "flops_per_step": point["flops_per_step"],
        "final_return": point["mean_return"],
        "returns_at_the_end": late,
        "steps_per_second_at_first": speed(training, 0.1 * steps, 0.2 * steps),
        "steps_per_second_at_the_end": speed(training, fixed, steps),
    }
    key = f"loss/units/{acting}/undecided"
    if any(key in one for one in training):
        before = [one for one in training if one["step"] < fixed and key in one]
        by_step = {one["step"]: one["raw_return"] for one in evaluations}
        last, first = max(s for s in by_step if s < fixed), min(s for s in by_step if s >= fixed)
        row |= {
            "undecided_when_fixed": before[-1][key],
            "parameters_before": before[-1][f"loss/units/{acting}/parameters"],
            "return_before_rounding": by_step[last],
            "return_after_rounding": by_step[first],
        }
    return row


def parameters_of(path: Path, network: str) -> int:
    """Return how many numbers a network has in a checkpoint."""
    with safe_open(path, "numpy") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys() if key.startswith(f"module/{network}/")]  # noqa: SIM118
    return int(sum(np.prod(shape) for shape in shapes))


def speed(rows: list[dict[str, Any]], start: float, end: float) -> float:
    """Return environment steps a second between two steps, as the clock saw them beside other work."""
    seconds = [row["clock"]["steps_per_second"] for row in rows if start < row["step"] <= end]
    return len(seconds) / sum(1.0 / own for own in seconds)


def difference(own: list[float], others: list[float]) -> tuple[float, float]:
    """Return the difference of two means and half of its interval: Welch's, of 95 %."""
    a, b = np.array(own), np.array(others)
    if min(len(a), len(b)) < 2:
        return float(a.mean() - b.mean()), float("nan")
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    total = sum(parts)
    freedom = total**2 / sum(part**2 / (len(own) - 1) for part, own in zip(parts, (a, b), strict=True)) if total else 1
    return float(a.mean() - b.mean()), float(t_quantile(0.975, max(int(freedom), 1)) * np.sqrt(total))


def peer_of(method: str, rows: list[dict[str, Any]]) -> str | None:
    """Return the row from scratch whose number of parameters is nearest to a pruned one's, within a tenth."""
    size = np.mean([row["parameters"] for row in rows if row["method"] == method])
    plain = {row["method"]: row["parameters"] for row in rows if "undecided_when_fixed" not in row}
    near = {name: abs(own - size) / size for name, own in plain.items()}
    best = min(near, key=near.__getitem__)
    return best if near[best] < 0.1 else None


def markdown(record: dict[str, Any]) -> str:
    """Return the table of a stored study."""
    rows = record["rows"]
    methods = sorted({row["method"] for row in rows}, key=lambda name: -max(r["parameters"] for r in of(rows, name)))
    lines = [
        f"{record['env']}, {rows[0]['steps']:,} steps. Returns are means of the evaluations in the last fifth of "
        "training, by seed; intervals are of 95 %, Welch's; steps a second beside other work.",
        "",
        "| method | parameters | FLOPs a step | return, last fifth, by seed | highest | against from scratch "
        "| undecided when fixed | return before and after rounding | steps/s, first and last fifth |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in methods:
        own = of(rows, name)
        peer = peer_of(name, rows) if "undecided_when_fixed" in own[0] else None
        against = "–"
        if peer is not None:
            gain, reach = difference([at_the_end(row) for row in own], [at_the_end(row) for row in of(rows, peer)])
            against = f"{gain:+.0f} ± {reach:.0f} ({peer})"
        cells = [
            name,
            ", ".join(f"{size:,}" for size in sorted({row["parameters"] for row in own})),
            f"{np.mean([row['flops_per_step'] for row in own]):,.0f}",
            ", ".join(f"{at_the_end(row):.0f}" for row in own),
            f"{max(max(row['returns_at_the_end']) for row in own):.0f}",
            against,
            ", ".join(f"{row['undecided_when_fixed']:.2f}" for row in own if "undecided_when_fixed" in row) or "–",
            ", ".join(
                f"{row['return_before_rounding']:.0f} → {row['return_after_rounding']:.0f}"
                for row in own
                if "return_before_rounding" in row
            )
            or "–",
            f"{np.mean([r['steps_per_second_at_first'] for r in own]):.0f}, "
            f"{np.mean([r['steps_per_second_at_the_end'] for r in own]):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def of(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """Return the rows of one method, by seed."""
    return sorted((row for row in rows if row["method"] == method), key=lambda row: row["seed"])


def at_the_end(row: dict[str, Any]) -> float:
    """Return the mean return over the last fifth of a training."""
    return float(np.mean(row["returns_at_the_end"]))


def main() -> None:
    """Store a study, or write the tables of those that are stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of the study")
    parser.add_argument("folder", nargs="?", type=Path, help="of budget tradeoff")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        folders = [path.parent for path in sorted((arguments.folder / "runs").glob("*/tradeoff.json"))]
        first = read_json(folders[0] / "tradeoff.json")
        commit = read_json(folders[0] / "run.json").get("commit")
        trained = re.sub(r" --folder \S+", "", first["command"])
        said = f"python -m benchmarks.units_study {arguments.name} FOLDER"
        record = {"command": said, "trained_by": trained, "commit": commit, "env": first["env_id"]}
        store(FOLDER / f"study-{arguments.name}.json", {**record, "rows": [row_of(folder) for folder in folders]})
    for path in sorted(FOLDER.glob("study-*.json")):
        path.with_suffix(".md").write_text(markdown(json.loads(path.read_text())))
        print(path.with_suffix(".md").relative_to(RESULTS))


if __name__ == "__main__":
    main()
