"""Moments stay with the weights that are left: told which, or recognised by their values."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from agents.nets.kept import kept_moments
from budget_wrappers.modules.surgery import keep_units, merged

ROWS, COLUMNS = [0, 2, 5], [1, 3]


def state_of(parameter: Tensor) -> dict[str, Any]:
    """Return Adam's state, whose numbers tell where they stand: ``1000·(row + 1) + column``, and that squared."""
    flat = parameter.detach().reshape(len(parameter), -1)
    places = 1000.0 * torch.arange(1, len(flat) + 1).unsqueeze(1) + torch.arange(flat.shape[1])
    moment = places.reshape(parameter.shape)
    return {"step": torch.tensor(7.0), "exp_avg": moment, "exp_avg_sq": moment.square()}


def weight_of(rows: int = 6, columns: int = 4, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)))


def has(found: dict[str, Any], moment: Tensor) -> bool:
    """Tell whether both moments are those of ``state_of`` where ``moment`` says, with the steps counted on."""
    same = torch.equal(found["exp_avg"], moment) and torch.equal(found["exp_avg_sq"], moment.square())
    return same and float(found["step"]) == 7.0


# ---- told which ---------------------------------------------------------------------------------------------------


def test_units_that_keep_units_kept_have_their_moments() -> None:
    first, second = nn.Linear(4, 6), nn.Linear(6, 3)
    states = {p: state_of(p) for layer in (first, second) for p in layer.parameters()}
    kept = keep_units(first, second, ROWS)
    found = {p: kept_moments(p, p, state, kept) for p, state in states.items()}
    assert has(found[first.weight], states[first.weight]["exp_avg"][ROWS])
    assert has(found[first.bias], states[first.bias]["exp_avg"][ROWS])
    assert has(found[second.weight], states[second.weight]["exp_avg"][:, ROWS])
    assert has(found[second.bias], states[second.bias]["exp_avg"])


def test_several_removals_are_followed_in_their_order() -> None:
    first, second, third = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)
    states = {p: state_of(p) for layer in (first, second, third) for p in layer.parameters()}
    kept = merged(keep_units(first, second, ROWS), keep_units(second, third, [1, 4]), keep_units(first, second, [0, 2]))
    # [0, 2] of the rows that were left, 0, 2 and 5, are 0 and 5
    found = kept_moments(second.weight, second.weight, states[second.weight], kept)
    assert has(found, states[second.weight]["exp_avg"][[1, 4]][:, [0, 5]])
    assert has(kept_moments(first.bias, first.bias, states[first.bias], kept), states[first.bias]["exp_avg"][[0, 5]])


def test_equal_weights_are_told_apart_if_the_rows_are_named() -> None:
    first, second = nn.Linear(4, 6), nn.Linear(6, 3)
    nn.init.constant_(first.weight, 0.5)
    state = state_of(first.weight)
    kept = keep_units(first, second, ROWS)
    assert has(kept_moments(first.weight, first.weight, state, kept), state["exp_avg"][ROWS])


def test_the_moments_are_copies() -> None:
    first, second = nn.Linear(4, 6), nn.Linear(6, 3)
    state = state_of(first.weight)
    kept_moments(first.weight, first.weight, state, keep_units(first, second, range(6)))["exp_avg"].zero_()
    assert state["exp_avg"].all()


# ---- recognised by value ------------------------------------------------------------------------------------------


def test_rows_of_a_parameter_that_was_replaced_are_recognised() -> None:
    old = weight_of()
    state, new = state_of(old), nn.Parameter(old.detach()[ROWS].clone())
    assert has(kept_moments(old, new, state), state["exp_avg"][ROWS])


def test_columns_of_a_parameter_that_was_replaced_are_recognised() -> None:
    old = weight_of()
    state, new = state_of(old), nn.Parameter(old.detach()[:, COLUMNS].clone())
    assert has(kept_moments(old, new, state), state["exp_avg"][:, COLUMNS])


