"""Acting without torch: a multilayer perceptron evaluated by numpy on the module's own memory.

At batch 1 a control policy's time is dispatch, not arithmetic; numpy's is a fraction of torch's. The engine reads the
parameters' memory, so an in-place optimizer step is seen at once; where a parameter has moved to other memory, the
next call follows it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from budget_wrappers.modules.units import thetas_read

ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0.0, out=x), "tanh": lambda x: np.tanh(x, out=x)}


class NumpyPerceptron:
    """``W_L · f(… f(W_1 · x + b_1) …) + b_L`` for float32 rows.

    A deep copy made together with the module evaluates the module's copy. Gates on units multiply by their θ.

    Args:
        linears: layers from input to output, on the CPU, with a bias or without.
        activation: ``"relu"`` or ``"tanh"``, between layers.

    Raises:
        ConfigError: gates on some inputs of a layer only.
    """

    def __init__(self, linears: Sequence[nn.Linear], activation: str) -> None:
        self._linears = list(linears)
        self._activation = activation
        thetas = [thetas_read(layer) for layer in self._linears[1:]]
        self._thetas = thetas if any(theta is not None for theta in thetas) else None
        self._read()

    def _read(self) -> None:
        """View the parameters as arrays, and remember where they were."""
        self._places = addresses_of(self._linears)
        self._layers = [(layer.weight.detach().numpy().T, bias_of(layer)) for layer in self._linears]
        if self._thetas is not None:  # gates on the units of each hidden layer, where it is read
            self._scales = [1.0 if theta is None else theta.detach().numpy() for theta in self._thetas]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``x`` ``(n, in)``."""
        if addresses_of(self._linears) != self._places:
            self._read()
        f = ACTIVATIONS[self._activation]
        *hidden, (weight, bias) = self._layers
        if self._thetas is not None:
            for (w, b), scale in zip(hidden, self._scales, strict=True):
                x = f(x @ w + b) * scale
            return x @ weight + bias
        for w, b in hidden:
            x = f(x @ w + b)
        return x @ weight + bias


def addresses_of(linears: Iterable[nn.Linear]) -> list[int]:
    """Return where weight and bias of each layer are; it is asked at every action, so modules' attributes are not."""
    found = []
    for layer in linears:
        held = layer._parameters
        # A pruned or parametrised layer does not hold its weight, but makes it.
        itself = "weight" in held and "bias" in held
        for tensor in held.values() if itself else (layer.weight, layer.bias):
            found.append(0 if tensor is None else tensor.data_ptr())
    return found


def bias_of(layer: nn.Linear) -> np.ndarray:
    """Return the bias of a layer on the module's memory, zeros where it has none."""
    if layer.bias is None:
        return np.zeros(layer.out_features, layer.weight.detach().numpy().dtype)
    return layer.bias.detach().numpy()
