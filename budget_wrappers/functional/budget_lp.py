"""How much of each sub-policy to use under a budget: small linear programs, solved exactly and in batches.

``B`` states, ``K`` sub-policies (exits), ``v`` their values, ``c`` their costs, ``b`` the budget, α what is looked for.
Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks", which gives every state the budget ``b``;
over a batch the same program moves budget from states where little depends on it to those where much does.
"""

import functools
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from budget_wrappers.arguments import an_instance, refuse
from budget_wrappers.errors import InfeasibleBudgetError, NonFiniteError, SpaceError
from budget_wrappers.functional.costs import validate_cost
from budget_wrappers.functional.hull import buy


class _Vertices(NamedTuple):
    """Where an optimum can lie: every sub-policy alone and every pair of different costs, ``P`` in all.

    Alone first, cheapest first: of equal objectives the first one is taken.

    Attributes:
        ends: v·ends gives the value of the cheaper one and what the dearer one adds, ``(K, 2P)``.
        low: α of the cheaper one, ``(P, K)``.
        step: from there to α of the dearer one, ``(P, K)``; 0 where one is used alone.
        low_cost: ``(P,)``.
        high_cost: ``(P,)``; infinite where one is used alone, which is legal at any budget from its cost on.
    """

    ends: Tensor
    low: Tensor
    step: Tensor
    low_cost: Tensor
    high_cost: Tensor


