"""Budget programs: scipy's and cvxpy's objective, budgets that hold, ties that go to the cheaper."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.budget_lp import against_cvxpy, errors, optima, problems
from budget_wrappers.errors import CostError, InfeasibleBudgetError, NonFiniteError, SpaceError
from budget_wrappers.functional.budget_lp import solve_batch_lp, solve_exit_lp, solve_lp_cvxpy

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def objective_of(alpha: torch.Tensor, values: torch.Tensor) -> float:
    return float((alpha.double() * values).sum())


@pytest.mark.parametrize("per_state", [True, False])
def test_the_optimum_is_scipy_s_and_the_budget_holds(per_state: bool) -> None:
    # benchmarks.budget_lp does the same with 12,000 of each
    made = [problem for states in ((1,) if per_state else (1, 2, 5, 12)) for problem in problems(states, 250, states)]
    best = optima(made, per_state)
    for dtype, tolerance in TOLERANCE.items():
        assert max(errors(made, best, dtype, per_state).values()) <= tolerance


@pytest.mark.parametrize("per_state", [True, False])
def test_the_optimum_is_cvxpy_s_on_a_sample(per_state: bool) -> None:
    assert against_cvxpy(problems(7, 12, 6), per_state) <= 1e-6


def test_the_multiplier_proves_the_optimum() -> None:
    for values, costs, budget in problems(5, 500, 8):
        alpha, multiplier = solve_batch_lp(values, costs, budget)
        # strong duality: max_i (v_i − μ·c_i) summed over states, plus what the whole budget is worth
        dual = (values - multiplier * costs).amax(1).sum() + multiplier * budget * len(values)
        assert multiplier >= 0
        assert float(dual) == pytest.approx(objective_of(alpha, values), abs=1e-9 * float(values.abs().max()))


def test_a_budget_a_state_is_that_state_s_own() -> None:
    for values, costs, _ in problems(3, 50, 8):
        budgets = torch.linspace(0, 1.2, 8, dtype=torch.float64)
        together = solve_exit_lp(values, costs, budgets)
        for row, budget in enumerate(budgets.tolist()):
            alone = solve_exit_lp(values[row : row + 1], costs, budget)
            assert objective_of(alone, values[row : row + 1]) == pytest.approx(
                objective_of(together[row : row + 1], values[row : row + 1]), rel=1e-9, abs=1e-9
            )
            assert float(together[row] @ costs) <= budget + 1e-12


def test_two_sub_policies_are_mixed_where_one_is_not_enough() -> None:
    # v = (0, 1, 4), c = (0, .4, 1), b = .5: 0–2 mixed gives 4·.5 = 2, 1–2 mixed 1 + 3·.1/.6 = 1.5, exit 1 alone 1
    alpha = solve_exit_lp(torch.tensor([[0.0, 1.0, 4.0]]), [0.0, 0.4, 1.0], 0.5)
    assert alpha.tolist() == [[0.5, 0.0, 0.5]]


def test_the_batch_spends_where_it_pays() -> None:
    # The dear one adds 3 in the first state and 1 in the second: half the budget goes to the first alone.
    values = torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    alpha, multiplier = solve_batch_lp(values, [0.0, 1.0], 0.5)
    assert (alpha.tolist(), float(multiplier)) == ([[0.0, 1.0], [1.0, 0.0]], 1.0)
    assert solve_exit_lp(values, [0.0, 1.0], 0.5).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_budget_that_is_left_over_is_worth_nothing() -> None:
    alpha, multiplier = solve_batch_lp(torch.tensor([[2.0, 1.0]]), [0.0, 1.0], 1.0)
    assert (alpha.tolist(), float(multiplier)) == ([[1.0, 0.0]], 0.0)


@settings(max_examples=100, deadline=None)
@given(value=st.floats(-1e4, 1e4, width=32), budget=st.floats(0, 2, width=32), exits=st.integers(1, 6))
def test_equal_values_are_had_at_the_least_cost(value: float, budget: float, exits: int) -> None:
    values, costs = torch.full((3, exits), value), torch.linspace(0, 1, exits)
    cheapest = torch.eye(exits)[0].expand(3, -1)
    assert torch.equal(solve_exit_lp(values, costs, budget), cheapest)
    assert torch.equal(solve_batch_lp(values, costs, budget)[0], cheapest)
    assert torch.equal(solve_exit_lp(values, costs, torch.full((3,), budget)), cheapest)


def test_costs_may_stand_in_any_order() -> None:
    for values, costs, budget in problems(11, 40, 4):
        order = torch.randperm(len(costs), generator=torch.Generator().manual_seed(0))
        for solve in (solve_exit_lp, lambda *p: solve_batch_lp(*p)[0]):
            assert objective_of(solve(values[:, order], costs[order], budget), values[:, order]) == pytest.approx(
                objective_of(solve(values, costs, budget), values), rel=1e-9, abs=1e-9
            )


@pytest.mark.parametrize("cost", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("budget", [float, torch.tensor, lambda b: torch.full((1,), b)])
def test_a_budget_of_just_the_cheapest_cost_is_enough_in_every_precision(cost: float, budget: Any) -> None:
    for values in (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.float64)):
        given = budget(cost) if budget is float or values.dtype == torch.float32 else budget(cost).double() + 1e-7
        assert solve_exit_lp(values, [cost, 1.0], given).tolist() == [[1.0, 0.0]]


def test_no_gradient_flows_through_a_solution() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    assert not solve_exit_lp(values, [0.0, 0.5, 1.0], 0.5).requires_grad
    assert not solve_batch_lp(values, [0.0, 0.5, 1.0], 0.5)[0].requires_grad


@pytest.mark.parametrize("solve", [solve_exit_lp, solve_batch_lp])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 2), [0.5, 1.0], 0.4), InfeasibleBudgetError, r"budget of 0\.4\d* is below .*, 0\.5"),
        ((torch.zeros(2, 2), [0.5, 1.0], float("nan")), InfeasibleBudgetError, "budget of nan"),
        ((torch.zeros(2, 2), [0.0, -1.0], 0.4), CostError, r"costs\[1\] is -1"),
        ((torch.zeros(2, 2), [0.0, 0.5, 1.0], 0.4), SpaceError, r"shape \(2, 2\) with 3 costs"),
        ((torch.zeros(2), [0.0, 1.0], 0.4), SpaceError, r"expected \(B, K\)"),
        ((torch.tensor([[0.0, float("nan")]]), [0.0, 1.0], 0.4), NonFiniteError, r"values\[0, 1\] is nan"),
        ((torch.tensor([[0.0, float("inf")]]), [0.0, 1.0], 0.4), NonFiniteError, r"values\[0, 1\] is inf"),
        ((torch.tensor([[float("-inf"), 0.0]]), [0.0, 1.0], 0.4), NonFiniteError, r"values\[0, 0\] is -inf"),
    ],
)
def test_what_has_no_answer_is_refused(solve: Any, arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        solve(*arguments)


def test_budgets_of_another_number_of_states_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"shape \(3,\): expected one number or \(2,\)"):
        solve_exit_lp(torch.zeros(2, 2), [0.0, 1.0], torch.ones(3))
    with pytest.raises(InfeasibleBudgetError, match=r"budget of 0\.0"):
        solve_exit_lp(torch.zeros(2, 2), [0.5, 1.0], torch.tensor([1.0, 0.0]))
    with pytest.raises(InfeasibleBudgetError, match="the solver says infeasible"):
        solve_lp_cvxpy(np.zeros((2, 2)), [0.5, 1.0], 0.1)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor, float])
def test_both_programs_take_a_budget_of_any_number_type(kind: Any) -> None:
    values = torch.tensor([[0.0, 1.0]])
    assert solve_batch_lp(values, [0.0, 1.0], kind(0.25))[0].tolist() == [[0.75, 0.25]]
    assert solve_exit_lp(values, [0.0, 1.0], kind(0.25)).tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize("budget", [[0.1, 0.2], np.array([0.1]), torch.tensor([0.1]), "0.1", None])
def test_one_program_takes_one_budget(budget: Any) -> None:
    with pytest.raises(SpaceError, match="expected one number, the mean over the batch"):
        solve_batch_lp(torch.tensor([[0.0, 1.0]]), [0.0, 1.0], budget)
