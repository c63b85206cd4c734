"""Whose rows were charged: a meter deals out a batch's FLOPs to environments, while somebody asks for it."""

import gc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budget_wrappers.errors import CostError, MeterError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.metering.rows import MOST_CHARGES


class Reader:
    """Somebody who asks."""


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def meter(reader: Reader) -> ComputeMeter:
    meter = ComputeMeter("tests")
    meter.keep_rows(reader)
    return meter


def test_a_batch_is_divided_among_its_rows(meter: ComputeMeter) -> None:
    meter.add(60, rows=3)
    shares = meter.take_by_row(3)
    assert (shares.tolist(), shares.dtype) == ([20, 20, 20], np.int64)


def test_rows_that_cost_differently_say_so(meter: ComputeMeter) -> None:
    meter.add(60, rows=3, by_row=[10, 0, 50])
    assert meter.take_by_row(3).tolist() == [10, 0, 50]


def test_two_modules_on_the_same_batch_are_added_up(meter: ComputeMeter) -> None:
    meter.add(6, "gate", rows=3)
    meter.add(90, "actor", rows=3, by_row=[0, 30, 60])
    assert meter.take_by_row(3).tolist() == [2, 32, 62]
    assert {name: flops.tolist() for name, flops in meter.row_ledger.by_name.items()} == {
        "gate": [2, 2, 2],
        "actor": [0, 30, 60],
    }


def test_single_rows_are_the_environments_in_order(meter: ComputeMeter) -> None:
    for flops in (1, 2, 3):
        meter.add(flops)
    assert meter.take_by_row(3).tolist() == [1, 2, 3]


def test_two_modules_run_row_by_row_keep_an_order_each(meter: ComputeMeter) -> None:
    for row in (1, 2, 3):
        meter.add(row, "encoder")
        meter.add(100 * row, "actor")
    assert meter.take_by_row(3).tolist() == [101, 202, 303]


def test_rows_that_take_one_of_several_ways_share_one_order(meter: ComputeMeter) -> None:
    for flops, name in ((1, "exit 1"), (20, "exit 2"), (1, "exit 1")):
        meter.add(flops, name)
    assert meter.take_by_row(3).tolist() == [1, 20, 1]


def test_half_batches_follow_one_another(meter: ComputeMeter) -> None:
    meter.add(20, rows=2)
    meter.add(6, rows=2, by_row=[2, 4])
    assert meter.take_by_row(4).tolist() == [10, 10, 2, 4]


def test_a_step_that_nothing_was_charged_in_costs_nothing(meter: ComputeMeter) -> None:
    assert meter.take_by_row(2).tolist() == [0, 0]
    meter.add(0, rows=0)  # a name that is announced
    assert meter.take_by_row(2).tolist() == [0, 0]


def test_rows_of_no_environment_are_refused_with_the_remedy(meter: ComputeMeter) -> None:
    meter.add(10, "selector", rows=3)
    meter.add(20, "deep", rows=2)
    with pytest.raises(MeterError, match=r"2 rows under the name 'deep'.*3 environments.*rows=3, by_row="):
        meter.take_by_row(3)


def test_flops_that_do_not_divide_are_refused_with_the_remedy(meter: ComputeMeter) -> None:
    meter.add(10, "deep", rows=3)
    with pytest.raises(MeterError, match=r"10 FLOPs under the name 'deep' for 3 rows.*by_row=.*flops_by_row_of_last"):
        meter.take_by_row(3)


def test_flops_without_any_row_are_refused(meter: ComputeMeter) -> None:
    meter.add(10, "planner", rows=0)
    with pytest.raises(MeterError, match=r"'planner' and names no rows.*rows=len\(observations\)"):
        meter.take_by_row(3)


