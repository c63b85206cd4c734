"""Budgets in the observations of vector environments: given all or none, and only what can be read is taken."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.vector import BudgetAwareObservation, ComputeLimit, RecordComputeStatistics
from tests.gymnasium_versions import needs_masks


def shown() -> BudgetAwareObservation:
    return BudgetAwareObservation(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"), "budget")


@pytest.mark.parametrize("budgets", [[0.1, float("nan")], [0.1, 1.5], [0.1, "0.2"], np.array([0.1, -1.0])])
def test_budgets_of_which_one_is_refused_leave_every_row_as_it_was(budgets: Any) -> None:
    envs = shown()
    envs.set_budget([0.3, 0.4])
    for give in (envs.set_budget, lambda given: envs.reset(options={"budget": given})):
        with pytest.raises(ConfigError, match="expected a share in"):
            give(budgets)
        assert envs.given_budget == [0.3, 0.4]
        assert envs.reset()[0][:, -1].tolist() == [np.float32(0.3), np.float32(0.4)]


def test_a_mask_s_other_rows_are_not_looked_at() -> None:
    envs = shown()
    envs.set_budget([0.3, 9.0], mask=np.array([True, False]))
    assert envs.given_budget == [0.3, None]


@pytest.mark.parametrize("options", [5, "budget", [1], ("budget",), 0.5])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda envs: BudgetAwareObservation(envs, "budget"),
        pytest.param(lambda envs: ComputeLimit(envs, 10, "truncate", meter=ComputeMeter()), marks=needs_masks),
        lambda envs: RecordComputeStatistics(envs, ComputeMeter()),
    ],
)
def test_options_that_are_no_dictionary_are_refused_with_the_remedy(options: Any, wrap: Any) -> None:
    envs = wrap(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    with pytest.raises(ConfigError, match=r"reset\(options=.*\); expected a dictionary or None"):
        envs.reset(options=options)
