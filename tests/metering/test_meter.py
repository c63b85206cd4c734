"""The account itself: what is charged, taken, dropped, saved and refused."""

import copy
import json
import multiprocessing
import pickle
from math import inf, nan

import numpy as np
import pytest
import torch
from torch import nn

from budget_wrappers.core import Meter, Spend
from budget_wrappers.errors import CheckpointError, CostError, MeterError
from budget_wrappers.metering import ComputeMeter, get_meter


def test_a_meter_is_one_by_the_protocol() -> None:
    assert isinstance(ComputeMeter(), Meter)


def test_take_returns_what_was_added_since_the_last_take() -> None:
    meter = ComputeMeter()
    meter.add(100, "actor")
    meter.add(7, "gate")
    assert meter.take() == Spend(executed=107, charged=107, rows=1, by_name={"actor": 100, "gate": 7})
    meter.add(5, "gate")
    assert meter.take() == Spend(executed=5, charged=5, rows=1, by_name={"gate": 5})
    assert meter.take() == Spend()


def test_a_charge_without_a_name_goes_under_the_meters() -> None:
    meter = ComputeMeter("robot")
    meter.add(3)
    assert meter.take().by_name == {"robot": 3}


def test_take_flops_returns_what_the_budget_pays_and_closes_the_step() -> None:
    meter = ComputeMeter()
    meter.add(100, charged=40)
    assert meter.pending_flops == 40
    assert meter.take_flops() == 40
    assert meter.take_flops() == 0
    assert meter.totals == {"act": 100, "charged": 40, "learn": 0, "rows": 1}


def test_executed_and_charged_differ_by_what_is_not_to_be_paid() -> None:
    meter = ComputeMeter()
    meter.add(100, charged=0)
    meter.add(10)
    assert (spend := meter.take()).executed == 110
    assert spend.charged == 10


def test_rows_are_the_largest_batch_so_that_two_modules_on_one_observation_are_one_row() -> None:
    meter = ComputeMeter()
    meter.add(5, "selector")
    meter.add(50, "actor")
    meter.take_flops()
    assert meter.last_rows == 1
    meter.add(20, rows=4)
    assert meter.take().rows == 4
    meter.take_flops()
    assert meter.last_rows == 0


def test_discard_drops_what_is_pending_and_keeps_what_was_executed() -> None:
    meter = ComputeMeter()
    meter.add(10)
    meter.take()
    meter.add(100, "actor", rows=8)
    meter.discard()
    assert meter.take() == Spend()
    assert meter.totals == {"act": 110, "charged": 10, "learn": 0, "rows": 9}


def test_discarding_twice_is_discarding_once() -> None:
    meter = ComputeMeter()
    meter.add(10, charged=3)
    meter.discard()
    meter.discard()
    meter.add(4)
    assert meter.take_flops() == 4
    assert meter.totals["charged"] == 4


def test_by_name_goes_on_adding_up_and_cannot_be_written() -> None:
    meter = ComputeMeter()
    live = meter.by_name
    for _ in range(3):
        meter.add(2, "a")
        meter.take_flops()
    assert dict(live) == {"a": 6} == dict(meter.totals.by_name)
    with pytest.raises(TypeError):
        live["a"] = 0


def test_totals_hold_pending_charges_and_are_a_copy() -> None:
    meter = ComputeMeter()
    meter.add(3)
    totals = meter.totals
    totals["act"] = 99
    assert meter.totals["act"] == 3


@pytest.mark.parametrize("used", [lambda meter: meter.add(0), lambda meter: meter.watch(nn.Linear(1, 1))])
def test_a_meter_is_used_once_anything_was_watched_or_added(used: object) -> None:
    meter = ComputeMeter()
    assert not meter.used
    used(meter)
    assert meter.used


def test_nothing_is_charged_while_paused() -> None:
    meter = ComputeMeter()
    with meter.paused():
        meter.add(10)
    meter.add(1)
    assert meter.take().executed == 1


def test_aside_charges_inside_and_puts_every_account_back() -> None:
    meter = ComputeMeter()
    meter.add(5, "a")
    before = meter.state_dict()
    with meter.aside():
        meter.add(7, "b", rows=3)
        assert meter.take().executed == 12
    assert meter.state_dict() == before
    assert meter.take() == Spend(executed=5, charged=5, rows=1, by_name={"a": 5})


def test_aside_puts_back_what_nobody_pays_for() -> None:
    meter = ComputeMeter()
    meter.add(5, "a", charged=2)
    with meter.aside():
        meter.add(7, "a", charged=0)
    assert (meter.unpaid, meter.uncharged) == ({"a": 3}, 3)
    meter.take()
    assert (meter.unpaid, meter.uncharged) == ({}, 3)


def test_uncharging_counts_what_acts_and_bills_it_to_no_step() -> None:
    meter = ComputeMeter()
    meter.add(5, "a")
    with meter.uncharging():
        meter.add(7, "b", rows=3)
        meter.add(2, "a")
    assert (meter.pending_flops, meter.pending_rows) == (5, 1)
    assert meter.unpaid == {"b": 7, "a": 2}
    assert meter.take() == Spend(executed=14, charged=5, rows=1, by_name={"a": 7, "b": 7})
    assert (meter.totals["act"], meter.totals["charged"]) == (14, 5)
    with pytest.raises(ZeroDivisionError), meter.uncharging():
        meter.add(1)
        raise ZeroDivisionError
    assert meter.take_flops() == 0


