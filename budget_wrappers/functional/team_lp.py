"""How a team shares a compute budget: linear and concave programs over who uses which sub-policy.

``N`` agents, ``K`` sub-policies each, ``R`` resources; ``v`` values ``(N, K)``, ``c`` costs, ``b`` what the team may
spend together, α what is looked for: each agent's distribution over its sub-policies, ``(N, K)``. Agents' utilities are
``u_n = v_n·α_n``.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from budget_wrappers.errors import ConfigError, InfeasibleBudgetError, NonFiniteError, SolverError, SpaceError
from budget_wrappers.functional.budget_lp import one_budget
from budget_wrappers.functional.costs import validate_cost
from budget_wrappers.functional.hull import buy

_SOLVERS = (None, "SCS")  # cvxpy's choice, then one that works otherwise


@torch.no_grad()
def solve_team_lp(values: ArrayLike | Tensor, costs: ArrayLike | Tensor, budget: float) -> tuple[Tensor, Tensor]:
    """Return ``argmax_α Σ_n v_n·α_n`` subject to ``Σ_n c_n·α_n ≤ b``, and the multiplier μ of the budget, exactly.

    The relaxed multiple-choice knapsack, see ``hull``: one agent at most mixes two sub-policies, and every agent takes
    ``argmax_k v_k − μ·c_k``. Always in float64, which holds whole FLOPs below 2⁵³ as they are.

    Args:
        values: v, ``(N, K)``.
        costs: c, ``(K,)``, or ``(N, K)`` where agents differ, in any order and unit.
        budget: b, the sum over the team, in the unit of ``costs``.

    Returns:
        α, ``(N, K)`` float64, on the device of ``values``; and μ ≥ 0, a scalar: value that one more unit would buy.

    Raises:
        InfeasibleBudgetError: a budget below the sum of the cheapest costs, or NaN.
        CostError: a cost is negative, NaN or infinite.
        SpaceError: shapes that do not fit.
        NonFiniteError: a value is NaN or infinite.
    """
    v = values.double() if isinstance(values, Tensor) else torch.from_numpy(as_numbers("values", values))
    c = costs.to(v) if isinstance(costs, Tensor) else torch.from_numpy(as_numbers("costs", costs)).to(v)
    budget = one_budget(budget)
    if v.dim() != 2 or not v.shape[1] or c.shape not in (v.shape, v.shape[1:]):
        raise SpaceError(
            f"values of shape {tuple(v.shape)} with costs of shape {tuple(c.shape)}: expected (N, K) with (K,) or "
            "(N, K), agents first, one column a sub-policy"
        )
    listed = c.expand_as(v).tolist()
    _validate(v.tolist(), listed)
    least, most = math.fsum(map(min, listed)), math.fsum(map(max, listed))
    require_team_feasible(float(budget), least)
    # At the dearest sum nothing may be left to want, whatever sums of rounded costs say.
    return buy(v, c, math.inf if budget >= most else float(budget) - least)


def require_team_feasible(budget: float, least: float, resource: str = "") -> None:
    """Check that everybody's cheapest choice can be paid.

    Args:
        budget: of the team.
        least: what the cheapest choices cost together.
        resource: which of several, for the message.

    Raises:
        InfeasibleBudgetError: they cannot, or the budget is NaN.
    """
    if not budget >= least:
        raise InfeasibleBudgetError(
            f"A team's budget of {budget!r}{resource} is below {least!r}, what the cheapest sub-policies of all agents "
            "cost together, so somebody could not act at all. Raise it, or add a cheaper sub-policy."
        )


def whole_choices(alpha: Tensor) -> list[int]:
    """Return one sub-policy an agent, never dearer in sum than α: a mixed agent gets the cheaper of its two.

    Args:
        alpha: ``(N, K)`` with the sub-policies in ascending order of cost, from ``solve_team_lp``.
    """
    return [int(index) for index in (alpha > 0).to(torch.uint8).argmax(1)]


def solve_team_cvxpy(
    values: ArrayLike, costs: ArrayLike, budgets: ArrayLike, fairness: float = 0.0
) -> NDArray[np.float64]:
    """Return α of the general problem from a general solver: several resources, and fairness among agents.

    ``argmax_α Σ_n U(v_n·α_n)`` subject to ``Σ_n c_rn·α_n ≤ b_r`` for each resource ``r``, with the α-fair utility
    ``U(u) = u^(1−f) / (1−f)`` of Mo and Walrand (2000): ``f = 0`` is the sum, ``f = 1`` proportional fairness
    (Σ log u), ``f → ∞`` the best minimum over agents.

    Args:
        values: v, ``(N, K)``. For ``0 < f < ∞`` each agent needs a value above 0, as roots and logarithms of utilities
            are taken: measure them from what doing nothing is worth.
        costs: c, ``(K,)`` or ``(N, K)`` for one resource, ``(R, N, K)`` for several.
        budgets: b, one number, or ``(R,)``.
        fairness: f ≥ 0; within 10⁻³ of 1 it is taken as 1, and from 10⁶ on as infinite: solvers resolve no difference.

    Returns:
        α, ``(N, K)`` float64; of several optima of the minimum any one.

    Raises:
        ConfigError: ``fairness`` is negative or NaN, or an agent has no value above 0 where that is needed.
        InfeasibleBudgetError: a resource below what it takes at least, no α that meets all of them, or none of those
            that do gives each agent a utility above 0 where that is needed.
        SolverError: no solver has found the α there is.
        CostError, SpaceError, NonFiniteError: see ``solve_team_lp``.
    """
    import cvxpy  # takes longer to import than all of this package

    v, c, b = _resources(values, costs, budgets)
    if not fairness >= 0:
        raise ConfigError(f"fairness={fairness!r}; expected a number >= 0: 0 for the sum, 1 proportional, inf max-min.")
    if 0 < fairness < math.inf and not (v.max(1) > 0).all():
        raise ConfigError(
            f"fairness={fairness!r} needs a value above 0 of each agent and agent {int(v.max(1).argmin())} has "
            f"{v[v.max(1).argmin()].tolist()}; measure values from what doing nothing is worth."
        )
    alpha = cvxpy.Variable(v.shape, nonneg=True)
    spent = [cvxpy.sum(cvxpy.multiply(c[r] / unit, alpha)) <= b[r] / unit for r, unit in enumerate(_units(c))]
    limits = [cvxpy.sum(alpha, axis=1) == 1, *spent]
    said = _maximise(cvxpy, _welfare(cvxpy, v, alpha, fairness), limits)
    if alpha.value is None:
        least = c.min(2).sum(1).tolist()
        what = f"budgets={b.tolist()}, of which {least} is needed, fairness={fairness!r}: the solvers say {said}"
        _explain(cvxpy, v, alpha, limits, fairness, what)
    return alpha.value


def _maximise(cvxpy: Any, goal: Any, limits: Sequence[Any]) -> str:
    """Solve, by another solver where the first fails, and return what they said; none leaves no value."""
    said: list[str] = []
    for solver in _SOLVERS:
        problem = cvxpy.Problem(cvxpy.Maximize(goal), list(limits))
        try:
            with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):  # log u of u ≤ 0
                warnings.simplefilter("ignore", UserWarning)  # what it warns of is in the status
                problem.solve(solver=solver)
        except cvxpy.SolverError as error:
            said.append(str(error).partition(". ")[0])
            continue
        said.append(problem.status)
        if problem.status == cvxpy.OPTIMAL:
            break
        for variable in problem.variables():
            variable.value = None
    return ", ".join(said)


def _explain(
    cvxpy: Any, values: NDArray[np.float64], alpha: Any, limits: Sequence[Any], fairness: float, what: str
) -> NoReturn:
    """Raise what is wrong with a problem that was not solved: a linear one over the same choices tells."""
    shares = values / np.maximum(np.abs(values).max(1, keepdims=True), np.finfo(float).tiny)
    _maximise(cvxpy, cvxpy.min(cvxpy.sum(cvxpy.multiply(shares, alpha), axis=1)), limits)
    if alpha.value is None:
        raise InfeasibleBudgetError(
            f"{what}; each budget is enough for the cheapest choices in its own resource, and no choice meets all of "
            "them. Raise one."
        )
    if 0 < fairness < math.inf and (shares * alpha.value).sum(1).min() < 1e-6:
        raise InfeasibleBudgetError(
            f"{what}; whatever is chosen, somebody's utility is 0 or below, and this fairness takes its logarithm or a "
            "root. Raise a budget, or measure values from what doing nothing is worth."
        )
    raise SolverError(
        f"{what}; expected an optimum, as there is one. Take fairness=inf, a linear program, or another fairness, or "
        "values that differ by fewer orders of magnitude."
    )


def _welfare(cvxpy: Any, values: NDArray[np.float64], alpha: Any, fairness: float) -> Any:
    """Return what to maximise. Solvers' tolerances are absolute, so numbers are scaled; no optimum changes."""
    if fairness == 0 or fairness >= 1e6:
        utility = cvxpy.sum(cvxpy.multiply(values / (float(np.abs(values).max()) or 1.0), alpha), axis=1)
        return cvxpy.sum(utility) if fairness == 0 else cvxpy.min(utility)
    units = values.max(1)  # of each agent, above 0
    utility = cvxpy.sum(cvxpy.multiply(values / units[:, None], alpha), axis=1)
    if abs(fairness - 1) < 1e-3:
        return cvxpy.sum(cvxpy.log(utility))
    if fairness < 1:
        weights = (units / units.max()) ** (1 - fairness)
        return weights @ cvxpy.power(utility, 1 - fairness, approx=False)
    # (Σ u^(1−f))^(1/(1−f)), monotone in the sum, by logarithms: powers of 1 − f overflow the solvers
    logarithms = cvxpy.log(utility) + np.log(units / units.max())
    return -cvxpy.log_sum_exp((1 - fairness) * logarithms) / (fairness - 1)


