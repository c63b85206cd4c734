"""Drawn units and their straight-through derivative, against every configuration of small networks; what stays."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError
from budget_wrappers.functional.complexity import feedforward_cost
from budget_wrappers.functional.units import draw_units, keep_within, rate_for, require_probabilities

Loss = Callable[[Tensor], Tensor]


def configurations(theta: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return every ξ, and its probability as a function of θ."""
    found = []
    for bits in itertools.product((0.0, 1.0), repeat=len(theta)):
        xi = torch.tensor(bits, dtype=theta.dtype)
        found.append((xi, torch.where(xi == 1, theta, 1 - theta).prod()))
    return found


def exact(loss: Loss, theta: Tensor) -> tuple[float, list[float]]:
    """Return E[L] and its derivative, by going through every configuration."""
    theta = theta.clone().requires_grad_()
    expected = sum(chance * loss(xi) for xi, chance in configurations(theta))
    return float(expected.detach()), torch.autograd.grad(expected, theta)[0].tolist()


def straight_through(loss: Loss, theta: Tensor) -> list[float]:
    """Return the mean of the straight-through estimate, by going through every configuration."""
    mean = torch.zeros_like(theta)
    for xi, chance in configurations(theta):
        own = theta.clone().requires_grad_()
        uniform = torch.where(xi == 1, torch.zeros_like(xi), torch.ones_like(xi))  # draws exactly this ξ
        drawn = draw_units(own, uniform)
        assert torch.equal(drawn, xi)
        mean += chance * torch.autograd.grad(loss(drawn), own)[0]
    return mean.tolist()


def test_by_hand_of_a_quadratic_loss() -> None:
    """L = (ξ₁ + 2ξ₂ − 1)², θ = (½, ¼): E[L] = 1, its slopes are (0, 2), and those of the estimate (0, 0).

    L is 1, 0, 1, 4 at ξ = 00, 10, 01, 11 with chances 3/8, 3/8, 1/8, 1/8: E[L] = 3/8 + 1/8 + 4/8. The estimate's terms
    are b = 1 and 4 (half the curvatures): it is off by b(2θ − 1) = 0 and −2.
    """
    theta = torch.tensor([0.5, 0.25], dtype=torch.float64)

    def loss(xi: Tensor) -> Tensor:
        return (xi[0] + 2 * xi[1] - 1).square()

    assert exact(loss, theta) == (1.0, [0.0, 2.0])
    assert straight_through(loss, theta) == [0.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 0.95), min_size=3, max_size=4), st.integers(0, 1000))
def test_the_estimate_is_exact_for_losses_linear_in_each_unit(thetas: list[float], seed: int) -> None:
    theta = torch.tensor(thetas, dtype=torch.float64)
    weights = torch.randn(len(thetas), len(thetas), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights.fill_diagonal_(0.0)  # products of different units: linear in each

    def loss(xi: Tensor) -> Tensor:
        return xi @ weights @ xi + xi.sum() + 3.0

    assert straight_through(loss, theta) == pytest.approx(exact(loss, theta)[1], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 0.95), min_size=2, max_size=4), st.integers(0, 1000))
def test_it_is_off_by_half_the_curvature_times_two_theta_less_one(thetas: list[float], seed: int) -> None:
    """Of ‖W·diag(ξ)·x − y‖², the error of a layer of units: b_k = x_k²·‖W_k‖²."""
    theta, generator = torch.tensor(thetas, dtype=torch.float64), torch.Generator().manual_seed(seed)
    weight = torch.randn(3, len(thetas), generator=generator, dtype=torch.float64)
    x, y = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (len(thetas), 3))

    def loss(xi: Tensor) -> Tensor:
        return (weight @ (xi * x) - y).square().sum()

    curvature = (weight.square().sum(0) * x.square()).tolist()
    off = [b * (2 * t - 1) for b, t in zip(curvature, thetas, strict=True)]
    found = [a - b for a, b in zip(straight_through(loss, theta), exact(loss, theta)[1], strict=True)]
    assert found == pytest.approx(off, abs=1e-9)


def test_a_sure_unit_is_always_drawn_and_an_impossible_one_never() -> None:
    uniform = torch.tensor([0.0, 1.0 - 2**-24])
    assert draw_units(torch.ones(2), uniform).tolist() == [1.0, 1.0]
    assert draw_units(torch.zeros(2), uniform).tolist() == [0.0, 0.0]


