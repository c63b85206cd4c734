"""How an agent evaluates its actor outside of updates: numpy where it can, torch where it must; always metered."""

import numpy as np
import torch
from torch import nn

from agents.nets.mlp import MLP
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.metering import ComputeMeter


class NumpyForward:
    """``net`` as a function of float32 rows that charges ``flops`` a row; a copy of an agent copies it too.

    The meter's hook sees torch's forward only, so the charge is made here.

    Args:
        net: evaluated by numpy, on its own memory.
        meter: charged.
        flops: of one row.
    """

    def __init__(self, net: MLP, meter: ComputeMeter, flops: int) -> None:
        self._engine, self._meter, self._flops = NumpyPerceptron(net.linears, net.activation), meter, flops

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``observation`` ``(n, O)``."""
        rows = len(observation)
        self._meter.add(self._flops * rows, "actor", rows)
        return self._engine(observation.astype(np.float32, copy=False))


class TorchForward:
    """``actor`` as a function of rows; the meter's hook on it charges what runs.

    Args:
        actor: evaluated without gradients.
        device: where it lives.
    """

    def __init__(self, actor: nn.Module, device: torch.device) -> None:
        self._actor, self._device = actor, device

    def __call__(self, observation: np.ndarray) -> torch.Tensor:
        """Return what ``actor`` returns for ``observation`` ``(n, O)``."""
        with torch.no_grad():
            return self._actor(torch.as_tensor(observation, dtype=torch.float32, device=self._device))