def test_an_environment_that_closes_its_own_steps_is_charged_as_ever_while_uncharging() -> None:
    meter = ComputeMeter()
    with meter.uncharging():
        meter.discard()  # its reset
        meter.add(7)
        assert meter.take_flops() == 7
        meter.add(2)  # an action that was never taken
    assert meter.totals["charged"] == 7
    meter.add(3)
    assert meter.take_flops() == 3


@pytest.mark.parametrize("flops", [np.int64(12), np.float32(12.0), 12.0, True + 11])
def test_whole_numbers_of_any_type_are_taken(flops: object) -> None:
    meter = ComputeMeter()
    meter.add(flops)
    assert meter.take_flops() == 12
    assert type(meter.totals["act"]) is int


@pytest.mark.parametrize("flops", [-1, nan, inf, 1.5, "12", None, np.float64(nan), np.int32(-3)])
@pytest.mark.parametrize("argument", ["flops", "rows", "charged"])
def test_a_cost_that_is_no_count_is_refused_by_its_name(argument: str, flops: object) -> None:
    if argument == "charged" and flops is None:
        pytest.skip("charged=None means all of it")
    meter = ComputeMeter()
    with pytest.raises(CostError, match=f"{argument}=.*expected"):
        meter.add(**{"flops": 1, argument: flops})
    assert meter.take() == Spend()


def test_a_charge_above_what_was_executed_is_refused() -> None:
    with pytest.raises(CostError, match="charged=11 is above flops=10"):
        ComputeMeter().add(10, charged=11)


def test_state_survives_json_and_pending_charges_are_closed_into_it() -> None:
    meter, other = ComputeMeter(), ComputeMeter()
    meter.add(10, "a", charged=4)
    meter.take()
    meter.add(5, "b")
    other.add(99, "c")
    other.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    assert other.state_dict() == meter.state_dict()
    assert other.totals == {"act": 15, "charged": 9, "learn": 0, "rows": 2}
    assert other.take() == Spend()
    other.add(1, "b")
    assert other.take().by_name == {"b": 1}


@pytest.mark.parametrize(
    "change",
    [{"act": -1}, {"act": "1"}, {"extra": 1}, {"by_name": {"a": nan}}, {"by_name": 3}],
    ids=str,
)
def test_a_damaged_state_is_refused_and_changes_nothing(change: dict) -> None:
    meter = ComputeMeter()
    meter.add(3)
    before = meter.state_dict()
    with pytest.raises(CheckpointError, match="meter's state"):
        meter.load_state_dict({**before, **change})
    assert meter.state_dict() == before


def test_reset_totals_starts_from_zero_and_keeps_watching() -> None:
    meter, module = ComputeMeter(), nn.Linear(2, 2)
    meter.watch(module)
    meter.add(3)
    meter.reset_totals()
    assert meter.totals == {"act": 0, "charged": 0, "learn": 0, "rows": 0}
    with torch.no_grad():
        module(torch.zeros(1, 2))
    assert meter.take_flops() == 8


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_meter_needs_a_name(name: object) -> None:
    with pytest.raises(MeterError, match="string that is not empty"):
        ComputeMeter(name)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_get_meter_finds_the_same_meter_by_name() -> None:
    assert get_meter("tests.same") is get_meter("tests.same")
    assert get_meter("tests.same") is not get_meter("tests.other")
    assert get_meter("tests.same").name == "tests.same"


def test_a_name_has_one_convention() -> None:
    get_meter("tests.all", "all")
    assert get_meter("tests.all").convention == "all"
    with pytest.raises(MeterError, match=r"'matmul'.*exists and counts 'all'"):
        get_meter("tests.all", "matmul")


# ---- one process, one object ----------------------------------------------------------------------------------------


def test_a_meter_is_not_copied() -> None:
    meter = ComputeMeter()
    assert copy.deepcopy({"meter": meter})["meter"] is meter
    assert copy.copy(meter) is meter


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_a_meter_is_refused_with_the_remedy(protocol: int) -> None:
    with pytest.raises(MeterError, match=r"in the main process, with .*wrappers\.vector"):
        pickle.dumps(ComputeMeter(), protocol)


def _in_fork(act: object, answers: object) -> None:
    try:
        answers.put(act())
    except MeterError as error:
        answers.put(str(error))


def forked(act: object) -> object:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_in_fork, args=(act, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestFork:
    def test_a_meter_read_in_a_forked_worker_says_where_the_wrapper_belongs(self) -> None:
        meter = ComputeMeter()
        meter.add(5)
        assert "main process" in forked(meter.take_flops)
        assert meter.take_flops() == 5

    def test_a_policy_that_lives_in_the_worker_is_metered_there(self) -> None:
        meter, module = ComputeMeter(), nn.Linear(2, 2)
        meter.watch(module)
        meter.add(5)

        def act() -> int:
            with torch.no_grad():
                module(torch.zeros(1, 2))
            return meter.take_flops()

        assert forked(act) == 8