def test_units_are_drawn_as_often_as_their_probability_says() -> None:
    theta = torch.tensor([0.1, 0.5, 0.9])
    drawn = draw_units(theta.expand(20_000, -1), torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)))
    # A standard error of at most .5/√20,000 = .0035.
    torch.testing.assert_close(drawn.mean(0), theta, atol=0.012, rtol=0)


# ---- what stays -----------------------------------------------------------------------------------------------------


def cost(counts: list[int]) -> int:
    return int(feedforward_cost((3, *counts, 2)))


def test_units_from_a_half_on_stay() -> None:
    kept = keep_within([torch.tensor([0.9, 0.2, 0.5]), torch.tensor([0.4, 0.6])], cost)
    assert [index.tolist() for index in kept] == [[0, 2], [1]]


def test_a_layer_keeps_its_best_unit() -> None:
    kept = keep_within([torch.tensor([0.1, 0.3, 0.2]), torch.tensor([0.6, 0.7])], cost)
    assert [index.tolist() for index in kept] == [[1], [0, 1]]
    assert [index.tolist() for index in keep_within([torch.tensor([0.1, 0.3])], cost, least=0)] == [[]]


@settings(max_examples=200, deadline=None)
@given(
    first=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    second=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    limit=st.integers(10, 150),
)
def test_never_above_the_limit_and_nobody_stays_whose_better_went(
    first: list[float], second: list[float], limit: int
) -> None:
    thetas = [torch.tensor(first), torch.tensor(second)]
    kept = keep_within(thetas, cost, limit)  # the smallest, 3, 1, 1, 2, costs 4 + 2 + 4
    counts = [len(index) for index in kept]
    assert cost(counts) <= limit
    assert min(counts) >= 1
    for theta, index in zip(thetas, kept, strict=True):
        gone = torch.ones(len(theta), dtype=torch.bool)
        gone[index] = False
        assert not gone.any() or float(theta[gone].max()) <= float(theta[index].min())


def test_no_more_go_than_the_limit_asks_for() -> None:
    """3, 4, 4, 2: 16 + 20 + 10 = 46. Without the unit of θ = .6: 3, 3, 4, 2: 12 + 16 + 10 = 38 ≤ 40, and it ends."""
    kept = keep_within([torch.tensor([0.9, 0.8, 0.6, 1.0]), torch.tensor([0.7, 1.0, 0.9, 0.8])], cost, 40)
    assert [index.tolist() for index in kept] == [[0, 1, 3], [0, 1, 2, 3]]


def test_a_floor_brings_the_best_of_the_rest_back() -> None:
    thetas = [torch.tensor([0.9, 0.05, 0.01]), torch.tensor([0.02, 0.8])]
    assert [len(index) for index in keep_within(thetas, cost, None, 1, 0.1)] == [1, 1]
    # 3, 1, 1, 2 costs 10; with θ = .05 back 3, 2, 1, 2: 8 + 3 + 4 = 15; with .02 too 3, 2, 2, 2: 8 + 6 + 6 = 20.
    assert [index.tolist() for index in keep_within(thetas, cost, None, 1, 0.1, floor=12)] == [[0, 1], [1]]
    assert [index.tolist() for index in keep_within(thetas, cost, None, 1, 0.1, floor=20)] == [[0, 1], [0, 1]]
    assert [len(index) for index in keep_within(thetas, cost, None, 1, 0.1, floor=1e9)] == [3, 2]


def test_layers_that_are_alike_keep_as_many_units_each_its_best() -> None:
    thetas = [torch.tensor([0.9, 0.1, 0.2]), torch.tensor([0.1, 0.7, 0.8])]
    kept = keep_within(thetas, cost, alike=[(0, 1)])
    assert [index.tolist() for index in kept] == [[0, 2], [1, 2]]
    with pytest.raises(ConfigError, match="as many in each"):
        keep_within([torch.ones(2), torch.ones(3)], cost, alike=[(0, 1)])


def test_a_limit_below_the_smallest_network_is_refused_with_its_size() -> None:
    with pytest.raises(InfeasibleBudgetError, match="a limit of 9: expected at least 10, what the smallest"):
        keep_within([torch.ones(4), torch.ones(4)], cost, 9)


def test_theta_can_travel_ten_times_but_no_step_is_a_leap() -> None:
    assert rate_for(1_000) == 0.01
    assert rate_for(10**6) == 3e-4
    assert rate_for(20) == rate_for(0) == 0.05


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"θ = 1\.5"):
        require_probabilities(torch.tensor([0.5, 1.5]))
