"""What zeros in a policy's weights are worth in time: an action of one row, dense, compacted and on sparse weights.

    python -m benchmarks.sparse_latency          # measures every width and sparsity, stores, and prints the table
    python -m benchmarks.sparse_latency --table  # prints the table of what is stored

Two hidden layers, 17 inputs and 6 outputs, weights drawn at random, the smallest of each layer 0 in the shares of
Erdős-Rényi kernels. Every engine acts a while in turn, on one thread, so that a machine that is busy is so for all of
them; ``load`` in the file says how busy it was. Raw data is stored in ``results/sparse_latency/latency.json``.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from agents.nets.mlp import MLP
from benchmarks.card import RESULTS, store
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.deploy.sparse_engine import SparsePerceptron
from budget_wrappers.functional.sparsity import magnitude_masks
from budget_wrappers.metering.latency import measure_latency
from budget_wrappers.modules.compaction import compacted

PATH = RESULTS / "sparse_latency" / "latency.json"
INPUTS, OUTPUTS = 17, 6
WIDTHS, SPARSITIES = (256, 512, 1280, 2048), (0.9, 0.95, 0.99)
CONTENDERS = ("dense", "compacted", "sparse", "compacted and sparse")


def pruned(width: int, sparsity: float) -> MLP:
    """Return a perceptron of two hidden layers, the smallest weights of which are 0."""
    torch.manual_seed(0)
    network = MLP((INPUTS, width, width, OUTPUTS)).requires_grad_(False)
    weights = [layer.weight for layer in network.linears]
    masks = magnitude_masks(weights, sparsity, [torch.ones_like(weight) for weight in weights], "erk")
    for weight, mask in zip(weights, masks, strict=True):
        weight.mul_(mask)
    return network


def measured(width: int, sparsity: float, rounds: int, calls: int) -> dict[str, Any]:
    """Return how long an action takes with each engine, in turns.

    Args:
        width: of both hidden layers.
        sparsity: share of all weights that are 0.
        rounds: turns of each engine.
        calls: actions of a turn.
    """
    network = pruned(width, sparsity)
    small = compacted(network, torch.zeros(1, INPUTS))
    engines: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "dense": NumpyPerceptron(network.linears, "relu"),
        "compacted": NumpyPerceptron(small.linears, "relu"),
        "sparse": SparsePerceptron(network.linears, "relu"),
        "compacted and sparse": SparsePerceptron(small.linears, "relu"),
    }
    row = np.random.default_rng(0).standard_normal((1, INPUTS)).astype(np.float32)
    said = {name: engine(row) for name, engine in engines.items()}
    for name, output in said.items():
        np.testing.assert_allclose(output, said["dense"], rtol=0, atol=1e-5 * np.abs(said["dense"]).max(), err_msg=name)
    turns: dict[str, list[float]] = {name: [] for name in engines}
    load = os.getloadavg()[0]
    for number in range(rounds):
        for name in CONTENDERS[:: 1 if number % 2 else -1]:
            engine = engines[name]
            latency = measure_latency(lambda engine=engine: engine(row), samples=calls, warmup=10, threads=1)
            turns[name].append(round(latency.p50_us, 3))
    return {
        "width": width,
        "sparsity": sparsity,
        "load": [load, os.getloadavg()[0]],
        "widths": {"dense": network.sizes, "compacted": small.sizes},
        "sparse_layers": {
            name: engine.sparse_layers for name, engine in engines.items() if isinstance(engine, SparsePerceptron)
        },
        "p50_us": {name: statistics.median(own) for name, own in turns.items()},
        "ratio": {name: ratio_of(turns["dense"], own) for name, own in turns.items()},
        "turns_us": turns,
    }


def ratio_of(dense: list[float], own: list[float]) -> float:
    """Return how many times as fast as dense: the median of neighbouring turns' ratios."""
    return statistics.median(one / other for one, other in zip(dense, own, strict=True))


def markdown(record: dict[str, Any]) -> str:
    """Return the table of what is stored: microseconds, and in brackets how many times as fast as dense."""
    lines = ["| width | sparsity | dense | compacted | sparse | compacted and sparse |", "|---|---|---|---|---|---|"]
    for row in record["rows"]:
        cells = [f"2×{row['width']}", f"{row['sparsity']:g}", f"{row['p50_us']['dense']:.0f}"]
        cells += [f"{row['p50_us'][name]:.0f} ({row['ratio'][name]:.1f})" for name in CONTENDERS[1:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of what is stored, and measure nothing")
    parser.add_argument("--rounds", type=int, default=41, help="turns of each engine")
    parser.add_argument("--calls", type=int, default=100, help="actions of a turn")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(1)
        rows = []
        for width in WIDTHS:
            for sparsity in SPARSITIES:
                rows.append(measured(width, sparsity, arguments.rounds, arguments.calls))
                shown = {key: value for key, value in rows[-1].items() if key != "turns_us"}
                print(json.dumps(shown), flush=True)
        threads = os.environ.get("OMP_NUM_THREADS")
        store(PATH, {"rounds": arguments.rounds, "calls": arguments.calls, "omp_num_threads": threads, "rows": rows})
    print(markdown(json.loads(PATH.read_text())), end="")


if __name__ == "__main__":
    main()
