"""A policy with early exits as a file and as something that acts: ``predict``, charged by exit, no training library.

The file is safetensors with a JSON header: weights and what they mean, no code.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError, SpaceError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies.outputs import ActionMap

FORMAT = "budget_wrappers exit policy 1"
HEADER = "budget_wrappers_exit_policy"


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """What observations go through first: ``clip((x − mean)/std, −bound, bound)``.

    Attributes:
        mean: shape ``(inputs,)``.
        std: shape ``(inputs,)``, above 0.
        bound: above 0.
    """

    mean: np.ndarray
    std: np.ndarray
    bound: float = 10.0

    def __call__(self, observation: Any) -> np.ndarray:
        """Return ``observation``, one or rows, normalised, float32."""
        x = (np.asarray(observation, dtype=np.float64) - self.mean) / self.std
        return np.clip(x, -self.bound, self.bound).astype(np.float32)


class BudgetedExitPolicy:
    """A network with early exits that acts within the budget its gates were taught.

    It has the habits of Stable-Baselines3: ``predict`` takes one observation or a batch and returns actions and a
    state. What runs is charged to ``meter`` by exit: ``"exit 1"`` and so on. Gates are drawn, from a generator of its
    own, also where ``deterministic``: a threshold would choose alike wherever states look alike, whatever the budget.

    Args:
        network: on the CPU or a device.
        action_map: from what it says to actions.
        budget: that its gates were taught, for whoever reads it: 0 for the first exit, 1 for the last.
        normalisation: of observations, ``None`` for none.
        meter: name or object; by default one of its own.
        seed: of the gates' draws.

    Attributes:
        exits: acts and counts which exits acted, see ``ExitForward``.
    """

    def __init__(
        self,
        network: EarlyExitNetwork,
        action_map: ActionMap,
        budget: float,
        normalisation: Normalisation | None = None,
        meter: str | ComputeMeter | None = None,
        seed: int = 0,
    ) -> None:
        self.network, self.action_map, self.budget, self.normalisation = network, action_map, budget, normalisation
        self.meter = get_meter(meter) if isinstance(meter, str) else meter if meter is not None else ComputeMeter()
        self.exits = ExitForward(network, self.meter)
        self.rng = np.random.default_rng(seed)

    @property
    def flops(self) -> tuple[int, ...]:
        """FLOPs of one action that leaves at each exit, gates on the way included, ``matmul`` convention."""
        return self.network.flops

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[np.ndarray, Any]:
        """Return the action for one observation or a batch of them, and ``state`` unchanged.

        Raises:
            SpaceError: an observation of another shape than the network's input.
            NonFiniteError: one with NaN or infinity.
        """
        x = np.asarray(observation) if self.normalisation is None else self.normalisation(observation)
        batched = x.ndim == 2
        if x.ndim > 2 or x.shape[-1:] != (self.network.inputs,):
            raise SpaceError(
                f"an observation of shape {x.shape}: expected ({self.network.inputs},) or (n, {self.network.inputs}); "
                "pass what the environment that the policy was made for returns"
            )
        if not np.isfinite(x).all():
            raise NonFiniteError(f"the observation {observation!r} is not finite: expected numbers; mend its source")
        rows = x if batched else x[None]
        actions = self.action_map.actions(self.exits(rows.astype(np.float32, copy=False), self.rng))
        return (actions if batched else actions[0]), state

    def save(self, path: str | Path) -> Path:
        """Write the policy, whole or not at all, and return the file; ``.safetensors`` is added where it is missing."""
        path = Path(path)
        path = path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")
        network = self.network
        widths = [layer.out_features for stage in network.stages for layer in stage if hasattr(layer, "weight")]
        header = {
            "format": FORMAT,
            "inputs": network.inputs,
            "outputs": network.outputs,
            "hidden": widths,
            "exit_after": list(network.depths),
            "activation": network.activation,
            "budget": self.budget,
            "action_map": dataclasses.asdict(self.action_map),
            "bound": None if self.normalisation is None else self.normalisation.bound,
        }
        tensors = {f"network/{name}": value.cpu().contiguous() for name, value in network.state_dict().items()}
        if self.normalisation is not None:
            tensors |= {f"normalisation/{n}": torch.as_tensor(getattr(self.normalisation, n)) for n in ("mean", "std")}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        try:
            save_file(tensors, partial, metadata={HEADER: json.dumps(header)})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path, meter: str | ComputeMeter | None = None, seed: int = 0) -> Self:
        """Return the policy that ``save`` wrote.

        Raises:
            CheckpointError: no such file, or one of something else, truncated or damaged.
        """
        path = Path(path)
        header = read_header(path)
        try:
            tensors = load_file(path)
            network = EarlyExitNetwork(
                header["inputs"], header["outputs"], header["hidden"], header["exit_after"], header["activation"]
            )
            own = {n.removeprefix("network/"): value for n, value in tensors.items() if n.startswith("network/")}
            network.load_state_dict(own)
            mean, std = (tensors.get(f"normalisation/{name}") for name in ("mean", "std"))
            normalisation = None if mean is None else Normalisation(mean.numpy(), std.numpy(), header["bound"])
            action_map = ActionMap.from_dict(header["action_map"])
            return cls(network, action_map, float(header["budget"]), normalisation, meter, seed)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error}): expected what BudgetedExitPolicy.save wrote; take another copy"
            ) from error


def is_exit_policy(path: Path) -> bool:
    """Tell whether a file is one that ``BudgetedExitPolicy.save`` wrote."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return HEADER in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header of a saved policy.

    Raises:
        CheckpointError: no such file, or one of something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected a file that BudgetedExitPolicy.save wrote")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): expected a whole safetensors file") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no exit policy: expected the format {FORMAT!r}, as save writes it")
    return header


__all__ = ["BudgetedExitPolicy", "Normalisation", "is_exit_policy", "read_header"]
