"""The demonstration again and again: ten disjoint sets of seeds, other threads, other rounding.

    python -m benchmarks.demo --sets 10
    python -m benchmarks.demo --sets 2 --threads 2
    python -m benchmarks.demo --sets 2 --capability default

Stores ``results/demo/<variant>.json``: of each set every row's returns and FLOPs a step, seed by seed, so that a claim
about the demonstration can be held against all of them. ``--capability default`` has torch compute without vector
instructions, whose sums round as another processor's do. Sets that are stored already are kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.report.tradeoff import Comparison
from benchmarks.card import RESULTS, store

SEEDS = 5
"""In a set."""


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
    rows: dict[str, dict[str, list[float]]] = {}
    for point in Comparison.read(folder).points:
        row = rows.setdefault(point.label, {"seeds": [], "returns": [], "flops_per_step": []})
        row["seeds"].append(point.seed)
        row["returns"].append(point.mean_return)
        row["flops_per_step"].append(point.flops_per_step)
    return {"set": number, "seconds": round(time.perf_counter() - begin, 1), "rows": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sets that are missing and store them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--capability", default=None, help="of ATEN_CPU_CAPABILITY, such as default")
    options = parser.parse_args(arguments)
    path = RESULTS / "demo" / f"threads{options.threads}-{options.capability or 'best'}.json"
    sets = json.loads(path.read_text())["sets"] if path.is_file() else []
    for number in range(options.sets):
        if number in [one["set"] for one in sets]:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            sets.append(one_set(number, options.threads, options.capability, Path(temporary) / "demo"))
        store(path, {"threads": options.threads, "capability": options.capability, "sets": sets})
        print(json.dumps({key: sets[-1][key] for key in ("set", "seconds")}), flush=True)


if __name__ == "__main__":
    main()
