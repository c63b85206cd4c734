"""The widths found act at the FLOPs asked for, within 2 % wherever any widths do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.studies.fit import WITHIN, fitting_widths, flops_of, outputs_of
from budget_wrappers.errors import ConfigError


def test_flops_are_two_a_weight() -> None:
    assert flops_of((16, 8), inputs=3, outputs=2) == 2 * (3 * 16 + 16 * 8 + 8 * 2)
    assert flops_of((), 3, 2) == 2 * 3 * 2


def test_outputs_are_known_from_one_unit() -> None:
    assert outputs_of(lambda widths: flops_of(widths, 3, 7), 3) == 7


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 3), st.integers(2, 300))
def test_widths_of_a_network_that_exists_cost_what_it_costs(inputs: int, outputs: int, layers: int, width: int) -> None:
    target = flops_of((width,) * layers, inputs, outputs)
    found = fitting_widths(target, inputs, outputs, layers)
    assert abs(flops_of(found, inputs, outputs) / target - 1) <= WITHIN
    assert len(found) <= layers


@given(st.integers(2, 40), st.integers(1, 20), st.floats(1.0, 400.0))
def test_any_cost_beyond_a_few_units_is_met_within_two_percent(inputs: int, outputs: int, times: float) -> None:
    target = 60 * flops_of((4, 4), inputs, outputs) * times
    assert abs(flops_of(fitting_widths(target, inputs, outputs, 2), inputs, outputs) / target - 1) <= WITHIN


def test_the_most_even_widths_are_taken() -> None:
    assert fitting_widths(flops_of((64, 64), 11, 6), 11, 6, 2) == (64, 64)


def test_less_than_a_unit_a_layer_costs_is_fewer_layers_or_a_linear_map() -> None:
    # 2 layers of 1 unit cost 2·(10 + 1 + 1) = 24, a linear map 2·10·1 = 20, one layer of 1 unit 22.
    assert fitting_widths(20, 10, 1, 2) == ()
    assert fitting_widths(22, 10, 1, 2) == (1,)


@pytest.mark.parametrize("target", [0, -1, float("nan"), float("inf")])
def test_no_cost_is_refused(target: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        fitting_widths(target, 3, 1, 2)
