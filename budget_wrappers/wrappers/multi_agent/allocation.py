"""Who gets the dear sub-policies: whole choices of a team from the linear program, never dearer than they may be."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from budget_wrappers.errors import SpaceError
from budget_wrappers.functional.team_lp import solve_team_lp, whole_choices
from budget_wrappers.wrappers.multi_agent.layers import Agent


def allocate(
    values: Mapping[Any, ArrayLike],
    flops: Mapping[Any, NDArray[np.int64]],
    rooms: Mapping[Any, float],
    surplus: float,
) -> dict[Any, int]:
    """Return the choice of each agent that is worth most to the team, at most ``surplus`` above everybody's cheapest.

    The floor of the linear program: the one agent whose share is mixed gets the cheaper of its two.

    Args:
        values: ``(K,)`` of each agent: what each of its sub-policies is worth to it at this observation.
        flops: ``(K,)`` of each agent, ascending.
        rooms: what each agent's choice may cost at most by its own limit.
        surplus: FLOPs that the team may spend beyond the cheapest choices; below 0 counts as 0.

    Raises:
        SpaceError: values of another shape than the sub-policies.
        NonFiniteError: a value is NaN or infinite.
    """
    agents = list(values)
    if not agents:
        return {}
    width = max(len(flops[agent]) for agent in agents)
    value, cost = np.zeros((len(agents), width)), np.zeros((len(agents), width))
    for row, agent in enumerate(agents):
        value[row], cost[row] = _padded(agent, values[agent], flops[agent], rooms[agent], width)
    least, most = cost[:, 0].sum(), cost.max(1).sum()
    budget = most if math.isinf(surplus) else least + max(surplus, 0)
    alpha, _ = solve_team_lp(torch.from_numpy(value), torch.from_numpy(cost), float(budget))
    return dict(zip(agents, whole_choices(alpha), strict=True))


def _padded(
    agent: Agent, values: ArrayLike, flops: NDArray[np.int64], room: float, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values and costs of ``width`` choices: what an agent lacks or may not run is a worse cheapest one."""
    given = np.asarray(values, dtype=np.float64)
    if given.shape != flops.shape:
        raise SpaceError(f"values of {agent!r} have shape {given.shape}; expected {flops.shape}, one a sub-policy.")
    value, cost = np.full(width, -np.inf), np.full(width, flops[0], dtype=np.float64)
    value[: len(given)], cost[: len(given)] = given, flops
    illegal = np.isneginf(value) & (np.arange(width) >= len(given))
    illegal[1 : len(given)] |= flops[1:] > room
    value[illegal], cost[illegal] = given.min() - 1, flops[0]
    return value, cost


__all__ = ["allocate"]
