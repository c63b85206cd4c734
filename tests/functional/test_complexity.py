"""Sizes of networks are multilinear in the numbers of their units: one formula counts and expects, autograd derives."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agents.nets.mlp import MLP
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.complexity import (
    dense_cost,
    dense_width,
    feedforward_cost,
    layer_cost,
    layer_flops,
)

WIDTHS = st.lists(st.floats(0.0, 50.0), min_size=2, max_size=5)


def test_the_worked_example_of_a_perceptron() -> None:
    # (5.5 + 1)·2.5 + (2.5 + 1)·1.5 + (1.5 + 1)·4 = 16.25 + 5.25 + 10
    assert feedforward_cost((5.5, 2.5, 1.5, 4)) == 31.5
    first, second = torch.tensor(2.5, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    feedforward_cost((5.5, first, second, 4)).backward()
    # (5.5 + 1) + 1.5 and (2.5 + 1) + 4
    assert (float(first.grad), float(second.grad)) == (8.0, 7.5)


@pytest.mark.parametrize("widths", [(3, 2), (3, 8, 5, 2), (17, 256, 256, 12)])
def test_of_whole_widths_it_is_what_the_network_has(widths: tuple[int, ...]) -> None:
    assert feedforward_cost(widths) == sum(parameter.numel() for parameter in MLP(widths).parameters())


def test_a_layer_without_a_bias_has_its_matrix() -> None:
    assert layer_cost(3, 8, bias=False) == sum(p.numel() for p in nn.Linear(3, 8, bias=False).parameters())
    assert layer_flops(3, 8) == 48  # 2·3·8


def test_published_counts_of_dense_nets() -> None:
    # HalfCheetah, 8 layers of 32 units: φ_o on 17 numbers, φ_oa on what it says and 6 of action.
    observed = dense_width(17, [32] * 8)
    assert dense_cost(17, [32] * 8) == 34_824
    assert observed == 17 + 256
    assert dense_cost(observed + 6, [32] * 8) == 103_992


def test_the_worked_example_of_two_dense_nets() -> None:
    """O 3, A 2, two layers each; what reads them is counted, ρ = ½: 95.875, slopes (17.25, 16.75) and (9.5, 9)."""
    own = [torch.tensor(value, requires_grad=True) for value in (1.5, 1.0, 1.0, 1.0)]
    observed = dense_width(3, own[:2])
    both = dense_width(observed + 2, own[2:])
    learns = dense_cost(observed + 2, own[2:]) + both * 3  # the predictor has an output for each number observed
    readers = observed * 3.0 + both * (2.0 + 1.5)  # first layers of V, and of Q_1 and Q_2
    cost = dense_cost(3, own[:2]) + observed * 2.5 + 0.5 * (learns + readers)
    cost.backward()
    assert float(cost.detach()) == 95.875
    assert [float(one.grad) for one in own] == [17.25, 16.75, 9.5, 9.0]


@settings(max_examples=100, deadline=None)
@given(widths=WIDTHS, place=st.integers(0, 4), data=st.data())
@pytest.mark.parametrize("cost", [feedforward_cost, lambda widths: dense_cost(widths[0], widths[1:])])
def test_it_is_multilinear(
    cost: Callable[[list[float]], float], widths: list[float], place: int, data: st.DataObject
) -> None:
    place %= len(widths)

    def at(more: float) -> float:
        return cost([*widths[:place], widths[place] + more, *widths[place + 1 :]])

    assert at(2.0) - at(1.0) == pytest.approx(at(1.0) - at(0.0), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(widths=st.lists(st.floats(0.0, 50.0), min_size=3, max_size=5))
def test_autograd_and_differences_agree(widths: list[float]) -> None:
    own = [torch.tensor(width, dtype=torch.float64, requires_grad=True) for width in widths]
    slopes = torch.autograd.grad(feedforward_cost(own), own)
    for place, slope in enumerate(slopes):
        # Linear in each width: a difference over 1 is the slope.
        more = [width + (number == place) for number, width in enumerate(widths)]
        assert float(slope) == pytest.approx(feedforward_cost(more) - feedforward_cost(widths), abs=1e-6)
        closed = (widths[place - 1] + 1 if place else 0.0) + (widths[place + 1] if place + 1 < len(widths) else 0.0)
        assert float(slope) == pytest.approx(closed, abs=1e-9)


def test_one_width_is_no_network() -> None:
    with pytest.raises(ConfigError, match="of one layer at least"):
        feedforward_cost((3,))
