"""A policy with early exits as a file and as something that acts: ``predict``, charged by exit, no training library.

The file is safetensors with a JSON header: weights and what they mean, no code. Each tensor and the header have a
checksum.
"""

import dataclasses
import itertools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from budget_wrappers.arguments import a_count, a_number, an_instance
from budget_wrappers.deploy.exit_acting import ExitForward
from budget_wrappers.errors import BudgetError, CheckpointError, ConfigError, NonFiniteError, SpaceError
from budget_wrappers.files import CHECKSUM, is_number
from budget_wrappers.functional.finite import LARGEST, finite
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.modules.weights import refuse_output, require_finite_weights
from budget_wrappers.policies.exits import ExitPolicy
from budget_wrappers.policies.outputs import ActionMap
from budget_wrappers.policies.rows import Concatenation, checked_rows
from budget_wrappers.tensor_files import header_text, read_metadata, read_tensors, write_tensors

FORMAT = "budget_wrappers exit policy 2"
WITHOUT_CHECKSUMS = "budget_wrappers exit policy 1"
"""The format of earlier versions: such a file is opened with a warning."""
HEADER = "budget_wrappers_exit_policy"
KEYS = ("format", "inputs", "outputs", "hidden", "exit_after", "activation", "reads_budget", "budget", "action_map")
KEYS += ("bound", "keys", CHECKSUM)
"""Of a header; files of earlier versions lack some."""
_REMEDY = (
    "pass what the environment that the policy was made for returns; for dictionaries of vectors make the policy with "
    "concatenation=Concatenation.of(space), or wrap the environment in gymnasium.wrappers.FlattenObservation"
)


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """What observations go through first: ``clip((x − mean)/std, −bound, bound)``.

    Attributes:
        mean: shape ``(inputs,)``.
        std: shape ``(inputs,)``, above 0.
        bound: above 0, finite in float32.

    Raises:
        ConfigError: numbers that are none of these.
    """

    mean: np.ndarray
    std: np.ndarray
    bound: float = 10.0

    def __post_init__(self) -> None:
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        numbers = mean.dtype.kind in "fiu" and std.dtype.kind in "fiu"
        numbers = numbers and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
        bounded = isinstance(self.bound, int | float) and type(self.bound) is not bool and 0 < self.bound <= LARGEST
        if mean.ndim != 1 or mean.shape != std.shape or not numbers or not bounded:
            raise ConfigError(
                f"a normalisation by mean {mean}, std {std} and bound {self.bound!r}: expected vectors of one length, "
                "finite, std and bound above 0"
            )

    def __call__(self, observation: Any) -> np.ndarray:
        """Return ``observation``, one or rows, normalised, float32."""
        x = (np.asarray(observation, dtype=np.float64) - self.mean) / self.std
        return np.minimum(np.maximum(x, -self.bound), self.bound).astype(np.float32)


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
        concatenation: of observations that are dictionaries of vectors, before that; ``None`` for vectors.
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
        concatenation: Concatenation | None = None,
    ) -> None:
        an_instance("network", network, EarlyExitNetwork, "an EarlyExitNetwork")
        an_instance("action_map", action_map, ActionMap, "an ActionMap")
        an_instance("normalisation", normalisation, Normalisation, "a Normalisation", optional=True)
        an_instance("concatenation", concatenation, Concatenation, "a Concatenation", optional=True)
        an_instance("meter", meter, ComputeMeter | str, "a ComputeMeter or its name", optional=True)
        budget = a_number("budget", budget, "a share of 0 or more", lambda share: share >= 0)
        a_count("seed", seed, most=2**63 - 1)
        self.concatenation = concatenation
        self.network, self.action_map, self.budget, self.normalisation = network, action_map, budget, normalisation
        self.meter = get_meter(meter) if isinstance(meter, str) else meter if meter is not None else ComputeMeter()
        require_finite_weights(network, "the network with exits")
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
            NonFiniteError: one with NaN or infinity, or an output of the network or an action with them.
        """
        given = observation if self.concatenation is None else self.concatenation(observation)
        rows, batched = checked_rows(given, self.network.inputs, remedy=_REMEDY)
        rows = rows if self.normalisation is None else self.normalisation(rows)
        output = self.exits(rows, self.rng)
        if not finite(output):
            refuse_output(self.network, output)
        actions = self.action_map.actions(output)
        if actions.dtype.kind == "f" and not finite(actions):
            raise NonFiniteError(
                f"the action is {actions!r} of the output {output!r}: expected finite numbers; make the policy with an "
                "action_map of other bounds"
            )
        return (actions if batched else actions[0]), state

    def exit_policy(self) -> ExitPolicy:
        """Return the exits as sub-policies, for ``EarlyExitAction``; no gate is asked."""
        return ExitPolicy(
            self.network,
            lambda output: self.action_map.actions(output[None])[0],
            self._to_array,
            self.exits.at,
            convention=self.meter.convention,
        )

    def _to_array(self, observation: Any) -> np.ndarray:
        given = observation if self.concatenation is None else self.concatenation(observation)
        row = checked_rows(given, self.network.inputs, batches=False, remedy=_REMEDY)[0][0]
        return row if self.normalisation is None else self.normalisation(row)

    def require_spaces(self, observation: gym.Space, action: gym.Space) -> None:
        """Raise unless the policy can act in an environment of these spaces.

        Raises:
            SpaceError: with both.
        """
        sizes = {"argmax": (getattr(action, "n", None), self.network.outputs)}
        same = sizes.get(self.action_map.meaning, (action.shape, (len(self.action_map.low),)))
        shape = observation.shape
        if self.concatenation is not None and Concatenation.of(observation) == self.concatenation:
            shape = (gym.spaces.flatdim(observation),)
        if shape != (self.network.inputs,) or same[0] != same[1]:
            named = "" if self.concatenation is None else f" under {', '.join(self.concatenation.keys)}"
            raise SpaceError(
                f"an environment of the spaces {observation} and {action}: expected {self.network.inputs} numbers"
                f"{named} to observe and actions of the kind {self.action_map.meaning!r} of size "
                f"{self.network.outputs}, for which the policy was made; name its own environment"
            )

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
            "reads_budget": network.reads_budget,
            "budget": float(self.budget),
            "action_map": dataclasses.asdict(self.action_map),
            "bound": None if self.normalisation is None else self.normalisation.bound,
            "keys": None if self.concatenation is None else list(self.concatenation.keys),
        }
        tensors = {f"network/{name}": value.cpu().contiguous() for name, value in network.state_dict().items()}
        if self.normalisation is not None:
            tensors |= {f"normalisation/{n}": torch.as_tensor(getattr(self.normalisation, n)) for n in ("mean", "std")}
        write_tensors(path, HEADER, header, tensors)
        return path

    @classmethod
    def load(cls, path: str | Path, meter: str | ComputeMeter | None = None, seed: int = 0) -> Self:
        """Return the policy that ``save`` wrote.

        Raises:
            CheckpointError: no such file, or one of something else, truncated or damaged.
        """
        path = Path(path)
        header = read_header(path)
        tensors = _tensors_of(path, header)
        try:
            _require_header(header)
            _require_tensors(tensors)
            _require_widths(header, tensors)
            with torch.random.fork_rng(devices=[]):
                network = EarlyExitNetwork(
                    header["inputs"],
                    header["outputs"],
                    header["hidden"],
                    header["exit_after"],
                    header["activation"],
                    header.get("reads_budget", False),  # older files have none
                )
            own = {n.removeprefix("network/"): value for n, value in tensors.items() if n.startswith("network/")}
            network.load_state_dict(own)
            parts = [tensors.get(f"normalisation/{name}") for name in ("mean", "std")]
            normalisation = None
            if parts != [None, None] or header["bound"] is not None:
                normalisation = Normalisation(*(part.numpy() for part in parts), header["bound"])
            action_map, budget = ActionMap.from_dict(header["action_map"]), header["budget"]
            finite = all(bool(value.isfinite().all()) for value in own.values())
            fitting = len(action_map.low) in (0, network.outputs) and budget >= 0
            if not finite or not fitting or (normalisation and len(normalisation.mean) != network.inputs):
                raise ConfigError("weights, bounds, normalisation or budget that do not fit each other")
            keys = header.get("keys")  # older files have none
            concatenation = None if keys is None else Concatenation(tuple(keys))
            return cls(network, action_map, budget, normalisation, meter, seed, concatenation)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, BudgetError) as error:
            raise CheckpointError(
                f"{path} is damaged ({error}): expected what BudgetedExitPolicy.save wrote; take another copy"
            ) from error


def is_exit_policy(path: Path) -> bool:
    """Tell whether a file is one that ``BudgetedExitPolicy.save`` wrote."""
    try:
        return HEADER in read_metadata(path)
    except CheckpointError:
        return False


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header of a saved policy.

    Raises:
        CheckpointError: no such file, one of something else, or a header with another checksum than it says.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected a file that BudgetedExitPolicy.save wrote")
    try:
        metadata = read_metadata(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): expected a whole safetensors file") from error
    if HEADER not in metadata:
        raise CheckpointError(f"{path} holds no exit policy: expected the format {FORMAT!r}, as save writes it")
    if len(metadata) == 1:
        try:
            header = json.loads(metadata[HEADER])
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict) and header.get("format") == WITHOUT_CHECKSUMS:
            return header
    header = header_text(path, HEADER, metadata)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has the format {header.get('format')!r}: expected {FORMAT!r}, as save writes it")
    return header


def _tensors_of(path: Path, header: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights, checked against their checksums where the format has any."""
    if header["format"] == FORMAT:
        checksums = header.get("crc32")
        if not isinstance(checksums, dict):
            raise CheckpointError(f"{path} is damaged: expected a checksum of each tensor; take another copy")
        return read_tensors(path, checksums)
    warnings.warn(
        f"{path} has the format of earlier versions, which has no checksums: damage of its weights would not be "
        "noticed. Load it once and save it again to give it checksums",
        stacklevel=3,
    )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): expected a whole safetensors file") from error


