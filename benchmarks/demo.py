"""The demonstration again and again: ten disjoint sets of seeds, other threads, other rounding; and what it claims.

    python -m benchmarks.demo --sets 5
    python -m benchmarks.demo --first 5 --sets 5 --threads 2 --capability default
    python -m benchmarks.demo --check runs/demo

Stores ``results/demo/<variant>.json``: of each set every row's returns and FLOPs a step, seed by seed.
``--capability default`` has torch compute without vector instructions, whose sums round as another processor's do. Sets
that are stored already are kept. ``--check`` holds a folder of ``make demo`` against the claim, and fails where it is
outside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.report.tradeoff import Comparison
from benchmarks.card import RESULTS, store

SEEDS = 5
"""In a set."""
REFERENCE = "sac, as trained"

Rows = Mapping[str, Mapping[str, Sequence[float]]]
"""Label -> ``seeds``, ``returns`` and ``flops_per_step``, seed by seed."""


@dataclass(frozen=True)
class Claim:
    """What the demonstration says of a row, on every seed.

    Attributes:
        kept: least and most share of the return as trained.
        spent: least and most share of the FLOPs as trained.
    """

    kept: tuple[float, float]
    spent: tuple[float, float]


CLAIMS: Mapping[str, Claim] = {
    "sac, b = 0.2": Claim((0.90, 1.05), (0.20, 0.32)),
    "coin of sac, b = 0.2": Claim((0.50, 1.05), (0.20, 0.32)),
    "student of sac, b = 0.2": Claim((0.00, 1.05), (0.20, 0.32)),
    "sac, b = 0": Claim((0.60, 1.05), (0.08, 0.09)),
    "coin of sac, b = 0": Claim((0.40, 1.05), (0.08, 0.09)),
    "student of sac, b = 0": Claim((0.00, 1.05), (0.08, 0.09)),
    "student:16 of sac": Claim((-0.20, 0.97), (0.008, 0.009)),
    "student:4 of sac": Claim((-0.30, 0.85), (0.001, 0.002)),
}
"""What was seen in ``results/demo``, and room around it: another machine draws other seeds of what is chaotic."""


def broken(rows: Rows) -> list[str]:
    """Return a sentence for each seed of ``rows`` that is outside of what is claimed; none for a claim that holds."""
    reference, found = rows[REFERENCE], []
    for label, claim in CLAIMS.items():
        row = rows[label]
        for seed, value, flops in zip(row["seeds"], row["returns"], row["flops_per_step"], strict=True):
            shares = {"return": (value / reference["returns"][0], claim.kept)}
            shares["FLOPs"] = (flops / reference["flops_per_step"][0], claim.spent)
            for name, (share, (least, most)) in shares.items():
                if not least <= share <= most:
                    found.append(
                        f"{label}, seed {seed:g}: {share:.3f} of the {name} as trained, claimed {least} to {most}"
                    )
    return found


def rows_of(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return the rows of a comparison."""
    rows: dict[str, dict[str, list[float]]] = {}
    for point in Comparison.read(folder).points:
        row = rows.setdefault(point.label, {"seeds": [], "returns": [], "flops_per_step": []})
        row["seeds"].append(point.seed)
        row["returns"].append(point.mean_return)
        row["flops_per_step"].append(point.flops_per_step)
    return rows


def one_set(number: int, threads: int, capability: str | None, folder: Path) -> dict[str, Any]:
    """Run the demonstration on the seeds of one set and return its rows.

    Args:
        number: of the set; it has the seeds ``5 · number`` to ``5 · number + 4``.
        threads: that OpenMP is told.
        capability: that torch is told, ``None`` for the best.
        folder: for its runs.
    """
    seeds = [str(SEEDS * number + offset) for offset in range(SEEDS)]
    words = ["tradeoff", "--preset", "demo", "--seeds", *seeds, "--folder", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    env |= {} if capability is None else {"ATEN_CPU_CAPABILITY": capability}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "agents.cli", *words], env=env, check=True, stdout=subprocess.DEVNULL)
    return {"set": number, "seconds": round(time.perf_counter() - begin, 1), "rows": rows_of(folder)}


def check(folder: Path) -> None:
    """Exit with an error where the demonstration in ``folder`` is outside of what is claimed."""
    if found := broken(rows_of(folder)):
        sys.exit("\n".join(found))
    print(f"{len(CLAIMS)} rows of {folder} are within what is claimed, on every seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sets that are missing and store them as they come, or check one folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--capability", default=None, help="of ATEN_CPU_CAPABILITY, such as default")
    parser.add_argument("--check", type=Path, default=None, help="a folder that `make demo` wrote")
    options = parser.parse_args(arguments)
    if options.check is not None:
        check(options.check)
        return
    path = RESULTS / "demo" / f"threads{options.threads}-{options.capability or 'best'}.json"
    sets = json.loads(path.read_text())["sets"] if path.is_file() else []
    for number in range(options.first, options.first + options.sets):
        if number in [one["set"] for one in sets]:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            sets.append(one_set(number, options.threads, options.capability, Path(temporary) / "demo"))
        store(path, {"threads": options.threads, "capability": options.capability, "sets": sets})
        told = {key: sets[-1][key] for key in ("set", "seconds")} | {"broken": broken(sets[-1]["rows"])}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
