"""Masks of the wrappers that choose are of choices: those that the present allowance lets run."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers import ComputeLimit, EarlyExitAction, RecordComputeStatistics, SubPolicyAction, vector
from tests.gymnasium_versions import AutoresetMode, sync
from tests.wrappers.environments import SpacesEnv, constant_action, exits

ACTION = constant_action("box")
COSTS = (10, 20, 40)


class Masked(gym.Wrapper):
    """An environment that says which of its two primitive actions are legal."""

    def action_masks(self) -> np.ndarray:
        return np.array([True, False])


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, hold: Any = 1, selector: int = 0, steps: int = 12) -> SubPolicyAction:
    """Return sub-policies of 10, 20 and 40 FLOPs."""
    policies = [FunctionPolicy(lambda obs: ACTION, cost, f"costs {cost}") for cost in COSTS]
    env = TimeLimit(Masked(SpacesEnv()), steps)
    return SubPolicyAction(env, policies, hold=hold, meter=meter, selector_flops=selector)


def masks(env: gym.Env) -> list[bool]:
    return env.get_wrapper_attr("action_masks")().tolist()


@pytest.mark.parametrize(("hold", "choices"), [(1, 3), (5, 3), ((1, 4), 6)])
def test_without_a_limit_all_choices_may_run(meter: ComputeMeter, hold: Any, choices: int) -> None:
    env = RecordComputeStatistics(options(meter, hold), meter)
    env.reset(seed=0)
    assert masks(env) == [True] * choices
    env.step(2)
    assert masks(env) == [True] * choices


def test_exits_are_masked_as_exits(meter: ComputeMeter) -> None:
    env = EarlyExitAction(Masked(SpacesEnv()), exits(), meter=meter)
    env.reset(seed=0)
    assert masks(env) == [True, True]


def test_a_hard_limit_masks_what_it_would_not_run(meter: ComputeMeter) -> None:
    # 12 steps; 150 − 11 · 10 kept back are 40 for the first choice: 40 fits. Then 110 − 100 = 10: the cheapest only
    env = RecordComputeStatistics(ComputeLimit(options(meter), 150, meter=meter), meter)
    env.reset(seed=0)
    assert masks(env) == [True, True, True]
    env.step(2)
    assert masks(env) == [True, False, False]


def test_the_call_of_the_selector_to_come_is_counted_in(meter: ComputeMeter) -> None:
    # truncate keeps nothing back: 60 less the selector's 15 pay for 40, 45 less 15 for 20
    env = ComputeLimit(options(meter, selector=15), 60, "truncate", meter=meter)
    env.reset(seed=0)
    assert masks(env) == [True, True, True]
    env.reset(options={"budget": 45})
    assert masks(env) == [True, True, False]
    meter.add(15)  # also when it has run already
    assert masks(env) == [True, True, False]


def test_durations_are_masked_too(meter: ComputeMeter) -> None:
    # of 1 and 4 steps, with 100 to spend and nothing kept back: 4 · 10, 4 · 20 fit and 4 · 40 does not
    env = ComputeLimit(options(meter, (1, 4)), 100, "truncate", meter=meter)
    env.reset(seed=0)
    assert masks(env) == [True, True, True, True, True, False]


@pytest.mark.parametrize(
    ("mode", "selector"), [("cheapest", 0), ("cheapest", 15), ("hold", 15), ("truncate", 15), ("terminate", 0)]
)
def test_a_choice_runs_as_it_is_exactly_where_the_mask_says_so(meter: ComputeMeter, mode: Any, selector: int) -> None:
    """Each choice is tried on a copy of the environment, at each decision of random episodes."""
    rng, seen = np.random.default_rng(0), set()
    durations = (2, 3)
    env = ComputeLimit(options(meter, durations, selector), 250, mode, meter=meter)
    for _ in range(2):
        env.reset(seed=0)
        over = False
        while not over:
            mask = masks(env)
            for action, runs in enumerate(mask):
                trial = copy.deepcopy(env)
                meter.add(selector)
                info, left = trial.step(action)[4], 12 - env.episode.steps
                asked = action % 3, min(durations[action // 3], left)
                ran = int(info["option"]), int(info["duration"] - (trial.episode.held_steps - env.episode.held_steps))
                assert (ran == asked) is runs
                seen.add(runs)
            meter.add(selector)
            over = any(env.step(int(rng.integers(6)))[2:4])
    assert seen == {True, False}


def test_the_mask_of_the_environment_stays_where_a_policy_chooses_primitive_actions(meter: ComputeMeter) -> None:
    env = ComputeLimit(Masked(SpacesEnv()), 100, "truncate", meter=meter)
    assert masks(env) == [True, False]


def test_a_batch_says_for_each_environment_which_choices_may_run(meter: ComputeMeter) -> None:
    policies = [FunctionPolicy(lambda obs: ACTION, cost, f"costs {cost}") for cost in COSTS]
    for make in (
        lambda envs: vector.SubPolicyAction(envs, policies, meter=meter),
        lambda envs: vector.EarlyExitAction(envs, exits(hidden=(4, 4)), meter=meter),
    ):
        envs = make(sync([lambda: Masked(SpacesEnv())] * 2, AutoresetMode.NEXT_STEP))
        shown = envs.action_masks() if hasattr(envs, "action_masks") else np.array(envs.unwrapped.call("action_masks"))
        assert shown.tolist() == [[True] * 3] * 2


def test_masks_of_limits_in_a_batch_are_those_of_each_environment(meter: ComputeMeter) -> None:
    envs = sync([lambda: ComputeLimit(options(meter), 150, meter=meter)] * 2, AutoresetMode.NEXT_STEP)
    envs.reset(seed=0)
    envs.step(np.array([2, 0]))  # 110 of 11 steps, and 140: 40 fits into 140 − 100
    assert [mask.tolist() for mask in envs.call("action_masks")] == [[True, False, False], [True, True, True]]
