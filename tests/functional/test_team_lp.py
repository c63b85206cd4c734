"""A team's programs: scipy's and cvxpy's objective, budgets that hold, fairness, whole choices that never overspend."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from budget_wrappers.errors import (
    ConfigError,
    CostError,
    InfeasibleBudgetError,
    NonFiniteError,
    SolverError,
    SpaceError,
)
from budget_wrappers.functional import team_lp
from budget_wrappers.functional.budget_lp import solve_batch_lp
from budget_wrappers.functional.team_lp import solve_team_cvxpy, solve_team_lp, whole_choices

Array = NDArray[np.float64]


def problem(seed: int) -> tuple[Array, Array, float]:
    """Return values (N, K), costs (N, K) and a budget between the cheapest and the dearest sum, ends included."""
    rng = np.random.default_rng(seed)
    agents, choices = int(rng.integers(1, 9)), int(rng.integers(1, 7))
    values = rng.normal(size=(agents, choices)) * 10 ** rng.uniform(-3, 4)
    costs = rng.random((agents, choices)) * 10 ** rng.uniform(0, 6)
    if seed % 3 == 1:  # ties of values and costs
        values, costs = np.round(values / np.abs(values).max(), 1), np.round(costs / costs.max(), 1)
    if seed % 3 == 2:
        costs = np.floor(costs)  # FLOPs
    least, most = math.fsum(costs.min(1)), math.fsum(costs.max(1))
    share = float(rng.choice([rng.random(), 0.0, 1.0], p=[0.8, 0.1, 0.1]))
    return values, costs, least + share * (most - least)


def by_scipy(values: Array, costs: Array, budgets: list[tuple[Array, float]]) -> float:
    """Return scipy's optimum of the sum under several resources."""
    agents, choices = values.shape
    scale, units = np.abs(values).max() or 1.0, [float(c.max()) or 1.0 for c, _ in budgets]
    solved = linprog(
        -values.ravel() / scale,
        A_ub=np.array([c.ravel() / unit for (c, _), unit in zip(budgets, units, strict=True)]),
        b_ub=[b / unit for (_, b), unit in zip(budgets, units, strict=True)],
        A_eq=np.kron(np.eye(agents), np.ones(choices)),
        b_eq=np.ones(agents),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert solved.status == 0, solved.message
    return -float(solved.fun) * scale


def test_the_closed_form_matches_oracle_scipy() -> None:
    for seed in range(600):
        values, costs, budget = problem(seed)
        alpha, _ = solve_team_lp(values, costs, budget)
        scale = np.abs(values).max() * len(values) or 1.0
        assert abs(float((alpha.numpy() * values).sum()) - by_scipy(values, costs, [(costs, budget)])) <= 1e-6 * scale
        assert float((alpha.numpy() * costs).sum()) <= budget * (1 + 1e-12)
        assert alpha.sum(1).numpy() == pytest.approx(np.ones(len(values)))


def test_the_closed_form_matches_oracle_cvxpy() -> None:
    for seed in range(20):
        values, costs, budget = problem(seed)
        scale = np.abs(values).max() * len(values) or 1.0
        ours = float((solve_team_lp(values, costs, budget)[0].numpy() * values).sum())
        theirs = float((solve_team_cvxpy(values, costs, budget) * values).sum())
        assert abs(ours - theirs) <= 1e-6 * scale


def test_the_multiplier_proves_the_optimum() -> None:
    for seed in range(300):
        values, costs, budget = problem(seed)
        alpha, multiplier = solve_team_lp(values, costs, budget)
        # strong duality: max_k (v_k − μ·c_k) summed over agents, plus what the whole budget is worth
        dual = (values - float(multiplier) * costs).max(1).sum() + float(multiplier) * budget
        scale = np.abs(values).max() * len(values) + float(multiplier) * costs.max() * len(values)
        assert multiplier >= 0
        assert dual == pytest.approx(float((alpha.numpy() * values).sum()), abs=1e-9 * scale)


def test_with_common_costs_it_is_the_batch_program() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        values, costs = torch.tensor(rng.normal(size=(6, 4))), torch.tensor(rng.random(4))
        mean = float(costs.min() + rng.random() * (costs.max() - costs.min()))
        batch = float((solve_batch_lp(values, costs, mean)[0] * values).sum())
        team = float((solve_team_lp(values, costs, 6 * mean)[0] * values).sum())
        assert team == pytest.approx(batch, rel=1e-9)


def test_the_team_spends_where_a_flop_buys_most() -> None:
    # upgrades: agent 0 gains 6 for 30 (0.2 a unit), agent 1 gains 3 for 10 (0.3). Cheapest together 10 + 20 = 30, so 60
    # leave 30: first agent 1 (10), then 20 of the 30 of agent 0
    alpha, multiplier = solve_team_lp([[0.0, 6.0], [1.0, 4.0]], [[10.0, 40.0], [20.0, 30.0]], 60)
    assert alpha.numpy() == pytest.approx(np.array([[1 / 3, 2 / 3], [0.0, 1.0]]))
    assert float(multiplier) == pytest.approx(0.2)
    assert whole_choices(alpha) == [0, 1]  # the mixed one gets its cheaper one: 10 + 30 ≤ 60


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whole_choices_never_overspend(data: Any) -> None:
    agents, choices = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    flops = [
        sorted(data.draw(st.lists(st.integers(0, 2**40), min_size=choices, max_size=choices))) for _ in range(agents)
    ]
    values = [data.draw(st.lists(st.floats(-1e3, 1e3), min_size=choices, max_size=choices)) for _ in range(agents)]
    least = sum(row[0] for row in flops)
    budget = least + data.draw(st.integers(0, sum(row[-1] for row in flops) - least))
    chosen = whole_choices(solve_team_lp(values, flops, budget)[0])
    assert sum(row[index] for row, index in zip(flops, chosen, strict=True)) <= budget


def test_each_of_several_resources_holds() -> None:
    for seed in range(15):
        values, costs, budget = problem(seed)
        other = np.random.default_rng(seed + 1000).random(values.shape)
        limit = float(other.min(1).sum() + 0.7 * (other.max(1).sum() - other.min(1).sum()))
        try:
            alpha = solve_team_cvxpy(values, np.stack([costs, other]), [budget, limit])
        except InfeasibleBudgetError:
            continue  # the cheapest in one resource may be dear in the other
        scale = np.abs(values).max() * len(values) or 1.0
        best = by_scipy(values, costs, [(costs, budget), (other, limit)])
        assert abs(float((alpha * values).sum()) - best) <= 1e-6 * scale
        assert float((alpha * other).sum()) <= limit * (1 + 1e-6)


def test_fairness_moves_the_budget_from_the_sum_to_the_worst_off() -> None:
    # Each agent mixes a free choice worth 0 … with one of cost 1 worth 4 (agent 0) or 1 (agent 1), budget 1; shares x
    # and 1 − x. Sum 4x + (1 − x): x = 1. Proportional log 4x + log(1 − x): x = 1/2. Max-min 4x = 1 − x: x = 1/5
    values, costs = [[0.0, 4.0], [0.0, 1.0]], [0.0, 1.0]
    shares = [solve_team_cvxpy(values, costs, 1.0, fairness)[0, 1] for fairness in (0.0, 1.0, math.inf)]
    assert shares == pytest.approx([1.0, 0.5, 0.2], abs=1e-4)
    # f = 2: −1/(4x) − 1/(1 − x): 1/(4x²) = 1/(1 − x)², 1 − x = 2x: x = 1/3
    assert solve_team_cvxpy(values, costs, 1.0, 2.0)[0, 1] == pytest.approx(1 / 3, abs=1e-4)


def test_any_fairness_divides_as_the_first_order_conditions_say() -> None:
    # As above: 4·(4x)^−f = (1 − x)^−f, so 1 − x = 4^(1 − 1/f)·x
    for fairness in (0.2, 0.999, 1.1, 5.0, 20.0, 1e3, 1e5, 1e12):
        share = solve_team_cvxpy([[0.0, 4.0], [0.0, 1.0]], [0.0, 1.0], 1.0, fairness)[0, 1]
        assert share == pytest.approx(1 / (1 + 4 ** (1 - 1 / fairness)), abs=5e-4), fairness


def test_a_large_fairness_leaves_nobody_far_below_the_best_minimum() -> None:
    """A mean of power 1 − f lies between the minimum and n^(1/(f − 1)) times it."""
    rng = np.random.default_rng(0)
    for agents in (2, 5, 8):
        values = rng.random((agents, 3)) * 10 ** rng.uniform(-3, 3, (agents, 1))
        costs, budget = np.array([1e5, 1e6, 5e6]), agents * 2e6
        best = (values * solve_team_cvxpy(values, costs, budget, math.inf)).sum(1).min()
        for fairness in (5.0, 20.0, 100.0, 1000.0):
            alpha = solve_team_cvxpy(values, costs, budget, fairness)
            assert (values * alpha).sum(1).min() >= best * agents ** (-1 / (fairness - 1)) * (1 - 1e-4)
            assert (alpha * costs).sum() <= budget * (1 + 1e-6)


def test_where_one_solver_fails_another_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_lp, "_SOLVERS", ("HIGHS", "SCS"))  # the first solves linear programs only
    assert solve_team_cvxpy([[0.0, 4.0], [0.0, 1.0]], [0.0, 1.0], 1.0, 2.0)[0, 1] == pytest.approx(1 / 3, abs=1e-3)


