"""How an agent evaluates its actor outside of updates: numpy where it can, torch where it must; always metered."""

import numpy as np
import torch
from torch import nn

from agents.nets.mlp import MLP
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.metering import ComputeMeter, count_flops
from budget_wrappers.metering.evaluation import evaluating


class NumpyForward:
    """``net`` as a function of float32 rows that charges its FLOPs; a copy of an agent copies it too.

    The meter's hook sees torch's forward only, so the charge is made here.

    Args:
        actor: the module that acts; ``net`` is all of it but what the agent does with the output.
        net: evaluated by numpy, on its own memory.
        meter: charged.

    Attributes:
        flops: of one row, in the meter's convention.
    """

    def __init__(self, actor: nn.Module, net: MLP, meter: ComputeMeter) -> None:
        self._actor, self._net, self._meter = actor, net, meter
        self._parts = tuple(actor._modules.values())
        self.follow()

    def follow(self) -> None:
        """Look at the layers anew, after they were replaced or have changed size."""
        linears = self._net.linears
        self._engine = NumpyPerceptron(linears, self._net.activation)
        self._seen = self._net.parts
        example = linears[0].weight.new_zeros(1, linears[0].in_features)
        with evaluating(self._actor):
            self.flops = int(count_flops(self._actor, example, convention=self._meter.convention))

    def fits(self) -> bool:
        """Tell whether the actor consists of nothing but what is evaluated here; it is asked at every action."""
        net = self._net
        if tuple(self._actor._modules.values()) != self._parts or not net.plain(gates=True):
            return False
        if net._forward_pre_hooks or net._forward_hooks:
            return False
        if net.parts is not self._seen:
            self.follow()
        return True

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``observation`` ``(n, O)``."""
        rows = len(observation)
        self._meter.add(self.flops * rows, "actor", rows)
        return self._engine(observation.astype(np.float32, copy=False))


def numpy_forward(actor: nn.Module, kind: type[nn.Module], meter: ComputeMeter) -> NumpyForward | None:
    """Return an engine for ``actor``, ``None`` where it is not exactly a ``kind``, or not on the CPU.

    Args:
        actor: that acts.
        kind: a class of actors that consist of a perceptron ``net``. A subclass may do anything in its ``forward``.
        meter: charged.
    """
    if type(actor) is not kind or next(actor.parameters()).device.type != "cpu":
        return None
    return NumpyForward(actor, actor.net, meter)


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