def test_rows_that_do_not_pay_were_executed_and_are_not_charged(meter: ComputeMeter) -> None:
    meter.add(60, rows=3, by_row=[10, 20, 30])
    assert meter.take_by_row(3, np.array([True, False, True])).tolist() == [10, 0, 30]
    assert meter.totals == {"act": 60, "charged": 40, "learn": 0, "rows": 3}


def test_a_charge_that_is_not_to_be_paid_costs_no_row(meter: ComputeMeter) -> None:
    meter.add(60, rows=3, charged=0, by_row=[10, 20, 30])
    meter.add(9, rows=3, charged=6)
    assert meter.take_by_row(3).tolist() == [2, 2, 2]
    assert (meter.executed, meter.uncharged) == (69, 63)


def test_the_parts_of_the_names_sum_to_what_is_paid(meter: ComputeMeter) -> None:
    meter.add(60, "deep", rows=3, charged=0, by_row=[10, 20, 30])
    meter.add(9, "gate", rows=3, charged=6)
    paid = meter.take_by_row(3)
    assert (sum(meter.row_ledger.by_name.values()) == paid).all()
    assert meter.row_ledger.by_name["gate"].tolist() == [2, 2, 2]


def test_charges_that_no_step_closes_are_bounded_and_then_refused(meter: ComputeMeter) -> None:
    """A policy that is evaluated without environments while a vector wrapper is alive."""
    for _ in range(MOST_CHARGES + 10):
        meter.add(5)
    assert len(meter.row_ledger.charges) == MOST_CHARGES
    with pytest.raises(MeterError, match=rf"{MOST_CHARGES} times.*meter\.paused\(\).*meter\.discard\(\)"):
        meter.take_by_row(2)
    meter.discard()
    meter.add(8, rows=2)
    assert meter.take_by_row(2).tolist() == [4, 4]
    assert meter.totals == {"act": 5 * (MOST_CHARGES + 10) + 8, "charged": 8, "learn": 0, "rows": 3}


@pytest.mark.parametrize(
    ("by_row", "problem"),
    [
        ([10, 20], "expected 3 whole numbers"),
        ([[10, 20, 30]], "expected 3 whole numbers"),
        ([10.0, 20.0, 30.0], "type float64; expected 3 whole numbers"),
        ([-10, 40, 30], "holds -10; expected at least 0"),
        ([10, 20, 31], "sums to 61 and flops=60"),
    ],
)
def test_shares_that_cannot_be_are_refused(meter: ComputeMeter, by_row: Any, problem: str) -> None:
    with pytest.raises(CostError, match=problem):
        meter.add(60, rows=3, by_row=by_row)
    assert meter.executed == 0


def test_shares_of_a_charge_paid_in_part_are_refused(meter: ComputeMeter) -> None:
    with pytest.raises(CostError, match="charged=5 of flops=60 with by_row; expected all or 0"):
        meter.add(60, rows=3, charged=5, by_row=[10, 20, 30])
    assert (meter.executed, meter.uncharged) == (0, 0)


def test_shares_are_copied(meter: ComputeMeter) -> None:
    by_row = np.array([10, 20, 30])
    meter.add(60, rows=3, by_row=by_row)
    by_row[:] = 0
    assert meter.take_by_row(3).tolist() == [10, 20, 30]


@pytest.mark.parametrize("close", ["take", "take_flops", "discard", "reset_totals"])
def test_whoever_closes_the_step_closes_its_rows(meter: ComputeMeter, close: str) -> None:
    """An evaluation of single environments on the same meter."""
    meter.add(7)
    getattr(meter, close)()
    meter.add(6, rows=2)
    assert meter.take_by_row(2).tolist() == [3, 3]


def test_what_runs_aside_leaves_no_rows(meter: ComputeMeter) -> None:
    meter.add(6, rows=2)
    with meter.aside():
        meter.add(100)
        meter.take()
    assert meter.take_by_row(2).tolist() == [3, 3]


