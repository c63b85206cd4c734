"""How long a perceptron of any widths takes on one machine: a multilinear fit to measured times, as plain data.

``t = base + Σ_l (layer + unit·w_l + product·w_{l−1}·w_l)`` for one row. It is linear in each width, as the numbers of
parameters and FLOPs are, so that the expected latency of units that are there by chance is the latency of their
expected numbers.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from budget_wrappers.arguments import a_count, an_instance
from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.files import require_types, sealed, unsealed, write_text
from budget_wrappers.functional.complexity import Size
from budget_wrappers.metering.latency import measure_latency
from budget_wrappers.metering.profiling import machine_now

LEAST_FITTED = 8
"""Networks that a fit of four numbers needs, so that some are left to hold it against."""


@dataclass(frozen=True)
class DeviceProfile:
    """The fit, and how far it was off on networks that it had not seen.

    Attributes:
        base_us: of one call, microseconds.
        layer_us: more for each linear layer.
        unit_us: more for each unit of a layer.
        product_us: more for each product of one row.
        engine: what was timed.
        threads: that it had.
        off_median: median relative error on networks that were held out.
        off_most: largest of these.
        fitted: networks that the fit is of.
        held_out: networks that it was held against.
        machine: see ``Profile``.
    """

    base_us: float
    layer_us: float
    unit_us: float
    product_us: float
    engine: str
    threads: int
    off_median: float
    off_most: float
    fitted: int
    held_out: int
    machine: dict[str, str]

    def microseconds(self, layers: Sequence[tuple[Size, Size]]) -> Size:
        """Return the fitted latency of one row through ``layers``, pairs of inputs and units."""
        times = (self.layer_us + self.unit_us * units + self.product_us * inputs * units for inputs, units in layers)
        return sum(times, self.base_us)

    def save(self, path: str | Path) -> None:
        """Write the profile to ``path``, whole or not at all."""
        write_text(Path(path), sealed(dataclasses.asdict(self)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the profile that ``save`` wrote.

        Raises:
            CheckpointError: a file that is missing, damaged or of another kind.
        """
        try:
            stored = unsealed(Path(path).read_text(encoding="utf-8"))
            require_types(cls, stored)
            for name in ("base_us", "layer_us", "unit_us", "product_us"):
                if stored[name] < 0:
                    raise ValueError(f"{name} is {stored[name]}, expected 0 or more")
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot read a device's profile from {path} ({error}): expected what `budget profile --device-out` "
                "writes; make it on the device"
            ) from error
        return cls(**stored)


def fit_device(
    networks: Sequence[Sequence[int]],
    call_of: Callable[[Sequence[int]], Callable[[], Any]],
    *,
    engine: str,
    samples: int = 300,
    threads: int = 1,
) -> DeviceProfile:
    """Time networks and return the fit to all but every fourth, which it is then held against.

    Args:
        networks: widths of each, from the input to the output.
        call_of: returns a function that evaluates one row by a network of these widths.
        engine: its name.
        samples: timed calls of each network; their median counts. Networks take turns, so that what slows the machine
            for a while slows all of them.
        threads: of torch.

    Raises:
        ConfigError: fewer than ``LEAST_FITTED`` networks, or one without a layer.
    """
    an_instance("networks", networks, Sequence, "widths of several networks")
    a_count("samples", samples, 1)
    if len(networks) < LEAST_FITTED or any(len(widths) < 2 for widths in networks):
        raise ConfigError(
            f"networks={networks!r}: expected {LEAST_FITTED} or more, each with the widths of its input and of one "
            "layer at least"
        )
    turns = max(samples // 50, 1)
    calls = [call_of(widths) for widths in networks]
    times = [
        [measure_latency(call, samples=min(samples, 50), warmup=10, threads=threads).p50_us for call in calls]
        for _ in range(turns)
    ]
    medians = np.median(np.array(times), axis=0)
    features = np.array([_features(widths) for widths in networks], dtype=np.float64)
    held = np.arange(len(networks)) % 4 == 3
    found = _least_squares(features[~held], medians[~held])
    off = np.abs(features[held] @ found - medians[held]) / medians[held]
    return DeviceProfile(
        *(float(one) for one in found),
        engine=engine,
        threads=threads,
        off_median=float(np.median(off)),
        off_most=float(off.max()),
        fitted=int((~held).sum()),
        held_out=int(held.sum()),
        machine=machine_now(),
    )


def _features(widths: Sequence[int]) -> list[float]:
    pairs = list(itertools.pairwise(widths))
    return [1.0, len(pairs), sum(units for _, units in pairs), sum(inputs * units for inputs, units in pairs)]


def _least_squares(features: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the coefficients, none below 0, of the least relative squares.

    A coefficient that would be negative is left out, and the others are fitted again: more work takes no less time.
    """
    left = list(range(features.shape[1]))
    scaled, ones = features / times[:, None], np.ones(len(times))
    while True:
        found = np.zeros(features.shape[1])
        found[left] = np.linalg.lstsq(scaled[:, left], ones, rcond=None)[0]
        if (found >= 0).all():
            return found
        left.remove(int(np.argmin(found * features.mean(0))))


__all__ = ["DeviceProfile", "fit_device"]
