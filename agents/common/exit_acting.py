"""How an agent acts through early exits: the work behind an open gate is not done, and what ran is charged by exit."""

from typing import Literal

import numpy as np
import torch

from budget_wrappers.deploy.numpy_exits import NumpyExits
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork

Acting = Literal["early_exit", "backbone", "ensemble"]
"""``"early_exit"``: through the gates. ``"backbone"``: always the last exit, no gate asked. ``"ensemble"``: the mean of
all exits."""


class ExitForward:
    """``network`` as a function of rows that charges the meter by the exits taken: ``"exit 1"`` and so on.

    Args:
        network: what acts.
        meter: charged.
        acting: see ``Acting``.

    Attributes:
        names: of the exits, on the meter where gates are asked.
        counts: rows that left at each exit since ``forget_counts``, ``(K,)``.
    """

    def __init__(self, network: EarlyExitNetwork, meter: ComputeMeter, acting: Acting = "early_exit") -> None:
        self.network, self._meter, self.acting = network, meter, acting
        cpu = next(network.parameters()).device.type == "cpu"
        self._engine = NumpyExits(network) if cpu else None
        self.names = [f"exit {number + 1}" for number in range(len(network.exits))]
        self.counts = np.zeros(len(network.exits), dtype=np.int64)
        for name in self.names if acting == "early_exit" else (acting,):
            meter.add(0, name, rows=0)  # known from the start: an episode of random actions costs 0 and is no mistake

    @property
    def flops(self) -> tuple[int, ...]:
        """FLOPs of one row: of leaving at each exit, or of the one way to act, ``(K,)`` or ``(1,)``."""
        network = self.network
        gates = sum(2 * layer.in_features for layer in network.exits[:-1])
        last = network.flops[-1] - gates
        if self.acting == "backbone":
            return (last,)
        if self.acting == "ensemble":
            return (last + sum(2 * layer.in_features * network.outputs for layer in network.exits[:-1]),)
        return network.flops

    def __call__(self, observation: np.ndarray, rng: np.random.Generator, threshold: bool = False) -> np.ndarray:
        """Return the output of the exits taken, ``(n, outputs)``, for ``observation`` ``(n, O)``.

        Args:
            observation: float32 rows.
            rng: gates are drawn from it.
            threshold: gates open from a probability of ½ on instead, and nothing is drawn.
        """
        x = observation.astype(np.float32, copy=False)
        if self.acting != "early_exit":
            self._meter.add(self.flops[0] * len(x), self.acting, len(x))
            self.counts[-1] += len(x)
            return self._last(x) if self.acting == "backbone" else self._every(x).mean(0)
        draws = None if threshold else rng.random((len(x), len(self.names) - 1), dtype=np.float32)
        output, taken = self._leave(x, draws)
        for number, rows in enumerate(np.bincount(taken, minlength=len(self.names)).tolist()):
            if rows:
                self._meter.add(self.network.flops[number] * rows, self.names[number], rows)
                self.counts[number] += rows
        return output

    def forget_counts(self) -> None:
        """Count from 0 again."""
        self.counts[:] = 0

    def _leave(self, x: np.ndarray, draws: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self._engine is not None:
            return self._engine.leave(x, draws)
        device = next(self.network.parameters()).device
        with self._meter.paused():
            drawn = None if draws is None else torch.as_tensor(draws, device=device)
            output, taken = self.network.leave(torch.as_tensor(x, device=device), drawn)
        return output.cpu().numpy(), taken.cpu().numpy()

    def _every(self, x: np.ndarray) -> np.ndarray:
        if self._engine is not None:
            return self._engine.every(x)
        with self._meter.paused(), torch.no_grad():
            return self.network(torch.as_tensor(x, device=next(self.network.parameters()).device)).output.cpu().numpy()

    def _last(self, x: np.ndarray) -> np.ndarray:
        return self._engine.last(x) if self._engine is not None else self._every(x)[-1]
