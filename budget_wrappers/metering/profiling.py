"""One policy on one machine: FLOPs, parameters, latency, energy, and whether it keeps up with a control rate."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from budget_wrappers.arguments import a_number, a_text, an_instance
from budget_wrappers.core import Convention
from budget_wrappers.errors import CheckpointError, ConfigError, UncountableError
from budget_wrappers.files import require_types, sealed, unsealed, write_text
from budget_wrappers.metering.checks import check_convention, whole
from budget_wrappers.metering.counting import count_flops
from budget_wrappers.metering.energy import Energy, measure_energy
from budget_wrappers.metering.evaluation import evaluating
from budget_wrappers.metering.latency import Latency, measure_latency
from budget_wrappers.metering.meter import ComputeMeter
from budget_wrappers.metering.quiet import all_quiet


@dataclass(frozen=True)
class Profile:
    """What one action of a policy costs on one machine; plain data, so that another machine can use it.

    Attributes:
        policy: what was profiled.
        flops: FLOPs of one action.
        convention: what ``flops`` counts.
        parameters: numbers in the module that acts; None where no module is known.
        latency: of one action, batch 1.
        energy: of one action, with its source.
        hz: the control rate asked about; None when none was.
        fits: whether the 99th percentile of the latency is within one period of ``hz``; None without a rate.
        device: where it computed.
        machine: processor, operating system, and the versions of Python and torch.
    """

    policy: str
    flops: int
    convention: Convention
    parameters: int | None
    latency: Latency
    energy: Energy
    hz: float | None
    fits: bool | None
    device: str
    machine: dict[str, str]

    def at(self, hz: float) -> Self:
        """Return the same measurements judged at another control rate.

        Raises:
            ConfigError: ``hz`` is not above 0.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{**known, "hz": float(hz), "fits": fits(self.latency, hz)})

    def to_json(self) -> str:
        """Return the profile as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the profile that ``to_json`` wrote.

        Raises:
            CheckpointError: text that is no JSON, was damaged, or is not a profile: missing or unknown keys, values of
                another type.
        """
        try:
            data = unsealed(text)
            require_types(cls, data)
            latency, energy = Latency(**data.pop("latency")), Energy(**data.pop("energy"))
            return cls(**data, latency=latency, energy=energy)
        except ValueError as error:
            raise CheckpointError(
                f"not a profile ({error}); expected the JSON of Profile.to_json() with the keys "
                f"{', '.join(field.name for field in fields(cls))}"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile and its checksum to ``path``, whole or not at all."""
        write_text(Path(path), sealed(asdict(self)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a profile that ``save`` wrote.

        Raises:
            CheckpointError: the file is missing, damaged or no profile.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read a profile from {os.fspath(path)}: {error}") from error
        return cls.from_json(text)


COUNTED_CALLS = 100
"""Calls whose FLOPs are averaged where a meter counts them."""


def fits(latency: Latency, hz: float) -> bool:
    """Tell whether the 99th percentile of ``latency`` is at most one period of ``hz``.

    Raises:
        ConfigError: ``hz`` is not above 0.
    """
    if not hz > 0:
        raise ConfigError(f"hz={hz}; expected a control rate above 0")
    return latency.p99_us <= 1e6 / hz


def profile(
    policy: Any,
    obs: Any,
    hz: float | None = None,
    *,
    module: nn.Module | None = None,
    convention: Convention = "matmul",
    samples: int = 1000,
    warmup: int = 100,
    threads: int | None = None,
    watts: float | None = None,
    energy_seconds: float = 1.0,
    name: str | None = None,
) -> Profile:
    """Measure one action of ``policy`` on this machine. No meter is charged for it.

    Args:
        policy: a ``torch.nn.Module`` that is called with ``obs``; an object with ``predict(obs)``, such as an agent; or
            a sub-policy: a callable with ``flops``.
        obs: one observation, as the policy takes it. A module gets arrays as tensors on its device, so give them the
            batch dimension of 1 that it expects; a tuple is several arguments.
        hz: control rate to judge by.
        module: for an object with ``predict`` and without a ``meter``: the module in it that acts, counted while it
            predicts.
        convention: what to count.
        samples: timed actions.
        warmup: actions before them.
        threads: torch's threads; as they are by default.
        watts: power of the machine under this load, for an estimate of the energy where it cannot be measured.
        energy_seconds: length of the window in which energy is measured.
        name: of the policy; its class's name by default.

    Raises:
        UncountableError: a policy whose FLOPs nobody can tell, or a module that did not run.
        ConfigError: a number out of bounds.

    Example:
        >>> actor = torch.nn.Linear(4, 2)
        >>> card = profile(actor, np.zeros((1, 4), np.float32), hz=10, samples=20, energy_seconds=0.01)
        >>> card.flops, card.parameters, card.fits
        (16, 10, True)
    """
    check_convention(convention)
    if hz is not None:
        hz = a_number("hz", hz, "a control rate above 0", lambda rate: rate > 0)
    if name is not None:
        a_text("name", name)
    an_instance("module", module, nn.Module, "a torch.nn.Module", optional=True)
    call, flops, acting = _acting(policy, obs, module, convention)
    parameters = [parameter for part in acting for parameter in part.parameters()]
    device = str(parameters[0].device) if parameters else "cpu"
    with all_quiet(), torch.no_grad(), evaluating(policy, *acting):
        latency = measure_latency(call, samples=samples, warmup=warmup, threads=threads, device=device)
        energy = measure_energy(call, seconds=energy_seconds, watts=watts, device=device)
    return Profile(
        policy=name or getattr(policy, "name", None) or type(policy).__name__,
        flops=flops,
        convention=convention,
        parameters=sum(parameter.numel() for parameter in set(parameters)) if acting else None,
        latency=latency,
        energy=energy,
        hz=None if hz is None else float(hz),
        fits=None if hz is None else fits(latency, hz),
        device=device,
        machine=machine_now(device),
    )


def _acting(
    policy: Any, obs: Any, module: nn.Module | None, convention: Convention
) -> tuple[Callable[[], Any], int, list[nn.Module]]:
    """Return how to act once, what that costs, and the modules that do it."""
    if isinstance(policy, nn.Module) and module is None:
        inputs = obs if isinstance(obs, tuple) else (obs,)
        home = next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))
        inputs = tuple(torch.as_tensor(x).to(home) if isinstance(x, (np.ndarray, torch.Tensor)) else x for x in inputs)
        with torch.no_grad(), evaluating(policy):
            return partial(policy, *inputs), count_flops(policy, *inputs, convention=convention), [policy]
    call = partial(policy.predict if hasattr(policy, "predict") else policy, obs)
    if module is not None:
        meter = ComputeMeter("profile", convention)
        with meter.watch(module), meter.phase("act"), torch.no_grad(), evaluating(module):
            call()
        if meter.take().rows == 0:
            raise UncountableError(
                f"the {type(module).__name__} given as module= did not run while {type(policy).__name__} acted; "
                "expected the module whose forward computes the action"
            )
        return call, meter.executed, [module]
    meter = getattr(policy, "meter", None)
    if isinstance(meter, ComputeMeter) and meter.used and meter.convention == convention:
        acting = [part for parts in meter.watched().values() for part in parts]
        return call, _flops_by(meter, call, policy), acting
    flops = getattr(policy, "flops", None)
    if flops is not None and convention == "matmul":
        return call, whole(flops, f"{type(policy).__name__}.flops"), []
    raise UncountableError(
        f"nobody can tell the FLOPs of a {type(policy).__name__} in the {convention!r} convention; expected a torch "
        "module, an object whose meter counts in it, or a callable with flops. Pass module=, the module that acts."
    )


def _flops_by(meter: ComputeMeter, call: Callable[[], Any], policy: Any) -> int:
    """Return what the policy's own meter is charged for a call: the mean of some, as gates may be drawn."""
    with meter.aside(), meter.phase("act"), torch.no_grad():
        before = meter.executed
        for _ in range(COUNTED_CALLS):
            call()
        flops = round((meter.executed - before) / COUNTED_CALLS)
    if flops == 0:
        raise UncountableError(
            f"the meter of this {type(policy).__name__} was not charged while it acted; expected it to watch the "
            "module that computes the action. Pass that module as module=."
        )
    return flops


def machine_now(device: str = "cpu") -> dict[str, str]:
    """Return processor, cores, operating system, versions of Python and torch, and the accelerator where one is used.

    Args:
        device: that computes.
    """
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    card = {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        card["accelerator"] = torch.cuda.get_device_name(device)
    return card
