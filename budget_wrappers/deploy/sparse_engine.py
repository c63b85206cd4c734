"""Acting on pruned weights: each layer of a perceptron as a dense or as a sparse product, whichever is faster.

A sparse product reads each weight that is left at a fraction of the speed of a dense one. On a control policy of
ordinary width it gains nothing, however sparse: see docs/compaction.md.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from budget_wrappers.arguments import refuse
from budget_wrappers.deploy.numpy_engine import ACTIVATIONS, NumpyPerceptron, addresses_of, bias_of
from budget_wrappers.deploy.sparse_weight import SparseWeight
from budget_wrappers.modules.units import thetas_read

TURNS = 61
"""Passes of each kind, in turns, by which a layer is decided."""
CLEARLY = 0.95
"""A layer runs sparse if the pass takes at most this share of the time: less is the noise of a measurement."""
MOST_FILLED = 0.5
"""Share of weights that are not 0 above which a layer is not tried: a place takes as much memory as a weight."""

Copies: TypeAlias = list[SparseWeight | None]


class SparsePerceptron:
    """``W_L · f(… f(W_1 · x + b_1) …) + b_L`` for float32 rows; one row at a time may run on sparse weights.

    Each layer at least half of whose weights are 0 is tried once on this machine: the whole pass of one row is timed
    with the layer sparse and with it dense. Where no layer runs sparse, and for several rows, this is the numpy engine.
    As the choice is measured, the last digits of an output may differ from one process to the next.

    Meant for a policy that is trained. The copy of a sparse layer is made anew when torch has counted a change of its
    weight, when the weight lies in other memory, or when one of 64 numbers in it is another. Fused optimizers and
    writes through ``.data`` are not counted: after such a write to a few weights, call ``follow``. All other layers are
    evaluated on the module's own memory; where weights have become 0 while no layer ran sparse, ``follow`` tries them.
    A deep copy made together with the module evaluates the module's copy. Gates on units multiply by their θ.

    Args:
        linears: layers from input to output, on the CPU, with a bias or without.
        activation: ``"relu"`` or ``"tanh"``, between layers.
        sparse: for each layer, whether it runs sparse; by default this is measured.

    Attributes:
        sparse_layers: which layers run sparse, from input to output.

    Raises:
        ConfigError: gates on some inputs of a layer only; ``sparse`` of another length.
        MissingExtraError: SciPy, which comes with the package, cannot be imported, and a layer would be tried.

    Example:
        >>> layers = [nn.Linear(3, 8), nn.Linear(8, 2)]
        >>> SparsePerceptron(layers, "relu").sparse_layers  # no weight is 0
        (False, False)
    """

    def __init__(self, linears: Sequence[nn.Linear], activation: str, sparse: Sequence[bool] | None = None) -> None:
        self._linears, self._activation = list(linears), activation
        if sparse is not None and (not isinstance(sparse, list | tuple) or len(sparse) != len(self._linears)):
            refuse("sparse", sparse, f"True or False for each of {len(self._linears)} layers, or None")
        self._numpy = NumpyPerceptron(self._linears, activation)
        self._thetas = [*(thetas_read(layer) for layer in self._linears[1:]), None]
        self._given = None if sparse is None else tuple(map(bool, sparse))
        self._sizes: list[tuple[int, ...]] = []
        self._copies: Copies = []
        self.follow()

    @property
    def sparse_layers(self) -> tuple[bool, ...]:
        """Which layers run sparse, from input to output."""
        return tuple(copy is not None for copy in self._copies)

    def follow(self) -> None:
        """Read the weights anew; where the number of zeros in a layer has changed, the choice is measured anew."""
        self._places = addresses_of(self._linears)
        tensors = [layer.weight for layer in self._linears]
        self._layers = [
            (
                tensor.detach().numpy().T,
                bias_of(layer),
                None if theta is None else theta.detach().numpy(),  # of gates on its units, where they are read
            )
            for tensor, layer, theta in zip(tensors, self._linears, self._thetas, strict=True)
        ]
        before, self._sizes = self._sizes, [(*w.shape, int(np.count_nonzero(w))) for w, *_ in self._layers]
        if self._given is not None:
            tried = self._given
        elif before == self._sizes:
            tried = self.sparse_layers
        else:
            tried = tuple(filled <= MOST_FILLED * inputs * outputs for inputs, outputs, filled in self._sizes)
        copies = [SparseWeight(tensor) if own else None for tensor, own in zip(tensors, tried, strict=True)]
        measured = self._given is None and before != self._sizes
        self._copies = self._faster(copies) if measured else copies
        self._dense = not any(self.sparse_layers)

    def _faster(self, copies: Copies) -> Copies:
        """Return those of ``copies`` with which a pass of one row takes less time, the largest layers decided first."""
        first = self._layers[0][0]
        row = np.random.default_rng(0).standard_normal((1, len(first))).astype(first.dtype)
        chosen: Copies = [None] * len(copies)
        for number in sorted(range(len(copies)), key=lambda number: -self._layers[number][0].size):
            if copies[number] is not None:
                other = [*chosen[:number], copies[number], *chosen[number + 1 :]]
                if ratio_in_turns(self._timed(row, chosen), self._timed(row, other)) <= CLEARLY:
                    chosen = other
        return chosen

    def _timed(self, row: np.ndarray, copies: Copies) -> Callable[[], Any]:
        return lambda: (_any_changed(copies), self._pass(row, copies))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``x`` ``(n, in)``."""
        if self._dense or len(x) != 1:
            return self._numpy(x)
        if addresses_of(self._linears) != self._places or _any_changed(self._copies):
            self.follow()
        return self._pass(x, self._copies)

    def _pass(self, x: np.ndarray, copies: Copies) -> np.ndarray:
        """Return the output ``(1, out)`` for one row ``x`` ``(1, in)``."""
        f, last = ACTIVATIONS[self._activation], len(self._layers) - 1
        for number, ((weight, bias, theta), copy) in enumerate(zip(self._layers, copies, strict=True)):
            x = (x @ weight if copy is None else copy.times(x)) + bias
            if number < last:
                x = f(x) if theta is None else f(x) * theta
        return x


def _any_changed(copies: Copies) -> bool:
    for copy in copies:  # noqa: SIM110  asked at every action
        if copy is not None and copy.changed():
            return True
    return False


def ratio_in_turns(before: Callable[[], Any], after: Callable[[], Any], turns: int = TURNS) -> float:
    """Return how many times as long ``after`` takes as ``before``.

    The calls take turns, and the median is of the ratios of neighbouring ones, for which the machine was the same. The
    first third of all turns is a warm-up.
    """
    ratios = []
    for _ in range(turns + turns // 2):
        start = time.perf_counter_ns()
        before()
        between = time.perf_counter_ns()
        after()
        ratios.append((time.perf_counter_ns() - between) / max(between - start, 1))
    return statistics.median(ratios[turns // 2 :])


__all__ = ["SparsePerceptron"]
