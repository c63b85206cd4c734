"""Costs: what is legal, and the units they are read in."""

import numpy as np
import pytest

from budget_wrappers.errors import CostError
from budget_wrappers.functional.costs import (
    cost_shares,
    exit_costs,
    penalised_reward,
    relative_costs,
    validate_cost,
    validate_flops,
)


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0, -0.5])
def test_a_cost_that_is_no_cost_raises_with_its_value(cost: float) -> None:
    with pytest.raises(CostError, match=f"latency is {cost!r}; expected a finite number >= 0"):
        validate_cost(cost, "latency")


@pytest.mark.parametrize("cost", [0, 0.5, 10**30])
def test_a_legal_cost_passes_unchanged(cost: float) -> None:
    assert validate_cost(cost) == cost


@pytest.mark.parametrize(
    ("flops", "message"),
    [
        ([], r"shape \(0,\)"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([1, -2], r"flops\[1\] is -2"),
        ([float("nan")], r"flops\[0\] is nan"),
        ([1.5], r"flops\[0\] is 1.5; expected a whole number"),
    ],
)
def test_illegal_flops_name_the_entry(flops: list[float], message: str) -> None:
    with pytest.raises(CostError, match=message):
        validate_flops(flops)


def test_flops_beyond_float_precision_stay_exact() -> None:
    assert validate_flops([2**53 + 1]).tolist() == [2**53 + 1]


def test_relative_costs_are_in_units_of_the_cheapest() -> None:
    # 2·(2·8 + 8·8 + 2·8·1) = 192 and 2·(2·64 + 64·64 + 2·64·1) = 8704: the two actors for MountainCarContinuous
    assert relative_costs([8704, 192]) == pytest.approx([8704 / 192, 1.0])


def test_relative_costs_reproduce_the_published_ratio() -> None:
    # published with three scalar operations on each net: (8704 + 3)/(192 + 3) = 44.65
    assert relative_costs([192 + 3, 8704 + 3])[1] == pytest.approx(44.65, abs=0.005)


def test_nothing_is_relative_to_a_free_sub_policy() -> None:
    with pytest.raises(CostError, match=r"cheapest of .* FLOPs is 0"):
        relative_costs([0, 10])


def test_shares_are_of_the_dearest() -> None:
    assert cost_shares([5, 20]) == pytest.approx([0.25, 1.0])


def test_no_share_of_nothing() -> None:
    with pytest.raises(CostError, match="no share"):
        cost_shares([0, 0])


def test_exit_costs_run_from_0_to_1() -> None:
    # (30 − 10)/(50 − 10) = 0.5
    assert exit_costs([10, 30, 50]) == pytest.approx([0.0, 0.5, 1.0])


def test_exit_costs_of_equals_mean_nothing() -> None:
    with pytest.raises(CostError, match="are equal"):
        exit_costs([7, 7])


def test_a_penalty_is_subtracted() -> None:
    assert penalised_reward(1.0, 250, 0.001) == pytest.approx(0.75)  # 1 − 0.001·250


def test_the_floor_stops_the_penalty_and_not_the_reward() -> None:
    # 1 − 2 = −1 is lifted to 0; −3 was below 0 already and passes; 5 − 2 = 3 is above
    assert penalised_reward(np.array([1.0, -3.0, 5.0]), 2, 1.0, floor=0.0).tolist() == [0.0, -3.0, 3.0]