def _units(costs: NDArray[np.float64]) -> list[float]:
    return [float(resource.max()) or 1.0 for resource in costs]


def _resources(
    values: ArrayLike, costs: ArrayLike, budgets: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return values ``(N, K)``, costs ``(R, N, K)`` and budgets ``(R,)``, checked."""
    v, c = as_numbers("values", values), as_numbers("costs", costs)
    b = np.atleast_1d(as_numbers("budgets", budgets))
    if v.ndim != 2 or not v.size or c.shape not in (v.shape, v.shape[1:], (len(b), *v.shape)) or b.ndim != 1:
        raise SpaceError(
            f"values of shape {v.shape}, costs of shape {c.shape}, budgets of shape {b.shape}: expected (N, K), then "
            "(K,), (N, K) or (R, N, K), then one number or (R,)"
        )
    c = np.broadcast_to(c, (len(b), *v.shape))
    for r, limit in enumerate(b):
        _validate(v.tolist(), c[r].tolist())
        require_team_feasible(float(limit), math.fsum(c[r].min(1)), f" of resource {r}" if len(b) > 1 else "")
    return v, c, b


def as_numbers(name: str, given: Any) -> NDArray[np.float64]:
    """Return ``given`` as float64.

    Raises:
        SpaceError: it is no array of numbers.
    """
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpaceError(f"{name}={given!r} ({error}): expected an array of numbers") from error


def _validate(values: list[list[float]], costs: list[list[float]]) -> None:
    for n, row in enumerate(costs):
        for k, cost in enumerate(row):
            validate_cost(cost, f"costs[{n}, {k}]")
    for n, row in enumerate(values):
        for k, value in enumerate(row):
            if not math.isfinite(value):
                raise NonFiniteError(f"values[{n}, {k}] is {value}: expected finite numbers; look at the critic")


__all__ = ["require_team_feasible", "solve_team_cvxpy", "solve_team_lp", "whole_choices"]
