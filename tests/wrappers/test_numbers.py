"""What environments hand out as reward, and NumPy's numbers as arguments."""

import json
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward

from budget_wrappers.errors import NonFiniteError, SpaceError
from budget_wrappers.metering import get_meter
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.wrappers.environments import make

METER = "tests.numbers"
NAN, INFINITY = float("nan"), float("inf")
Layer = Callable[[gym.Env], gym.Env]

LAYERS: dict[str, Layer] = {
    "record": lambda env: RecordComputeStatistics(env, METER),
    "limit": lambda env: ComputeLimit(env, 10**6, "truncate", METER),
    "penalty": lambda env: ComputePenaltyReward(env, 0.1, meter=METER),
    "vector": lambda env: ComputeVectorReward(env, METER),
    "options": lambda env: SubPolicyAction(env, ["cheap-box"], hold=1, meter=METER),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Layer:
    return LAYERS[request.param]


def rewarded(reward: Any) -> gym.Env:
    """Return an environment whose second reward is ``reward``."""
    return TransformReward(make(), lambda number: reward if number == 2 else number)


def two_steps(env: gym.Env) -> Any:
    """Return what the second step hands out."""
    env.reset(seed=0)
    get_meter(METER).add(1)
    action = env.action_space.sample()
    env.step(action)
    return env.step(action)


@pytest.mark.parametrize("reward", [NAN, INFINITY, -INFINITY, np.float64(NAN), np.float32(INFINITY), np.array(NAN)])
def test_no_wrapper_lets_a_reward_pass_that_is_not_finite(layer: Layer, reward: Any) -> None:
    with pytest.raises(NonFiniteError, match=r"reward of step 2 is -?(nan|inf)"):
        two_steps(layer(rewarded(reward)))


@pytest.mark.parametrize("reward", [None, "1", [1.0], 10**400, {}])
def test_a_reward_that_is_no_number_is_refused_by_name(layer: Layer, reward: Any) -> None:
    with pytest.raises(SpaceError, match=r"reward of step 2 is .* expected one number"):
        two_steps(layer(rewarded(reward)))


@pytest.mark.parametrize("reward", [3, 3.0, True, np.True_, np.float32(3), np.int64(3), np.array(3.0)])
def test_whatever_holds_one_number_is_a_reward(layer: Layer, reward: Any) -> None:
    two_steps(layer(rewarded(reward)))


def vector_rewarded(reward: Any) -> gym.Env:
    """Return the same with vectors of two as rewards."""
    env = TransformReward(make(), lambda number: reward if number == 2 else np.ones(2))
    env.reward_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    return env


@pytest.mark.parametrize("name", ["limit", "vector"])
def test_every_part_of_a_vector_reward_is_finite(name: str) -> None:
    with pytest.raises(NonFiniteError, match="reward of step 2 is nan"):
        two_steps(LAYERS[name](vector_rewarded(np.array([1.0, NAN]))))
    reward = two_steps(LAYERS[name](vector_rewarded(np.array([1.0, 2.0]))))[1]
    assert reward[:2].tolist() == [1.0, 2.0]


def test_a_number_in_place_of_a_vector_reward_is_refused_by_name() -> None:
    with pytest.raises(SpaceError, match="reward of step 2 is 5; expected a vector"):
        two_steps(LAYERS["vector"](vector_rewarded(5)))


@pytest.mark.parametrize(
    ("wrap", "recorded"),
    [
        (
            lambda env: ComputePenaltyReward(env, np.float32(0.5), np.float64(-2), METER),
            {"weight": 0.5, "floor": -2.0},
        ),
        (
            lambda env: ComputeLimit(env, np.int64(1000), "hold", METER, horizon=np.int32(9)),
            {"max_flops": 1000, "horizon": 9},
        ),
        (
            lambda env: SubPolicyAction(
                env, ["cheap-box"], np.int64(2), np.float32(0.5), meter=METER, selector_flops=np.int64(7)
            ),
            {"hold": 2, "weight": 0.5, "selector_flops": 7},
        ),
        (
            lambda env: BudgetAwareObservation(
                ComputeLimit(env, 1000, "truncate", METER), "budget", np.True_, scale=np.int64(10)
            ),
            {"flatten": True, "scale": 10},
        ),
        (lambda env: RecordComputeStatistics(env, METER, stable_info=np.False_), {"stable_info": False}),
    ],
    ids=["penalty", "limit", "options", "observation", "record"],
)
def test_numpys_numbers_are_recorded_as_pythons(wrap: Layer, recorded: dict[str, Any]) -> None:
    env = wrap(make())
    written = json.loads(env.spec.to_json())["additional_wrappers"][-1]
    kwargs = json.loads(written)["kwargs"] if isinstance(written, str) else written["kwargs"]
    assert {key: kwargs[key] for key in recorded} == recorded
    remade = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert type(remade) is type(env)
