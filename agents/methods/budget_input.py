"""The budget at the end of an observation: which wrapper writes it there, around one environment or around many."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorObservationWrapper, VectorWrapper

from budget_wrappers import wrappers
from budget_wrappers.errors import ConfigError, WrapperOrderError
from budget_wrappers.wrappers import vector

LAYERS = {
    False: (gym.Wrapper, gym.ObservationWrapper, wrappers.BudgetAwareObservation),
    True: (VectorWrapper, VectorObservationWrapper, vector.BudgetAwareObservation),
}
"""Wrappers of one environment and of a vector one: any, those that change observations, the one that adds budgets."""

BudgetWrapper = wrappers.BudgetAwareObservation | vector.BudgetAwareObservation


def budget_wrapper(env: Any) -> BudgetWrapper | None:
    """Return the wrapper whose share is the last number of each observation of ``env``, ``None`` where none is."""
    any_layer, changes, adds = LAYERS[isinstance(env, VectorEnv)]
    layer = env
    while isinstance(layer, any_layer) and not isinstance(layer, adds):
        if isinstance(layer, changes) or layer.observation_space is not layer.env.observation_space:
            return None
        layer = layer.env
    return layer if isinstance(layer, adds) and layer.adds_share_last else None


def require_budget(env: Any) -> None:
    """Raise unless the observations of ``env`` end in a budget.

    Raises:
        WrapperOrderError: they do not, or wrappers inside a vector environment, which agents do not see, write it.
    """
    if budget_wrapper(env) is not None:
        return
    if isinstance(env, VectorEnv):
        raise WrapperOrderError(
            f"budget_from_observation=True and no wrapper of the vector environment {env} ends its observations in a "
            "budget: expected budget_wrappers.wrappers.vector.BudgetAwareObservation(envs, 'budget', draw=(0.0, 1.0)) "
            "around it, flattened, without a ComputeLimit, and no wrapper further out that changes observations; one "
            "around each single environment inside cannot be told a budget, put the vector wrapper in its place"
        )
    raise WrapperOrderError(
        f"budget_from_observation=True and the observations of {env} do not end in a budget: expected "
        "BudgetAwareObservation(env, 'budget', draw=(0.0, 1.0)) around it, flattened, without a ComputeLimit, "
        "and no wrapper further out that changes observations; budget_input=True (--budget-input) in a run"
    )


def require_budget_count(env: Any, given: Any) -> None:
    """Raise where ``given`` holds budgets for another number of environments than ``env`` has.

    Raises:
        ConfigError: always then.
    """
    rows = env.num_envs if isinstance(env, VectorEnv) else 1
    if isinstance(given, list) and len(given) != rows:
        raise ConfigError(
            f"the budgets {given} of {len(given)} environments: expected as many here, where there are {rows}; give "
            "one for all, such as agent.set_budget(None), before saving the agent or changing its environment"
        )