def test_rows_and_columns_at_once_are_recognised() -> None:
    old = weight_of()
    state, new = state_of(old), nn.Parameter(old.detach()[ROWS][:, COLUMNS].clone())
    assert has(kept_moments(old, new, state), state["exp_avg"][ROWS][:, COLUMNS])


def test_entries_of_a_bias_are_recognised() -> None:
    old = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    state, new = state_of(old), nn.Parameter(old.detach()[ROWS].clone())
    assert has(kept_moments(old, new, state), state["exp_avg"][ROWS])


@settings(max_examples=150, deadline=None)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 100), data=st.data())
def test_any_rows_and_columns_in_any_order_are_recognised(
    rows: int, columns: int, seed: int, data: st.DataObject
) -> None:
    old = weight_of(rows, columns, seed)
    left = data.draw(st.permutations(range(rows))), data.draw(st.permutations(range(columns)))
    own_rows, own_columns = (part[: data.draw(st.integers(1, len(part)))] for part in left)
    state, new = state_of(old), nn.Parameter(old.detach()[own_rows][:, own_columns].clone())
    assert has(kept_moments(old, new, state), state["exp_avg"][own_rows][:, own_columns])


def test_rows_and_columns_that_were_added_start_at_zero() -> None:
    old = weight_of(3, 2)
    state, new = state_of(old), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    new[:3, :2] = old.detach()
    expected = torch.zeros(5, 4)
    expected[:3, :2] = state["exp_avg"]
    assert has(kept_moments(old, nn.Parameter(new), state), expected)


def test_a_weight_that_changed_in_a_kept_row_starts_at_zero() -> None:
    old = weight_of()
    state, new = state_of(old), old.detach()[ROWS].clone()
    new[1, 2] = 9.0
    expected = state["exp_avg"][ROWS].clone()
    expected[1, 2] = 0.0
    assert has(kept_moments(old, nn.Parameter(new), state), expected)


def test_weights_that_were_never_there_start_at_zero() -> None:
    old = weight_of()
    assert has(kept_moments(old, weight_of(4, 3, seed=9), state_of(old)), torch.zeros(4, 3))


def test_weights_all_of_one_value_are_not_guessed() -> None:
    old = nn.Parameter(torch.full((6, 4), 0.5))
    assert has(kept_moments(old, nn.Parameter(torch.full((3, 4), 0.5)), state_of(old)), torch.zeros(3, 4))


def test_pruned_weights_do_not_hide_the_rows_that_they_stand_in() -> None:
    old = weight_of()
    with torch.no_grad():
        old[:, 0], old[2, 1] = 0.0, 0.0
    state, new = state_of(old), nn.Parameter(old.detach()[ROWS].clone())
    found = kept_moments(old, new, state)["exp_avg"]
    # Zeros stand in many places, so column 0, which has nothing else, is not recognised; the others are.
    assert torch.equal(found[:, 1:], state["exp_avg"][ROWS][:, 1:])
    assert not found[:, 0].any()


# ---- changed in place ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[0, 2, 5], [0, 1, 2, 3, 4, 5, 0]])
def test_a_parameter_resized_in_place_untold_starts_at_zero(rows: list[int]) -> None:
    parameter = weight_of()
    state = state_of(parameter)
    parameter.data = parameter.data[rows].clone()
    assert has(kept_moments(parameter, parameter, state), torch.zeros(len(rows), 4))


def test_a_parameter_of_its_old_size_keeps_its_moments() -> None:
    parameter = weight_of()
    state = state_of(parameter)
    assert has(kept_moments(parameter, parameter, state), state["exp_avg"])
    assert has(kept_moments(parameter, parameter, state, {weight_of(): ()}), state["exp_avg"])


def test_a_record_that_does_not_lead_to_the_shape_is_not_followed() -> None:
    first, second = nn.Linear(4, 6), nn.Linear(6, 3)
    state = state_of(first.weight)
    kept = keep_units(first, second, ROWS)
    first.weight.data = first.weight.data[:2]
    assert has(kept_moments(first.weight, first.weight, state, kept), torch.zeros(2, 4))
