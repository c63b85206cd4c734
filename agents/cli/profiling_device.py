"""``budget profile --device-out``: how long perceptrons of any widths take on this machine, for ``max_latency_us``."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.metering.device_profile import DeviceProfile, fit_device

NETWORKS, NARROWEST, WIDEST = 60, 4, 320


def random_widths(inputs: int, outputs: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Return widths of perceptrons of one to three hidden layers, log-uniform, from an observation to an output.

    Args:
        inputs: of each.
        outputs: of each.
        seed: of the draws.
    """
    rng, found = np.random.default_rng(seed), []
    for number in range(NETWORKS):
        hidden = np.exp(rng.uniform(np.log(NARROWEST), np.log(WIDEST), 1 + number % 3))
        found.append((inputs, *(int(width) for width in hidden), outputs))
    return found


class NumpyRow:
    """One row through a perceptron, by numpy: called without arguments."""

    def __init__(self, widths: Sequence[int]) -> None:
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
        self._engine = NumpyPerceptron(layers, "relu")
        self._row = np.zeros((1, widths[0]), dtype=np.float32)

    def __call__(self) -> np.ndarray:
        """Evaluate it."""
        return self._engine(self._row)


def measure_device(inputs: int, outputs: int, path: Path, samples: int, threads: int) -> tuple[DeviceProfile, str]:
    """Measure, write the profile and return it with a line that says what it is.

    Args:
        inputs: size of an observation.
        outputs: of the network that acts.
        path: of the file.
        samples: timed rows of each network.
        threads: of torch.
    """
    with torch.random.fork_rng(devices=[]):
        found = fit_device(random_widths(inputs, outputs), NumpyRow, engine="numpy", samples=samples, threads=threads)
    found.save(path)
    return found, (
        f"{found.base_us + found.layer_us:.1f} µs for a layer, {1000 * found.product_us:.2f} ns more for each product; "
        f"{100 * found.off_median:.0f} % off on {found.held_out} networks that were held out, "
        f"{100 * found.off_most:.0f} % at most: {path}"
    )


__all__ = ["measure_device"]
