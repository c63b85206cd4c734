"""The law of all vector wrappers: what each environment tells is what the scalar wrapper tells, to the digit.

No stack, no mode and no way to charge is exempt.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import budget_wrappers.wrappers as scalar
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, SubPolicies
from budget_wrappers.wrappers import vector
from tests.gymnasium_versions import HAS_MASKS, asynchronous, sync
from tests.wrappers.vector.episodes import MODES, Make, RandomLengthEnv, both_stories, cost_of

WEIGHT, FLOOR, LIMIT = 1e-9, -0.5, 10**9
DEVICE = [(10**8, 19_000.0), (10**9, 70_000.0)]
"""Microseconds, which make 0 to 3 periods of 20 ms, or more where an option is added to what the policy spends."""


class Digit:
    """A sub-policy that acts by one digit of what its observation costs, on one or several of them."""

    def __init__(self, place: int, flops: int, batched: bool) -> None:
        self.name, self.flops, self.batched, self._divisor = f"digit {place}", flops, batched, 10**place

    def __call__(self, observation: Any) -> int:
        return cost_of(observation) // self._divisor % 3

    def batch(self, observations: Any) -> list[int]:
        assert self.batched
        return [self(observation) for observation in observations]


SUB_POLICIES = SubPolicies([Digit(0, 10**6, False), Digit(1, 3 * 10**7, True), Digit(2, 4 * 10**8, True)])
torch.manual_seed(0)
EXITS = ExitPolicy(EarlyExitNetwork(2, 3, [8, 8]), act=np.argmax)


def stack(home: Any, *layers: Callable[[Any, Any, Any], Any]) -> Make:
    """Return what wraps an environment in ``layers``, innermost first, with the classes of one of the two modules."""

    def wrap(env: Any, meter: Any) -> Any:
        for layer in layers:
            env = layer(home, env, meter)
        return env

    return wrap


def record(home: Any, env: Any, meter: Any) -> Any:
    return home.RecordComputeStatistics(env, meter)


def another_key(home: Any, env: Any, meter: Any) -> Any:
    return home.RecordComputeStatistics(env, meter, key="flops")


def penalty(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputePenaltyReward(env, WEIGHT, meter=meter)


def floored(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputePenaltyReward(env, WEIGHT, FLOOR, meter)


def no_penalty(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputePenaltyReward(env, 0.0, meter=meter)


def vector_reward(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputeVectorReward(env, meter)


def given_budget(home: Any, env: Any, meter: Any) -> Any:
    return home.BudgetAwareObservation(env, "budget")


def drawn_budget(home: Any, env: Any, meter: Any) -> Any:
    return home.BudgetAwareObservation(env, "budget", draw=(0.1, 0.9))


def nested_budget(home: Any, env: Any, meter: Any) -> Any:
    return home.BudgetAwareObservation(env, "budget", False, draw=(0.1, 0.9), dict_key="share")


def truncating(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputeLimit(env, LIMIT, "truncate", meter)


def terminating(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputeLimit(env, LIMIT, "terminate", meter, horizon=4)


def remaining(home: Any, env: Any, meter: Any) -> Any:
    return home.BudgetAwareObservation(env)


def limit_as_budget(home: Any, env: Any, meter: Any) -> Any:
    return home.BudgetAwareObservation(env, "budget", scale=2 * LIMIT)


def options(home: Any, env: Any, meter: Any) -> Any:
    return home.SubPolicyAction(env, SUB_POLICIES, hold=1, meter=meter)


def weighted_options(home: Any, env: Any, meter: Any) -> Any:
    return home.SubPolicyAction(env, SUB_POLICIES, hold=1, weight=0.3, meter=meter)


def exits(home: Any, env: Any, meter: Any) -> Any:
    return home.EarlyExitAction(env, EXITS, weight=0.1, meter=meter)


def delay(home: Any, env: Any, meter: Any) -> Any:
    return home.ComputeDelayAction(env, DEVICE, period=0.02, meter=meter)


STACKS = {
    "record": (record,),
    "another key": (another_key,),
    "penalty": (penalty,),
    "record, penalty": (record, penalty),
    "floored penalty, record": (floored, record),
    "two penalties, record": (no_penalty, penalty, record),
    "vector reward": (vector_reward,),
    "record, vector reward": (record, vector_reward),
    "record, given budget": (record, given_budget),
    "drawn budget, record": (drawn_budget, record),
    "record, nested budget": (record, nested_budget),
    "options, record": (options, record),
    "weighted options": (weighted_options,),
    "weighted options, another key": (weighted_options, another_key),
    "drawn budget, options, penalty, record": (drawn_budget, options, penalty, record),
    "options, vector reward": (options, vector_reward),
    "exits, record": (exits, record),
    "delay, record": (delay, record),
    "record, delay": (record, delay),
    "delay, weighted options, record": (delay, weighted_options, record),
}
LIMITS = {
    "limit, record": (truncating, record),
    "record, limit": (record, truncating),
    "record, limit, remaining": (record, terminating, remaining),
    "limit, limit as budget, penalty, record": (terminating, limit_as_budget, penalty, record),
    "limit, delay, record": (truncating, delay, record),
    "delay, limit, record": (delay, truncating, record),
}
CASES = [(name, mode) for mode in MODES for name in (*STACKS, *LIMITS)]


def reusing_sync(functions: list[Callable[[], gym.Env]], mode: str) -> VectorEnv:
    return sync(functions, mode, copy=False)


def assert_same(name: str, mode: str, make_envs: Any = sync, make_env: Any = RandomLengthEnv, **arguments: Any) -> None:
    if name in LIMITS and not HAS_MASKS:
        pytest.skip("Gymnasium 1.0 resets no environments by a mask, so a limit cannot end their episodes")
    layers = {**STACKS, **LIMITS}[name]
    batch, singles, policy = both_stories(
        stack(scalar, *layers), stack(vector, *layers), make_env, make_envs, mode, **arguments
    )
    for row, (ours, theirs) in enumerate(zip(batch, singles, strict=True)):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert data_equivalence(list(one), list(other), exact=True), (row, number, one, other)
    # Two accounts: what ran, and what of it no budget pays: the policy's rows in steps that only reset.
    assert (policy.meter.executed, policy.meter.uncharged) == (policy.executed, policy.wasted)
    assert policy.wasted == 0 or mode == "NextStep"


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_batch_tells_what_its_environments_tell_singly(name: str, mode: str) -> None:
    assert_same(name, mode)


@pytest.mark.parametrize("way", ["rows", "parts", "exits"])
@pytest.mark.parametrize("name", ["record, penalty", "delay, weighted options, record"])
@pytest.mark.parametrize("mode", MODES)
def test_whichever_way_the_policy_charges(mode: str, name: str, way: str) -> None:
    assert_same(name, mode, way=way)


@pytest.mark.parametrize("name", ["record, nested budget", "delay, weighted options, record"])
@pytest.mark.parametrize("mode", MODES)
def test_an_environment_that_hands_out_the_same_arrays_again(mode: str, name: str) -> None:
    assert_same(name, mode, reusing_sync)


WORKERS = (
    "record, penalty",
    "drawn budget, record",
    "record, limit, remaining",
    "options, record",
    "exits, record",
    "delay, record",
)


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("mode", MODES)
def test_environments_in_worker_processes(name: str, mode: str) -> None:
    assert_same(name, mode, asynchronous, n=2, steps=25)


SPACES = {
    "box": spaces.Box(0.0, 1.0, (2, 3), np.float32),
    "float64": spaces.Box(0.0, 1.0, (2,), np.float64),
    "integers": spaces.Box(0, 255, (4,), np.uint8),
    "discrete": spaces.Discrete(4),
    "dict": spaces.Dict({"position": spaces.Box(0.0, 1.0, (2,), np.float32), "mode": spaces.Discrete(2)}),
    "tuple": spaces.Tuple((spaces.Box(0.0, 1.0, (2,), np.float32), spaces.MultiDiscrete([2, 3]))),
}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize(
    "name", ["drawn budget, record", "record, nested budget", "limit, record", "delay, weighted options, record"]
)
@pytest.mark.parametrize("mode", MODES)
def test_observations_of_every_kind(mode: str, name: str, kind: str) -> None:
    assert_same(name, mode, make_env=lambda: RandomLengthEnv(4, SPACES[kind]), steps=15)


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(CASES if HAS_MASKS else [(name, "NextStep") for name in STACKS]),
    n=st.integers(1, 6),
    longest=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    way=st.sampled_from(["batch", "rows", "parts", "exits"]),
)
def test_whatever_the_lengths_and_costs(case: tuple[str, str], n: int, longest: int, seed: int, way: str) -> None:
    assert_same(*case, make_env=lambda: RandomLengthEnv(longest), n=n, seed=seed, way=way, steps=20)


@pytest.mark.parametrize("mode", MODES)
def test_two_thousand_steps(mode: str) -> None:
    assert_same("record, penalty", mode, n=2, steps=1_000, way="parts")
