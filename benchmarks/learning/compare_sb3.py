"""Compare our agents with Stable-Baselines3 from the stored runs, and write the table.

``python -m benchmarks.learning.compare_sb3``

Reads ``results/against_sb3/<task>/{ours,sb3}-seed*.json``, writes ``table.md`` and ``table.json`` beside them. A row
passes where our mean over the seeds is at least Stable-Baselines3's mean minus one standard deviation. The runs share a
machine with others, so their clocks say nothing: ``benchmarks/agent_speed.py`` compares speed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.card import RESULTS, store
from benchmarks.learning.protocol import FINAL_EPISODES, TASKS

FOLDER = RESULTS / "against_sb3"
LIBRARIES = ("ours", "sb3")


def runs_of(task: str, library: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the stored runs of one library on one task, ordered by seed."""
    return [json.loads(path.read_text()) for path in sorted((folder / task).glob(f"{library}-seed*.json"))]


def compare(task: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row: mean and standard deviation over the seeds of the final evaluation's mean return.

    The standard deviation is the sample's (n − 1); of one seed it is 0.

    Raises:
        ValueError: other seeds, steps or settings: the runs cannot be compared.
    """
    for key in ("seed", "steps", "settings"):
        one, other = ([run[key] for run in runs] for runs in (ours, theirs))
        if one != other:
            raise ValueError(f"{task}: the runs differ in {key}: ours {one}, Stable-Baselines3's {other}")
    row: dict[str, Any] = {"task": task, "steps": ours[0]["steps"], "seeds": [run["seed"] for run in ours]}
    for library, runs in (("ours", ours), ("sb3", theirs)):
        returns = [run["final"]["mean"] for run in runs]
        row[library] = {
            "returns": returns,
            "mean": float(np.mean(returns)),
            "std": float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0,
        }
    row["threshold"] = row["sb3"]["mean"] - row["sb3"]["std"]
    row["passed"] = row["ours"]["mean"] >= row["threshold"]
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        f"Mean return of {FINAL_EPISODES} seeded episodes of the deterministic policy after training, mean ± standard "
        "deviation over seeds.",
        "",
        "| task | steps | seeds | ours | Stable-Baselines3 | at least its mean − 1 std |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = (f"{row[library]['mean']:.0f} ± {row[library]['std']:.0f}" for library in LIBRARIES)
        verdict = f"{'yes' if row['passed'] else 'no'} ({row['threshold']:.0f})"
        lines.append(f"| {row['task']} | {row['steps']:,} | {len(row['seeds'])} | {ours} | {theirs} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table of every task of which both libraries have the same seeds."""
    rows = []
    for task in TASKS:
        ours, theirs = (runs_of(task, library) for library in LIBRARIES)
        common = {run["seed"] for run in ours} & {run["seed"] for run in theirs}
        if not common:
            print(f"{task}: no seed was run with both libraries yet")
            continue
        ours, theirs = ([run for run in runs if run["seed"] in common] for runs in (ours, theirs))
        rows.append(compare(task, ours, theirs))
    text = markdown(rows)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "table.md").write_text(text)
    store(FOLDER / "table.json", {"rows": rows})
    print(text)


if __name__ == "__main__":
    main()