def test_rows_of_what_nobody_is_charged_for_are_nobodys(meter: ComputeMeter) -> None:
    meter.add(6, rows=2)
    with meter.uncharging():
        meter.add(100)
    assert meter.take_by_row(2).tolist() == [3, 3]
    meter.add(6, rows=2)
    with meter.uncharging():
        meter.discard()
        meter.add(100)
    assert meter.take_by_row(2).tolist() == [0, 0]


def test_rows_are_kept_only_while_somebody_asks() -> None:
    meter, first, second = ComputeMeter("tests"), Reader(), Reader()
    assert meter.row_ledger is None
    release = meter.keep_rows(first)
    meter.keep_rows(second)
    release()
    release()  # a second time changes nothing
    assert meter.row_ledger is not None
    del second
    gc.collect()
    assert meter.row_ledger is None
    with pytest.raises(MeterError, match="keeps no rows; call keep_rows"):
        meter.take_by_row(1)


def test_a_watched_module_is_divided_among_its_rows(meter: ComputeMeter) -> None:
    actor = torch.nn.Linear(3, 2)
    with meter.watch(actor), torch.no_grad():
        actor(torch.zeros(4, 3))
        assert meter.take_by_row(4).tolist() == [2 * 3 * 2] * 4


class Halves(torch.nn.Module):
    """Runs a layer on the rows whose first number is positive, and says what each row cost."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.flops_by_row_of_last_forward: list[int] = []

    @property
    def flops_of_last_forward(self) -> int:
        return sum(self.flops_by_row_of_last_forward)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = x[:, 0] > 0
        self.flops_by_row_of_last_forward = [12 if taken else 0 for taken in chosen.tolist()]
        return self.layer(x[chosen])


def test_a_module_whose_rows_cost_differently_says_so(meter: ComputeMeter) -> None:
    module = Halves()
    with meter.watch(module), torch.no_grad():
        module(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0]]))
        assert meter.take_by_row(3).tolist() == [12, 0, 12]


def test_a_module_that_reports_wrong_rows_is_refused_by_name(meter: ComputeMeter) -> None:
    module = Halves()
    module.forward = lambda x: module.flops_by_row_of_last_forward.append(12)
    with meter.watch(module), torch.no_grad(), pytest.raises(CostError, match=r"Halves\.flops_by_row_of_last_forward"):
        module(torch.zeros(3, 3))


class Counted(torch.nn.Module):
    """Counted by what runs."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x))


def test_a_watched_module_inside_another_has_the_rows_of_the_outer_one(meter: ComputeMeter) -> None:
    encoder = torch.nn.Linear(3, 2)
    actor = Counted(encoder)
    with meter.watch(encoder, "encoder"), meter.watch(actor, "actor"), torch.no_grad():
        actor(torch.zeros(4, 3))  # a batch
        batch = meter.take_by_row(4).tolist()
        for _ in range(4):  # row by row
            actor(torch.zeros(1, 3))
        assert meter.take_by_row(4).tolist() == batch == [2 * 3 * 2 + 2 * 2 * 2] * 4
    assert {name: flops.tolist() for name, flops in meter.row_ledger.by_name.items()} == {
        "encoder": [12] * 4,
        "actor": [8] * 4,
    }


@given(
    batches=st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 10**9), min_size=3, max_size=3)), max_size=6
    ),
    pays=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_nothing_is_lost_and_nothing_is_invented(batches: list[tuple[str, list[int]]], pays: list[bool]) -> None:
    meter, reader = ComputeMeter("tests"), Reader()
    meter.keep_rows(reader)
    for name, costs in batches:
        meter.add(sum(costs), name, 3, by_row=costs)
    shares = meter.take_by_row(3, np.array(pays))
    expected = [sum(costs[row] for _, costs in batches) for row in range(3)]
    assert shares.tolist() == [cost if paid else 0 for cost, paid in zip(expected, pays, strict=True)]
    assert (meter.executed, meter.executed - meter.uncharged) == (sum(expected), int(shares.sum()))
    assert meter.pending_flops == 0
