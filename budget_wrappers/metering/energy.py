"""Energy of one call, from the machine's own counters where it has any; every number says where it comes from.

A counter covers a whole package or board, idle power and neighbours included, and advances every few milliseconds:
so a window is a second or more of the same call repeated, and its joules are divided by the calls.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

import torch

from budget_wrappers.arguments import a_function, a_number
from budget_wrappers.metering.latency import as_device, synchroniser

EnergySource = Literal["measured:nvml", "measured:rapl", "estimated", "unavailable"]

POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A counter of joules that only grows between two reads.

    Attributes:
        source: where its numbers come from.
    """

    source: EnergySource

    def joules_since(self, start: Any) -> float:
        """Return the joules since ``start``, which ``now`` returned."""
        ...

    def now(self) -> Any:
        """Return the counter's state."""
        ...


@dataclass(frozen=True)
class Energy:
    """What one call costs in energy.

    Attributes:
        joules: of one call; None where nothing is known.
        source: ``"measured:nvml"`` (a GPU board), ``"measured:rapl"`` (CPU packages), ``"estimated"`` (watts given,
            times time) or ``"unavailable"``.
        calls: calls in the window.
        seconds: length of the window.
    """

    joules: float | None
    source: EnergySource
    calls: int = 0
    seconds: float = 0.0


class RaplCounter:
    """CPU packages, through Linux's powercap files; on most systems only root may read them.

    Args:
        root: the powercap folder.
    """

    source: EnergySource = "measured:rapl"

    def __init__(self, root: Path = POWERCAP) -> None:
        # "intel-rapl:0" is a package (AMD's too), "intel-rapl:0:1" a part of one.
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        if not self._zones:
            raise FileNotFoundError(f"{root} lists no CPU package")
        self.now()

    def now(self) -> list[int]:
        """Return the microjoules of each package."""
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def joules_since(self, start: list[int]) -> float:
        """Return the joules since ``start``; a counter that has started over in between is followed once."""
        pairs = zip(self.now(), start, self._ranges, strict=True)
        return sum((end - begin) % (limit + 1) for end, begin, limit in pairs) / 1e6


class NvmlCounter:
    """An NVIDIA GPU board (Volta or later), through the driver's own library.

    Args:
        device: a CUDA device.
        library: the loaded library; found by its usual name by default.
    """

    source: EnergySource = "measured:nvml"

    def __init__(self, device: torch.device, library: Any = None) -> None:
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1") if library is None else library
        self._check(self._nvml.nvmlInit_v2())
        self._handle = ctypes.c_void_p()
        # By UUID: CUDA numbers the visible devices only, and in its own order.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        self._check(self._nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(self._handle)))
        self.now()

    def now(self) -> int:
        """Return the millijoules since the driver was loaded."""
        value = ctypes.c_ulonglong()
        self._check(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(value)))
        return value.value

    def joules_since(self, start: int) -> float:
        """Return the joules since ``start``."""
        return (self.now() - start) / 1e3

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise OSError(f"NVML returned error {code}")


def find_counter(device: torch.device | str = "cpu", root: Path = POWERCAP) -> EnergyCounter | None:
    """Return the counter that covers ``device``, or None where there is none or it may not be read."""
    device = as_device(device)
    try:
        if device.type == "cuda":
            return NvmlCounter(device)
        if device.type == "cpu":
            return RaplCounter(root)
    except OSError:  # no such file or library, no permission, or the board has no counter
        return None
    return None


def measure_energy(
    call: Callable[[], Any],
    *,
    seconds: float = 1.0,
    watts: float | None = None,
    device: torch.device | str = "cpu",
    counter: EnergyCounter | None = None,
) -> Energy:
    """Repeat ``call`` for a window of ``seconds`` and return the joules of one call.

    Args:
        call: what to measure, without arguments.
        seconds: length of the window; under a second a counter is too coarse.
        watts: power of the machine under this load, for an estimate where nothing can be measured.
        device: where ``call`` computes, and what is measured.
        counter: read this one; by default what ``find_counter`` finds.

    Raises:
        ConfigError: a window or a power that is not above 0.
    """
    a_function("call", call)
    a_number("seconds", seconds, "a window above 0 and of at most a day", lambda number: 0 < number <= 86_400)
    if watts is not None:
        watts = a_number("watts", watts, "a power above 0", lambda number: number > 0)
    device = as_device(device)
    counter = find_counter(device) if counter is None else counter
    if counter is None and watts is None:
        return Energy(None, "unavailable")
    wait = synchroniser(torch.device(device))
    wait()
    begin = None if counter is None else counter.now()
    start, calls, elapsed = perf_counter(), 0, 0.0
    while elapsed < seconds:
        call()
        wait()
        calls += 1
        elapsed = perf_counter() - start
    if counter is not None:
        return Energy(counter.joules_since(begin) / calls, counter.source, calls, elapsed)
    return Energy(watts * elapsed / calls, "estimated", calls, elapsed)
