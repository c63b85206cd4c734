"""How an agent evaluates its actor outside of updates: numpy where it can, torch where it must; always metered."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from agents.common.mlp import MLP
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.metering import ComputeMeter

Forward = Callable[[np.ndarray], np.ndarray]


def numpy_forward(net: MLP, meter: ComputeMeter, flops: int) -> Forward:
    """Return ``net`` as a function of float32 rows that charges ``flops`` a row.

    The meter's hook sees torch's forward only, so the charge is made here.
    """
    engine = NumpyPerceptron(net.linears, net.activation)

    def forward(observation: np.ndarray) -> np.ndarray:
        rows = len(observation)
        meter.add(flops * rows, "actor", rows)
        return engine(observation.astype(np.float32, copy=False))

    return forward


def torch_forward(actor: nn.Module, device: torch.device) -> Callable[[np.ndarray], torch.Tensor]:
    """Return ``actor`` as a function of rows; the meter's hook on it charges what runs."""

    def forward(observation: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return actor(torch.as_tensor(observation, dtype=torch.float32, device=device))

    return forward
