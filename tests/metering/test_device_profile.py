"""A device's profile: a fit to measured times, what it is off by on others, and files that are what they say."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns

import pytest
import torch

from budget_wrappers.errors import CheckpointError, ConfigError
from budget_wrappers.metering.device_profile import DeviceProfile, fit_device

NETWORKS = [(3, 10 * a, 10 * b, 2) for a in range(1, 5) for b in (1, 4, 9)] + [(3, 40 * a, 2) for a in range(1, 5)]


def waits(nanoseconds: Callable[[Sequence[int]], float]) -> Callable[[Sequence[int]], Callable[[], None]]:
    """Return calls that take as long as ``nanoseconds`` says of their widths."""

    def call_of(widths: Sequence[int]) -> Callable[[], None]:
        long = nanoseconds(widths)

        def call() -> None:
            end = perf_counter_ns() + long
            while perf_counter_ns() < end:
                pass

        return call

    return call_of


def device(**changes: float) -> DeviceProfile:
    known = {"base_us": 2.0, "layer_us": 3.0, "unit_us": 0.5, "product_us": 0.01, "off_median": 0.0, "off_most": 0.0}
    facts = {"engine": "numpy", "threads": 1, "fitted": 9, "held_out": 3, "machine": {"cores": "2"}}
    return DeviceProfile(**{**known, **facts, **changes})


def test_the_formula_by_hand_is_multilinear_and_differentiable() -> None:
    # 2 + 3·3 + .5·(8 + 5 + 2) + .01·(24 + 40 + 10) = 2 + 9 + 7.5 + .74
    assert device().microseconds([(3, 8), (8, 5), (5, 2)]) == pytest.approx(19.24)
    width = torch.tensor(8.0, requires_grad=True)
    device().microseconds([(3, width), (width, 2)]).backward()
    assert float(width.grad) == pytest.approx(0.5 + 0.01 * (3 + 2))


def test_a_machine_that_is_the_formula_is_found() -> None:
    """Waits of 20 µs, 10 more a layer, .1 a unit and 10 ns a product; a timer's overhead is below a microsecond."""

    def nanoseconds(widths: Sequence[int]) -> float:
        pairs = list(itertools.pairwise(widths))
        return 20_000 + 10_000 * len(pairs) + sum(100 * b + 10 * a * b for a, b in pairs)

    found = fit_device(NETWORKS, waits(nanoseconds), engine="waits", samples=50)
    assert found.product_us == pytest.approx(0.01, rel=0.3)
    assert found.off_median < 0.1
    assert (found.fitted, found.held_out, found.engine) == (12, 4, "waits")


def test_no_coefficient_is_below_0() -> None:
    found = fit_device(NETWORKS, waits(lambda widths: 60_000 - 100 * sum(widths)), engine="odd", samples=10)
    assert min(found.base_us, found.layer_us, found.unit_us, found.product_us) >= 0


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    device().save(path)
    assert DeviceProfile.load(path) == device()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", json.dumps({"base_us": 1.0}), json.dumps({**device().__dict__, "threads": "one"})]
)
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="expected what `budget profile --device-out` writes"):
        DeviceProfile.load(path)


def test_a_profile_that_was_changed_or_is_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    device().save(path)
    path.write_text(path.read_text().replace("0.01", "0.02"))
    with pytest.raises(CheckpointError, match="changed or damaged"):
        DeviceProfile.load(path)
    with pytest.raises(CheckpointError, match="cannot read a device's profile"):
        DeviceProfile.load(tmp_path / "none.json")


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected 8 or more"):
        fit_device(NETWORKS[:7], waits(lambda widths: 0), engine="none")
    with pytest.raises(ConfigError, match="one layer at least"):
        fit_device([(3,)] * 8, waits(lambda widths: 0), engine="none")
