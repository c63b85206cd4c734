"""Schedules, shares of layers and masks by magnitude: numbers by hand, sums and bounds for any layers, two oracles."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn.utils import prune

from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import (
    PolynomialSchedule,
    explored_sparsity,
    global_counts,
    kept_counts,
    layer_sparsities,
    magnitude_mask,
    magnitude_masks,
    polynomial_sparsity,
    pruned_counts,
)

SHAPES = [(16, 4), (16, 16), (1, 16)]
layers = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6)
# Magnitudes repeat, so that ties are common.
weights = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-4, 4).map(float))


# ---- the schedule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "sparsity"),
    [
        (0.0, 0.0),
        (0.2, 0.0),
        (0.35, 0.95 * (1 - 27 / 64)),  # a quarter of the way: 1 − (3/4)³
        (0.5, 0.83125),  # half of the way: .95·(1 − (1/2)³) = .95·.875
        (0.65, 0.93515625),  # three quarters: .95·(1 − (1/4)³)
        (0.8, 0.95),
        (1.0, 0.95),
    ],
)
def test_sparsity_rises_by_the_polynomial_between_start_and_end(progress: float, sparsity: float) -> None:
    assert polynomial_sparsity(progress, 0.2, 0.8, 0.95, 3.0) == pytest.approx(sparsity, abs=1e-12)


def test_a_power_of_one_is_a_straight_line() -> None:
    assert [polynomial_sparsity(t, 0.0, 1.0, 0.5, 1.0) for t in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.125, 0.25, 0.5]


@settings(max_examples=200, deadline=None)
@given(
    times=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    bounds=st.tuples(st.floats(0, 0.99), st.floats(0, 1)).map(sorted).filter(lambda pair: pair[0] < pair[1]),
    final=st.floats(0, 0.999),
    power=st.floats(0.1, 10),
)
def test_sparsity_never_falls_and_never_leaves_its_bounds(
    times: list[float], bounds: list[float], final: float, power: float
) -> None:
    early, late = (polynomial_sparsity(t, *bounds, final, power) for t in times)
    assert 0 <= early <= late <= final


@settings(max_examples=100, deadline=None)
@given(start=st.floats(0, 0.5), end=st.floats(0.51, 1), late=st.floats(0, 1), final=st.floats(0, 0.999))
def test_from_the_end_on_the_sparsity_is_the_final_one_to_the_bit(
    start: float, end: float, late: float, final: float
) -> None:
    assert polynomial_sparsity(end + late, start, end, final) == final
    assert polynomial_sparsity(start * late, start, end, final) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"final": 1.0}, r"final=1\.0: expected a share of the weights in \[0, 1\)"),
        ({"final": -0.1}, r"final=-0\.1: expected a share"),
        ({"final": float("nan")}, "final=nan: expected a share"),
        ({"start": 0.8}, r"start=0\.8: expected a share of the run in \[0, 1\], below end=0\.8"),
        ({"start": -0.1}, r"start=-0\.1: expected"),
        ({"end": 1.1}, r"below end=1\.1"),
        ({"power": 0.0}, r"power=0\.0: expected an exponent above 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PolynomialSchedule(**{"start": 0.2, "end": 0.8, "final": 0.95, **settings})


# ---- sparsities that are explored ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sparsity"),
    [
        ((0.5, 500_000, 501_000, 10**6, 3, 0.01), 0.503),  # .5/500,000·1,000·3 = .003, below .5·.01
        ((0.9, 990_000, 991_000, 10**6, 0.05, 0.01), 0.9005),  # .1/10,000·1,000·.05 = .0005, below .1·.01
        ((0.9, 990_000, 991_000, 10**6, 3, 0.01), 0.901),  # .03 above the cap .1·.01
        ((0.5, 10**6, 1_001_000, 10**6, 3, 0.01), 0.5),  # the end: nothing is drawn
        ((0.5, 0, 1_000, 10**6, 0, 0.01), 0.5),
    ],
)
def test_explored_sparsities_are_those_computed_by_hand(arguments: tuple[float, ...], sparsity: float) -> None:
    assert explored_sparsity(*arguments) == pytest.approx(sparsity, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    sparsity=st.floats(0, 0.9999),
    times=st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(sorted),
    draw=st.floats(0, 30),
    cap=st.floats(0, 1),
)
def test_explored_sparsities_only_rise_and_by_the_cap_at_most(
    sparsity: float, times: list[float], draw: float, cap: float
) -> None:
    found = explored_sparsity(sparsity, *times, draw, cap)
    assert sparsity <= found <= sparsity + (1 - sparsity) * cap + 1e-12 <= 1 + 1e-12


def test_draws_of_one_lead_straight_to_a_sparsity_of_one() -> None:
    # U = 1 and no cap: what is left falls by 1/10, 1/9, … of itself, that is by the same amount each time.
    found = [0.0]
    for step in range(10):
        found.append(explored_sparsity(found[-1], step, step + 1, 10, 1.0, 1.0))
    assert found == pytest.approx([step / 10 for step in range(11)], abs=1e-12)


# ---- shares of the layers -----------------------------------------------------------------------------------------


def test_shares_are_those_computed_by_hand() -> None:
    # Sizes 64, 256 and 16: 336 weights, of which .1·336 = 33.6 stay. A density ε·(i + o)/(i·o) keeps ε·(i + o)
    # weights of a layer: 20ε + 32ε + 17ε = 33.6, ε = 33.6/69.
    scale = 33.6 / 69
    expected = [1 - scale * 20 / 64, 1 - scale * 32 / 256, 1 - scale * 17 / 16]
    assert layer_sparsities(SHAPES, 0.9, "erk") == pytest.approx(expected, abs=1e-12)
    # 64 − 9.74, 256 − 15.58 and 16 − 8.28 are 54.26, 240.42 and 7.72.
    assert pruned_counts(SHAPES, expected, 1.0) == [54, 240, 8]


@pytest.mark.parametrize(
    ("sparsity", "densities"),
    [
        # 168 stay. ε = 168/69 gives the last layer 2.59: it is dense, and 168 − 16 = 152 are left for ε·(20 + 32).
        (0.5, [152 / 52 * 20 / 64, 152 / 52 * 32 / 256, 1.0]),
        # 235.2 stay. Without the last layer 219.2 = ε·52 gives the first one 1.32: dense too, 155.2 for the second.
        (0.3, [1.0, 155.2 / 256, 1.0]),
        (0.0, [1.0, 1.0, 1.0]),
    ],
)
def test_layers_that_would_exceed_a_density_of_one_are_dense_and_the_others_pay(
    sparsity: float, densities: list[float]
) -> None:
    assert [1 - own for own in layer_sparsities(SHAPES, sparsity, "erk")] == pytest.approx(densities, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(shapes=layers, sparsity=st.floats(0, 0.999))
def test_what_all_layers_lose_is_the_sparsity_of_the_whole(shapes: list[tuple[int, int]], sparsity: float) -> None:
    total = sum(outputs * inputs for outputs, inputs in shapes)
    for distribution in ("erk", "uniform"):
        counts = pruned_counts(shapes, layer_sparsities(shapes, sparsity, distribution), 1.0)
        # Each layer's count is rounded, and one of its weights stays: less than one weight a layer.
        assert abs(sum(counts) - sparsity * total) <= len(shapes) + 1e-6 * total


@settings(max_examples=300, deadline=None)
@given(shapes=layers, sparsity=st.floats(0, 0.999))
def test_densities_are_within_bounds_and_in_proportion_unless_capped(
    shapes: list[tuple[int, int]], sparsity: float
) -> None:
    densities = [1 - own for own in layer_sparsities(shapes, sparsity, "erk")]
    assert all(-1e-12 <= density <= 1 for density in densities)
    raw = [(outputs + inputs) / (outputs * inputs) for outputs, inputs in shapes]
    scales = [density / own for density, own in zip(densities, raw, strict=True) if density < 1]
    if scales:
        assert max(scales) == pytest.approx(min(scales), rel=1e-6, abs=1e-9)
        # A dense layer's share would have been 1 or more.
        assert all(max(scales) * own >= 1 - 1e-6 for density, own in zip(densities, raw, strict=True) if density == 1)


def test_capping_one_layer_at_a_time_leaves_weights_for_the_others() -> None:
    # Four narrow layers of 2 weights and one of 10,000; 5 % of 10,008 stay: 500.4, of which the narrow ones take 8.
    shapes = [(1, 2)] * 4 + [(100, 100)]
    densities = [1 - own for own in layer_sparsities(shapes, 0.95, "erk")]
    assert densities == pytest.approx([1.0] * 4 + [492.4 / 10_000], abs=1e-12)


def test_a_single_layer_has_the_sparsity_of_the_whole() -> None:
    assert layer_sparsities([(8, 3)], 0.75, "erk") == pytest.approx([0.75])


def test_uniform_shares_are_alike() -> None:
    assert layer_sparsities(SHAPES, 0.9, "uniform") == [0.9, 0.9, 0.9]
    assert pruned_counts(SHAPES, [0.9] * 3, 1.0) == [58, 230, 14]  # 57.6, 230.4, 14.4


def test_kept_weights_of_a_critic_are_those_computed_by_hand() -> None:
    # 113-256-256-1 at .9: 94,720 weights, of which 9,472 stay. ERK keeps ε·(i + o) of a layer: 369ε, 512ε and 257ε; the
    # last one would keep 257/1138·9,472 = 2,139 of its 256: it is dense, and 9,216 are left for ε = 9,216/881.
    shapes = [(256, 113), (256, 256), (1, 256)]
    assert kept_counts(shapes, 0.9, "erk") == [3860, 5356, 256]
    assert kept_counts(shapes, 0.9, "uniform") == [2893, 6554, 26]


def test_a_convolution_s_kernel_joins_the_sum_and_the_product() -> None:
    # Convolution (8, 4, 3, 3): raw 18/288; linear (4, 8): raw 12/32. At .5 of 320 weights 160 stay: ε·(18 + 12) = 160.
    # The linear layer would keep 64 of 32: it is dense, and the convolution keeps 128 of 288.
    assert layer_sparsities([(8, 4, 3, 3), (4, 8)], 0.5, "erk") == pytest.approx([1 - 128 / 288, 0.0])


def _water_filled(shapes: list[tuple[int, int]], sparsity: float) -> list[float]:
    """Return densities ``min(1, ε·raw)`` whose mean is ``1 − sparsity``, with ε found by bisection."""
    sizes = np.array([outputs * inputs for outputs, inputs in shapes], dtype=float)
    raw = np.array([(outputs + inputs) / (outputs * inputs) for outputs, inputs in shapes])
    low, high = 0.0, 1.0 / raw.min()
    for _ in range(200):
        middle = 0.5 * (low + high)
        kept = (np.minimum(1.0, middle * raw) * sizes).sum()
        low, high = (middle, high) if kept < (1.0 - sparsity) * sizes.sum() else (low, middle)
    return np.minimum(1.0, high * raw).tolist()


@settings(max_examples=200, deadline=None)
@given(shapes=layers, sparsity=st.floats(0, 0.999))
def test_shares_match_oracle_by_bisection(shapes: list[tuple[int, int]], sparsity: float) -> None:
    found = [1 - own for own in layer_sparsities(shapes, sparsity, "erk")]
    assert found == pytest.approx(_water_filled(shapes, sparsity), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(shapes=layers, sparsities=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)).map(sorted))
def test_every_layer_s_share_rises_with_that_of_the_whole(
    shapes: list[tuple[int, int]], sparsities: tuple[float, float]
) -> None:
    lower, higher = (layer_sparsities(shapes, sparsity, "erk") for sparsity in sparsities)
    assert all(a <= b + 1e-9 for a, b in zip(lower, higher, strict=True))


@settings(max_examples=200, deadline=None)
@given(shapes=layers, sparsity=st.floats(0, 0.9999))
def test_at_least_one_weight_of_each_layer_stays(shapes: list[tuple[int, int]], sparsity: float) -> None:
    for distribution in ("erk", "uniform"):
        assert min(kept_counts(shapes, sparsity, distribution)) >= 1


def test_global_counts_take_the_smallest_weights_of_all_layers_and_leave_one_in_each() -> None:
    weights = [torch.tensor([[5.0, 4.0]]), torch.tensor([[0.3], [0.2]]), torch.tensor([[1.0, 2.0]])]
    ones = [torch.ones_like(weight) for weight in weights]
    # By magnitude .2, .3, 1, 2, 4, 5; .3, 2 and 5 are the largest of their layers and stay.
    assert global_counts(weights, 1 / 6, ones) == [0, 1, 0]
    assert global_counts(weights, 2 / 6, ones) == [0, 1, 1]
    assert global_counts(weights, 5 / 6, ones) == [1, 1, 1]
    masks = magnitude_masks(weights, 0.5, ones, "global")
    assert [mask.tolist() for mask in masks] == [[[1, 0]], [[1], [0]], [[0, 1]]]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sparsities=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
    data=st.data(),
)
def test_masks_of_several_layers_only_grow_and_have_the_counts_asked_for(
    seed: int, sparsities: tuple[float, float], data: st.DataObject
) -> None:
    distribution = data.draw(st.sampled_from(["erk", "uniform", "global"]))
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (9, 7), (2, 9)]
    masks = [torch.ones(shape) for shape in shapes]
    for sparsity in sparsities:
        weights = [torch.randn(shape, generator=generator) for shape in shapes]  # what is masked comes back meanwhile
        now = magnitude_masks(weights, sparsity, masks, distribution)
        assert all(bool((after <= before).all()) for before, after in zip(masks, now, strict=True))
        masks = now
    zeros = sum(int((mask == 0).sum()) for mask in masks)
    assert zeros >= sparsities[1] * 116 - 1.5 - 3
    if distribution != "global":
        assert [int(mask.sum()) for mask in masks] == kept_counts(shapes, sparsities[1], distribution)


def test_another_distribution_is_refused() -> None:
    with pytest.raises(ConfigError, match="distribution='er': expected 'erk' or 'uniform'"):
        layer_sparsities(SHAPES, 0.5, "er")


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_half_of_the_way_each_layer_has_lost_the_same_share_of_what_it_will_lose(distribution: Any) -> None:
    schedule = PolynomialSchedule(0.2, 0.8, 0.9)
    final = layer_sparsities(SHAPES, 0.9, distribution)
    assert pruned_counts(SHAPES, final, schedule.reached(0.1)) == [0, 0, 0]
    halfway = [round(0.875 * own * size) for own, size in zip(final, (64, 256, 16), strict=True)]  # 1 − (1/2)³
    assert pruned_counts(SHAPES, final, schedule.reached(0.5)) == halfway
    assert schedule.reached(0.8) == 1.0


# ---- masks --------------------------------------------------------------------------------------------------------


def test_the_smallest_weights_are_masked_and_of_equal_ones_the_first() -> None:
    weight = torch.tensor([[3.0, -1.0, 1.0], [-2.0, 1.0, 0.5]])
    ones = torch.ones_like(weight)
    assert magnitude_mask(weight, 1, ones).tolist() == [[1, 1, 1], [1, 1, 0]]
    assert magnitude_mask(weight, 2, ones).tolist() == [[1, 0, 1], [1, 1, 0]]
    assert magnitude_mask(weight, 3, ones).tolist() == [[1, 0, 0], [1, 1, 0]]
    assert magnitude_mask(weight, 6, ones).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_masks_only_grow_whatever_the_masked_weights_have_become() -> None:
    weight = torch.tensor([3.0, 1.0, 2.0, 9.0])
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0])  # the greatest weight is masked already
    assert magnitude_mask(weight, 2, mask).tolist() == [1, 0, 1, 0]
    assert magnitude_mask(weight, 1, mask) is mask
    assert magnitude_mask(weight, 0, mask) is mask


@settings(max_examples=200, deadline=None)
@given(weight=weights, data=st.data())
def test_masks_match_oracle(weight: np.ndarray, data: st.DataObject) -> None:
    held, count = (data.draw(st.integers(0, weight.size)) for _ in range(2))
    before = np.ones(weight.size)
    before[data.draw(st.permutations(range(weight.size)))[:held]] = 0
    found = magnitude_mask(torch.tensor(weight), count, torch.tensor(before).view(weight.shape)).flatten().numpy()
    # NumPy: first whatever is masked, then by magnitude, then by place.
    order = np.lexsort((np.arange(weight.size), np.abs(weight).flatten(), before))
    expected = np.ones(weight.size)
    expected[order[: max(held, count)]] = 0
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=50, deadline=None)
@given(shape=st.tuples(st.integers(1, 8), st.integers(1, 8)), seed=st.integers(0, 1000), data=st.data())
def test_without_ties_masks_are_those_of_torch_s_own_pruning(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    layer, count = nn.Linear(*shape), data.draw(st.integers(0, shape[0] * shape[1]))
    own = magnitude_mask(layer.weight, count, torch.ones_like(layer.weight))
    prune.l1_unstructured(layer, "weight", amount=count)
    assert torch.equal(own, layer.weight_mask)


def test_a_mask_carries_no_gradient_and_leaves_the_weight_alone() -> None:
    weight = nn.Parameter(torch.randn(4, 3))
    before = weight.detach().clone()
    mask = magnitude_mask(weight, 5, torch.ones(4, 3))
    assert not mask.requires_grad
    assert torch.equal(weight, before)