def test_what_no_solver_solves_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_lp, "_SOLVERS", ("HIGHS",))
    with pytest.raises(SolverError, match=r"budgets=\[1\.0\].*fairness=20.*HIGHS.*Take fairness=inf"):
        solve_team_cvxpy([[0.0, 4.0], [0.0, 1.0]], [0.0, 1.0], 1.0, 20)
    # at a budget of 2 both have the cheap choice, which is worth nothing
    with pytest.raises(InfeasibleBudgetError, match=r"somebody's utility is 0 or below.*Raise a budget"):
        solve_team_cvxpy([[0.0, 4.0], [0.0, 1.0]], [1.0, 2.0], 2.0, 20)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.0, 1.0]] * 2, [3.0, 5.0], 5.0), InfeasibleBudgetError, r"budget of 5\.0 is below 6\.0"),
        (([[0.0, 1.0]], [3.0, 5.0], math.nan), InfeasibleBudgetError, "budget of nan"),
        (([[0.0, 1.0]], [0.0, -1.0], 1.0), CostError, r"costs\[0, 1\] is -1"),
        (
            ([[0.0, 1.0]], [[0.0, 1.0]] * 2, 1.0),
            SpaceError,
            r"\(1, 2\) with costs of shape \(2, 2\)|shape \(1, 2\), costs",
        ),
        (([0.0, 1.0], [0.0, 1.0], 1.0), SpaceError, r"expected \(N, K\)"),
        (([[0.0, math.inf]], [0.0, 1.0], 1.0), NonFiniteError, r"values\[0, 1\] is inf"),
    ],
)
def test_what_has_no_answer_is_refused(arguments: Any, error: type, message: str) -> None:
    for solve in (solve_team_lp, solve_team_cvxpy):
        with pytest.raises(error, match=message):
            solve(*arguments)


def test_the_general_problem_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ConfigError, match="fairness=-1"):
        solve_team_cvxpy([[1.0]], [1.0], 1.0, fairness=-1)
    with pytest.raises(ConfigError, match=r"agent 1 has \[0\.0\]"):
        solve_team_cvxpy([[1.0], [0.0]], [1.0], 2.0, fairness=1)
    with pytest.raises(InfeasibleBudgetError, match="resource 1 is below"):
        solve_team_cvxpy([[1.0]], [[[1.0]], [[2.0]]], [1.0, 1.0])
    # the first choice costs (0, 1), the second (1, 0): either resource alone can be met, both of 0.4 cannot
    with pytest.raises(InfeasibleBudgetError, match="no choice meets all of them"):
        solve_team_cvxpy([[1.0, 1.0]], [[[0.0, 1.0]], [[1.0, 0.0]]], [0.4, 0.4])
