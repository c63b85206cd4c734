"""One trained actor, evaluated by torch, numpy, ONNX Runtime or sparse products: the same actions, in other times.

At batch 1 a control policy's time is dispatch, not arithmetic, so the engine decides more about latency than the size
of the network does.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from budget_wrappers.arguments import an_instance
from budget_wrappers.deploy.numpy_engine import NumpyPerceptron
from budget_wrappers.deploy.onnx_engine import OnnxPerceptron
from budget_wrappers.deploy.sparse_engine import SparsePerceptron
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.finite import finite
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.weights import refuse_output, require_finite_weights
from budget_wrappers.policies.retrofit import TrainedActor
from budget_wrappers.policies.rows import checked_rows

Engine = Literal["torch", "numpy", "onnxruntime", "sparse"]
Forward = Callable[[np.ndarray], np.ndarray]


class TorchPerceptron:
    """Eager torch without gradients, as a library's ``predict`` runs it; follows the layers' training."""

    def __init__(self, linears: Sequence[nn.Linear], activation: str) -> None:
        between = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
        parts = [part for layer in linears for part in (layer, between())]
        self._net, self._like = nn.Sequential(*parts[:-1]), linears[0].weight

    @torch.inference_mode()
    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the output ``(n, out)`` for ``x`` ``(n, in)``."""
        return self._net(torch.as_tensor(x).to(self._like)).cpu().numpy()


ENGINES: dict[Engine, Callable[[Sequence[nn.Linear], str], Forward]] = {
    "torch": TorchPerceptron,
    "numpy": NumpyPerceptron,
    "onnxruntime": OnnxPerceptron,
    "sparse": SparsePerceptron,
}


class EnginePolicy:
    """A trained actor that acts through an engine, deterministically; charged to ``meter``.

    Args:
        actor: see ``budget_wrappers.policies.retrofit.TrainedActor``.
        engine: what evaluates its layers.
        meter: charged under the name ``"actor"``; by default one of its own.

    Attributes:
        flops: of one action, ``matmul`` convention.

    Raises:
        ConfigError: an unknown engine.
        NonFiniteError: weights that are not finite.
        MissingExtraError: an engine that is not installed.
    """

    def __init__(self, actor: TrainedActor, engine: Engine, meter: ComputeMeter | None = None) -> None:
        if not isinstance(engine, str) or engine not in ENGINES:
            raise ConfigError(f"engine={engine!r}: expected one of {', '.join(ENGINES)}")
        an_instance("actor", actor, TrainedActor, "a TrainedActor")
        an_instance("meter", meter, ComputeMeter, "a ComputeMeter", optional=True)
        require_finite_weights(nn.ModuleList(actor.layers), "the actor")
        self.actor, self.engine, self.meter = actor, engine, meter if meter is not None else ComputeMeter()
        self.flops = sum(2 * layer.in_features * layer.out_features for layer in actor.layers)
        self.name = f"{engine} engine"
        self._forward = ENGINES[engine](actor.layers, actor.activation)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Return the action for one observation or a batch of them, and ``state`` unchanged.

        Raises:
            SpaceError: an observation of another shape than the network's input.
            NonFiniteError: one with NaN or infinity, or an output of the network with them.
        """
        rows, batched = checked_rows(self.actor.to_array(observation), self.actor.layers[0].in_features)
        self.meter.add(self.flops * len(rows), "actor", len(rows))
        output = self._forward(rows)
        if not finite(output):
            refuse_output(nn.ModuleList(self.actor.layers), output)
        actions = self.actor.action_map.actions(output)
        return (actions if batched else actions[0]), state


__all__ = ["ENGINES", "Engine", "EnginePolicy", "TorchPerceptron"]
