"""The budget programs beside scipy's and cvxpy's solvers: the same optima on random problems, and how long they take.

    python -m benchmarks.budget_lp

Errors are relative to the largest value of the problem. Times are medians of calls in turns, of 256 states and 3 exits,
one thread; cvxpy gets the same 256 states as one problem, built anew at each call, and one by one from a problem of one
state that was built once.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_matrix
from torch import Tensor

from benchmarks.card import RESULTS, store
from budget_wrappers.functional.budget_lp import solve_batch_lp, solve_exit_lp, solve_lp_cvxpy

TOGETHER = 500
"""Problems that one call of scipy's solver gets, as the blocks of one sparse program."""
SAMPLE = 100
"""Problems that cvxpy gets."""
BUDGET_SHARES = [0.6, 0.1, 0.1, 0.1, 0.1]


class Problem(NamedTuple):
    """One program: values ``(B, K)`` and costs ``(K,)`` in float64 that float32 can state, and a budget."""

    values: Tensor
    costs: Tensor
    budget: float


def problems(seed: int, count: int, states: int) -> list[Problem]:
    """Return random problems with values of 1e-3 to 1e4, 2 to 12 exits, ties, equal costs and budgets at the ends."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        exits = int(rng.integers(2, 13))
        values = rng.normal(size=(states, exits)) * 10 ** rng.uniform(-3, 4)
        costs = np.sort(rng.random(exits))
        costs = (costs - costs[0]) / (costs[-1] - costs[0])
        if number % 4 == 1:  # ties of values
            values = np.round(values / np.abs(values).max(), 1) * np.abs(values).max()
        if number % 4 == 2:  # equal costs
            costs = np.round(costs, 1)
        budgets = [rng.random(), 0.0, 1.0, float(rng.choice(costs)), 1.5]
        budget = float(np.float32(rng.choice(budgets, p=BUDGET_SHARES)))
        made.append(Problem(torch.tensor(values).float().double(), torch.tensor(costs).float().double(), budget))
    return made


def optima(made: list[Problem], per_state: bool) -> list[float]:
    """Return scipy's best objective of each problem."""
    return [
        best for start in range(0, len(made), TOGETHER) for best in _solve(made[start : start + TOGETHER], per_state)
    ]


def _solve(made: list[Problem], per_state: bool) -> list[float]:
    objective, equal, limits, bounds = [], [], [], []
    for values, costs, budget in made:
        states, exits = values.shape
        spent = np.kron(np.eye(states), costs.numpy())
        objective.append(-values.numpy().ravel())
        equal.append(csr_matrix(np.kron(np.eye(states), np.ones(exits))))
        limits.append(csr_matrix(spent if per_state else spent.sum(0, keepdims=True)))
        bounds += [budget] * states if per_state else [budget * states]
    solved = linprog(
        # Scaled to 1 a block, which changes no optimum: the solver's own tolerances are absolute.
        np.concatenate([block / np.abs(block).max() for block in objective]),
        A_ub=block_diag(limits, format="csr"),
        b_ub=np.array(bounds),
        A_eq=block_diag(equal, format="csr"),
        b_eq=np.ones(sum(len(values) for values, *_ in made)),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solved.status:
        raise RuntimeError(f"scipy.optimize.linprog: {solved.message}")
    ends = np.cumsum([len(block) for block in objective])[:-1]
    return [-float(block @ x) for block, x in zip(objective, np.split(np.asarray(solved.x), ends), strict=True)]


def errors(made: list[Problem], best: list[float], dtype: torch.dtype, per_state: bool) -> dict[str, float]:
    """Return the worst error of the objective, overdraft of the budget and distance of a row's sum from 1."""
    worst = {"objective": 0.0, "overdraft": 0.0, "sum": 0.0}
    for (values, costs, budget), optimum in zip(made, best, strict=True):
        own = values.to(dtype), costs.to(dtype), budget
        alpha = (solve_exit_lp(*own) if per_state else solve_batch_lp(*own)[0]).double()
        spent = alpha @ costs if per_state else (alpha @ costs).mean(0, keepdim=True)
        scale = float(values.abs().max()) * len(values)
        found = {
            "objective": abs(float((alpha * values).sum()) - optimum) / scale,
            "overdraft": float(spent.max()) - budget,
            "sum": float((alpha.sum(1) - 1).abs().max()),
        }
        worst = {name: max(value, found[name]) for name, value in worst.items()}
    return worst


def against_cvxpy(made: list[Problem], per_state: bool) -> float:
    """Return the largest difference of the objective from cvxpy's, relative to the largest value."""
    worst = 0.0
    for values, costs, budget in made:
        scale = float(values.abs().max())
        theirs = float((solve_lp_cvxpy(values / scale, costs, budget, per_state) * values.numpy()).sum())
        alpha = solve_exit_lp(values, costs, budget) if per_state else solve_batch_lp(values, costs, budget)[0]
        worst = max(worst, abs(float((alpha * values).sum()) - theirs) / (scale * len(values)))
    return worst


def one_by_one(values: Tensor, costs: list[float], budget: float) -> Callable[[], None]:
    """Return a function that has cvxpy solve every state by itself, in a problem with parameters built beforehand."""
    import cvxpy

    value, alpha = cvxpy.Parameter(len(costs)), cvxpy.Variable(len(costs), nonneg=True)
    rules = [cvxpy.sum(alpha) == 1, np.array(costs) @ alpha <= budget]
    problem = cvxpy.Problem(cvxpy.Maximize(value @ alpha), rules)

    def solve() -> None:
        for row in values.double().numpy():
            value.value = row
            problem.solve()

    return solve


def seconds(rounds: int) -> dict[str, float]:
    """Return the median time of one call of each solver, 256 states and 3 exits."""
    values, costs = torch.randn(256, 3, generator=torch.Generator().manual_seed(0)), [0.0, 0.4, 1.0]
    budgets = torch.rand(256, generator=torch.Generator().manual_seed(1))
    solvers: dict[str, tuple[int, Callable[[], object]]] = {
        "each state, one budget": (100, lambda: solve_exit_lp(values, costs, 0.5)),
        "each state, a budget each": (100, lambda: solve_exit_lp(values, costs, budgets)),
        "batch": (100, lambda: solve_batch_lp(values, costs, 0.5)),
        "cvxpy, each state": (1, lambda: solve_lp_cvxpy(values, costs, 0.5, per_state=True)),
        "cvxpy, each state by itself": (1, one_by_one(values, costs, 0.5)),
        "cvxpy, batch": (1, lambda: solve_lp_cvxpy(values, costs, 0.5)),
    }
    taken: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(rounds):
        for name, (calls, solve) in solvers.items():
            for _ in range(calls):
                start = time.perf_counter()
                solve()
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in taken.items()}


def main() -> None:
    """Solve, compare, time and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12_000, help="problems of each kind")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, object] = {"problems_of_each_kind": arguments.count}
    for kind, per_state, sizes in (("each state", True, (1,)), ("batch", False, (1, 2, 5, 12))):
        made = [p for states in sizes for p in problems(states, arguments.count // len(sizes), states)]
        best = optima(made, per_state)
        record[kind] = {
            "states": sizes,
            "float64": errors(made, best, torch.float64, per_state),
            "float32": errors(made, best, torch.float32, per_state),
            "cvxpy_sample": SAMPLE,
            "cvxpy": against_cvxpy(made[:: max(len(made) // SAMPLE, 1)], per_state),
        }
    record["seconds"] = seconds(arguments.rounds)
    store(RESULTS / "budget_lp" / "oracle.json", record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