def _require_header(header: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless a header has the keys that ``save`` writes, whose numbers and texts are such."""
    if unknown := sorted(header.keys() - set(KEYS)):
        raise ConfigError(f"the header has the keys {', '.join(unknown)}: expected {', '.join(KEYS)} alone")
    for name in ("budget", "bound"):
        if not is_number(header[name]) and not (name == "bound" and header[name] is None):
            raise ConfigError(f"{name}={str(header[name])[:100]!r}: expected a finite number")
    keys = header.get("keys")
    if keys is not None and not (isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys)):
        raise ConfigError(f"keys={keys!r}: expected a list of texts")
    depths = header["exit_after"]
    if not isinstance(depths, list) or not all(type(depth) is int for depth in depths):
        raise ConfigError(f"exit_after={depths!r}: expected a list of whole numbers")


def _require_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ``ConfigError`` for tensors that are none of a policy's, or no real floating-point numbers."""
    for name, tensor in tensors.items():
        if not name.startswith("network/") and name not in ("normalisation/mean", "normalisation/std"):
            raise ConfigError(f"the entry {name!r}: expected those of a network and of a normalisation")
        # Loading would convert whole numbers, and drop the imaginary parts of complex ones. A normalisation may be
        # of whole numbers, as ``Normalisation`` takes them.
        if not tensor.is_floating_point() and (name.startswith("network/") or tensor.is_complex()):
            raise ConfigError(f"the entry {name!r} is of {tensor.dtype}: expected real floating-point numbers")


def _require_widths(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ``ConfigError`` for layers of more weights than the file holds, before memory is asked for."""
    widths = [header["inputs"], *header["hidden"]]
    if not all(type(width) is int and width >= 1 for width in [*widths, header["outputs"]]):
        raise ConfigError(
            f"inputs, hidden and outputs of {widths} and {header['outputs']!r}: whole numbers of at least 1"
        )
    asked = sum(before * after for before, after in itertools.pairwise(widths)) + widths[-1] * header["outputs"]
    if asked > sum(tensor.numel() for tensor in tensors.values()):
        raise ConfigError(f"layers of {asked} weights, more than the file holds")


__all__ = ["BudgetedExitPolicy", "Normalisation", "is_exit_policy", "read_header"]