@functools.lru_cache(maxsize=64)
def _vertices(costs: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> _Vertices:
    ascending = sorted(range(len(costs)), key=costs.__getitem__)
    pairs = [(i, i) for i in ascending]
    pairs += [(i, j) for place, i in enumerate(ascending) for j in ascending[place + 1 :] if costs[i] < costs[j]]
    alone = torch.eye(len(costs), dtype=dtype, device=device)
    low, high = (alone[list(side)] for side in zip(*pairs, strict=True))
    cost = functools.partial(torch.tensor, dtype=dtype, device=device)
    high_costs = cost([costs[j] if i != j else math.inf for i, j in pairs])
    ends = torch.cat([low, high - low]).t().contiguous()
    return _Vertices(ends, low, high - low, cost([costs[i] for i, _ in pairs]), high_costs)


@functools.lru_cache(maxsize=64)
def _affordable(
    costs: tuple[float, ...], budget: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``ends``, the share of the dearer one and α of the vertices that one budget allows."""
    every = _vertices(costs, dtype, device)
    kept = (every.low_cost <= budget) & (every.high_cost > budget)
    low_cost, high_cost = every.low_cost[kept], every.high_cost[kept]
    share = (budget - low_cost) / (high_cost - low_cost)
    ends = every.ends[:, torch.cat([kept, kept])].contiguous()
    return ends, share, every.low[kept] + share[:, None] * every.step[kept]


@torch.no_grad()
def solve_exit_lp(values: Tensor, costs: Tensor | Sequence[float], budget: float | Tensor) -> Tensor:
    """Return ``argmax_α v·α`` subject to ``c·α ≤ b, α ≥ 0, 1·α = 1``, for every state by itself.

    An optimal vertex has one or two nonzeros: every affordable sub-policy alone and every pair ``c_i ≤ b < c_j`` mixed
    so that ``c·α = b`` are compared. Of equal objectives the cheapest single one is taken.

    Args:
        values: v, shape ``(B, K)``; float64 is solved in float64, everything else in float32.
        costs: c, shape ``(K,)``, in any order and unit. On an accelerator pass numbers: a tensor has to be read back.
        budget: b, one number or shape ``(B,)``, in the unit of ``costs``.

    Returns:
        α, shape ``(B, K)``, on the device of ``values``.

    Raises:
        InfeasibleBudgetError: a budget below the cheapest cost, or NaN.
        CostError: a cost is negative, NaN or infinite.
        SpaceError: shapes that do not fit.
        NonFiniteError: a value is NaN or infinite.
    """
    values, listed = _checked(values, costs)
    limit = _checked_budget(budget, listed, values)
    if isinstance(limit, float):
        ends, share, alpha = _affordable(listed, limit, values.dtype, values.device)
        below, more = (values @ ends).chunk(2, 1)
        best, vertex = torch.addcmul(below, share, more).max(1)
        require_finite_values(values, best)
        return alpha.index_select(0, vertex)
    ends, low, step, low_cost, high_cost = _vertices(listed, values.dtype, values.device)
    share = (limit - low_cost) / (high_cost - low_cost)  # 0 where one is used alone
    below, more = (values @ ends).chunk(2, 1)
    refused = (low_cost > limit) | (high_cost <= limit)
    best, vertex = torch.addcmul(below, share, more).masked_fill_(refused, -math.inf).max(1, keepdim=True)
    require_finite_values(values, best)
    return low[vertex[:, 0]] + share.gather(1, vertex) * step[vertex[:, 0]]


@torch.no_grad()
def solve_batch_lp(values: Tensor, costs: Tensor | Sequence[float], budget: float) -> tuple[Tensor, Tensor]:
    """Return ``argmax_α Σ_s v(s)·α(s)`` subject to ``mean_s c·α(s) ≤ b``, and the multiplier μ of the budget.

    One μ solves it: each state takes ``argmax_i v_i − μ·c_i``, and one state at most mixes two sub-policies. Here all
    upgrades that any state could make (its upper concave hull over cost) are bought in the order of value per cost,
    until the budget is spent: the exact solution of the relaxed multiple-choice knapsack (Sinha and Zoltners 1979).

    Args:
        values: v, shape ``(B, K)``; float64 is solved in float64, everything else in float32.
        costs: c, shape ``(K,)``, in any order and unit.
        budget: b, the mean cost a state, in the unit of ``costs``.

    Returns:
        α, shape ``(B, K)``, and μ ≥ 0, a scalar: value that one more unit of cost would buy; 0 where budget is left.

    Raises:
        InfeasibleBudgetError, CostError, SpaceError, NonFiniteError: see ``solve_exit_lp``.
    """
    values, listed = _checked(values, costs)
    one = isinstance(budget, int | float | np.number) or (isinstance(budget, Tensor | np.ndarray) and not budget.ndim)
    if not one:
        raise SpaceError(f"budget={budget!r}: expected one number, the mean over the batch; solve_exit_lp takes (B,)")
    limit = _checked_budget(one_budget(budget), listed, values)
    limit = math.inf if limit >= max(listed) else limit  # or sums of rounded costs might leave something to want
    require_finite_values(values, values)
    left = len(values) * (limit - min(listed))
    return buy(values, torch.tensor(listed, dtype=values.dtype, device=values.device), left)


def solve_lp_cvxpy(values: ArrayLike, costs: ArrayLike, budget: float, per_state: bool = False) -> NDArray[np.float64]:
    """Return α of the same programs from a general solver, in float64: the oracle, at a thousand times the time.

    Args:
        values: shape ``(B, K)``.
        costs: shape ``(K,)``, or ``(B, K)`` where states differ.
        budget: b, of the mean over the batch, or of every state.
        per_state: which of them.

    Raises:
        InfeasibleBudgetError: the solver finds no α.
    """
    import cvxpy  # takes longer to import than all of this package

    v = np.asarray(values, dtype=np.float64)
    c = np.broadcast_to(np.asarray(costs, dtype=np.float64), v.shape)
    alpha = cvxpy.Variable(v.shape, nonneg=True)
    spent = cvxpy.sum(cvxpy.multiply(c, alpha), axis=1)
    limit = spent <= budget if per_state else cvxpy.sum(spent) <= budget * len(v)
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(v, alpha))), [cvxpy.sum(alpha, axis=1) == 1, limit])
    problem.solve()
    if alpha.value is None:
        raise InfeasibleBudgetError(
            f"budget={budget!r}: the solver says {problem.status}; expected at least the mean of the cheapest costs, "
            f"{c.min(1).mean():g}. Raise the budget"
        )
    return alpha.value


def _checked(values: Tensor, costs: Tensor | Sequence[float]) -> tuple[Tensor, tuple[float, ...]]:
    """Return values and costs in the precision that is solved in, so that a budget equal to a cost stays equal."""
    an_instance("values", values, Tensor, "a tensor (B, K)")
    values = values if values.dtype == torch.float64 else values.float()
    numbers = costs.tolist() if isinstance(costs, Tensor) else costs
    if not isinstance(numbers, list | tuple | np.ndarray):
        refuse("costs", costs, "K numbers")
    listed = _rounded(tuple(numbers), values.dtype)
    if values.dim() != 2 or values.shape[1] != len(listed) or not listed:
        raise SpaceError(
            f"values of shape {tuple(values.shape)} with {len(listed)} costs: expected (B, K) with K ≥ 1 costs; "
            "states come first, one column a sub-policy"
        )
    return values, listed


@functools.lru_cache(maxsize=64)
def _rounded(costs: tuple[float, ...], dtype: torch.dtype) -> tuple[float, ...]:
    for index, cost in enumerate(costs):
        validate_cost(cost, f"costs[{index}]")
    return tuple(torch.tensor(costs, dtype=dtype).tolist())


def _checked_budget(budget: float | Tensor, costs: tuple[float, ...], values: Tensor) -> float | Tensor:
    """Return the budget, at most the dearest cost, to compare with costs ``(P,)``."""
    if isinstance(budget, Tensor) and budget.dim():
        if budget.shape != values.shape[:1]:
            raise SpaceError(f"budget of shape {tuple(budget.shape)}: expected one number or ({len(values)},)")
        each = budget.to(values)[:, None]
        _require_feasible(float(each.min()) if len(each) else math.inf, costs)
        return each.clamp(max=max(costs))
    number = one_budget(budget)
    number = number if values.dtype == torch.float64 else float(np.float32(number))
    _require_feasible(number, costs)
    return min(number, max(costs))


def one_budget(budget: Any) -> float:
    """Return a budget as a float; NaN is below every cost, and infinity above.

    Raises:
        SpaceError: it is not one number that float64 holds.
    """
    given = budget.item() if isinstance(budget, Tensor | np.ndarray) and not budget.ndim else budget
    if isinstance(given, Real) and not isinstance(given, bool | np.bool_):
        try:
            return float(given)
        except OverflowError:
            given = "an int beyond float64"
    raise SpaceError(f"budget={given!r}: expected one number, in the unit of the costs")


def _require_feasible(budget: float, costs: tuple[float, ...]) -> None:
    if not budget >= min(costs):
        raise InfeasibleBudgetError(
            f"A budget of {budget!r} is below the cheapest cost, {min(costs)!r}, so nothing at all could run. "
            "Raise it, or add a cheaper sub-policy."
        )


def require_finite_values(values: Tensor, judged: Tensor) -> None:
    """Raise if ``values`` ``(B, K)`` hold NaN or infinity, which ``judged``, made of them, then does, too.

    Raises:
        NonFiniteError: they do, or differences of them overflow.
    """
    # One sum instead of a test of each: only finite numbers have a finite one, and few of them an infinite one.
    if not math.isfinite(float(judged.sum())) and not bool(torch.isfinite(judged).all()):
        wrong = (~torch.isfinite(values)).nonzero().tolist()
        which = f"values[{wrong[0][0]}, {wrong[0][1]}] is {float(values[*wrong[0]])}" if wrong else "values overflow"
        raise NonFiniteError(f"{which}: expected finite numbers whose differences are finite; look at the critic")


__all__ = ["one_budget", "solve_batch_lp", "solve_exit_lp", "solve_lp_cvxpy"]
