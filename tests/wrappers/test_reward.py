"""ComputePenaltyReward: compute as a price."""

import warnings
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward

from budget_wrappers.errors import ConfigError, MeterError, NonFiniteError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import (
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import SpacesEnv, cheap, dear, make

ADAPTING = {"weight": "auto", "budget": 32.0, "rate": 0.2}
"""A weight that moves at each step of the contract, which charges 64 FLOPs."""


class TestContract(WrapperContract):
    wrapper = ComputePenaltyReward
    variants: ClassVar = {
        "weight": ({"weight": 0.01}, {"weight": 0.02}),
        "floor": ({"floor": None}, {"floor": 1.0}),
        "meter": ({"meter": "policy"}, {"meter": "tests.another"}),
        "budget": (ADAPTING, {**ADAPTING, "budget": 48.0}),
        "initial_weight": (ADAPTING, {**ADAPTING, "initial_weight": 0.5}),
        "rate": (ADAPTING, {**ADAPTING, "rate": 0.1}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"weight": 0.01}

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return super().visible(env)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def rewards(env: gym.Env, meter: ComputeMeter, costs: list[int]) -> list[float]:
    env.reset(seed=0)
    handed_out = []
    for cost in costs:
        meter.add(cost)
        handed_out.append(env.step(env.action_space.sample())[1])
    return handed_out


def test_the_cost_of_the_step_is_subtracted(meter: ComputeMeter) -> None:
    # rewards 1, 2, 3 less 0.01 · (50, 0, 100)
    assert rewards(ComputePenaltyReward(make(), 0.01, meter=meter), meter, [50, 0, 100]) == [0.5, 2.0, 2.0]


def test_rewards_are_python_floats(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(TransformReward(make(), np.float32), 0.01, floor=0.0, meter=meter)
    assert type(rewards(env, meter, [50])[0]) is float


def test_weight_0_is_no_penalty(meter: ComputeMeter) -> None:
    assert rewards(ComputePenaltyReward(make(), 0.0, meter=meter), meter, [10**9]) == [1.0]


def test_a_penalty_stops_at_the_floor(meter: ComputeMeter) -> None:
    # 1 − 5 and 2 − 5 stop at −1; 3 − 1 = 2 does not
    env = ComputePenaltyReward(make(), 0.01, floor=-1.0, meter=meter)
    assert rewards(env, meter, [500, 500, 100]) == [-1.0, -1.0, 2.0]


def test_a_reward_below_the_floor_is_not_lifted(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(TransformReward(make(), lambda reward: -reward), 0.01, floor=-1.5, meter=meter)
    assert rewards(env, meter, [0, 100]) == [-1.0, -2.0]


def test_the_weight_can_be_changed_through_further_wrappers(meter: ComputeMeter) -> None:
    env = gym.Wrapper(ComputePenaltyReward(make(), 0.01, meter=meter))
    env.get_wrapper_attr("set_weight")(0.02)
    assert rewards(env, meter, [50]) == [0.0]


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_an_illegal_weight_raises_with_its_value(weight: Any) -> None:
    with pytest.raises(ConfigError, match=f"weight={weight!r}; expected a finite number >= 0"):
        ComputePenaltyReward(make(), weight)


def test_an_illegal_new_weight_leaves_the_old_one(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(make(), 0.01, meter=meter)
    with pytest.raises(ConfigError):
        env.set_weight(float("nan"))
    assert env.weight == 0.01


def test_a_floor_of_nan_raises() -> None:
    with pytest.raises(ConfigError, match="floor=nan"):
        ComputePenaltyReward(make(), 0.1, floor=float("nan"))


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_no_number_names_itself_and_the_step(meter: ComputeMeter, reward: float) -> None:
    env = ComputePenaltyReward(TransformReward(make(), lambda r: reward if r == 2 else r), 0.1, meter=meter)
    env.reset()
    env.step(env.action_space.sample())
    with pytest.raises(NonFiniteError, match=f"reward of step 2 is {reward!r}"):
        env.step(env.action_space.sample())


def test_an_episode_without_any_charge_raises(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(SpacesEnv(end_at=1), 0.1, meter=meter)
    env.reset()
    with pytest.raises(MeterError, match="never watched"):
        env.step(None)


def episode(env: gym.Env, meter: ComputeMeter) -> dict[str, float]:
    env.reset()
    for _ in range(3):
        meter.add(50)
        info = env.step(None)[4]
    return info["compute"]


def test_raw_and_penalised_return_do_not_depend_on_the_order(meter: ComputeMeter) -> None:
    inside = RecordComputeStatistics(ComputePenaltyReward(SpacesEnv(end_at=3), 0.01, meter=meter), meter)
    outside = ComputePenaltyReward(RecordComputeStatistics(SpacesEnv(end_at=3), meter), 0.01, meter=meter)
    accounts = [episode(env, meter) for env in (inside, outside)]
    assert accounts[0] == accounts[1]
    # 1 + 2 + 3 = 6 less 3 · 0.5
    assert (accounts[0]["return_raw"], accounts[0]["return_penalised"]) == (6.0, 4.5)


@pytest.mark.parametrize("recorder_first", [True, False])
def test_an_episode_forgets_the_returns_of_the_one_before(meter: ComputeMeter, recorder_first: bool) -> None:
    def record(env: gym.Env) -> gym.Env:
        return RecordComputeStatistics(env, meter)

    def penalise(env: gym.Env) -> gym.Env:
        return ComputePenaltyReward(env, 0.01, meter=meter)

    base = SpacesEnv(end_at=3)
    env = penalise(record(base)) if recorder_first else record(penalise(base))
    assert episode(env, meter) == episode(env, meter)


def test_penalties_for_two_meters_add_up_in_either_order(meter: ComputeMeter) -> None:
    other = ComputeMeter("tests.critic")
    accounts = []
    for first, second in ((meter, other), (other, meter)):
        env = ComputePenaltyReward(SpacesEnv(end_at=3), 0.01, meter=first)
        env = ComputePenaltyReward(RecordComputeStatistics(env, meter), 0.01, meter=second)
        env.reset()
        for _ in range(3):
            meter.add(50)
            other.add(20)
            info = env.step(None)[4]
        accounts.append(info["compute"])
    assert accounts[0]["return_penalised"] == pytest.approx(6.0 - 3 * 0.7)
    assert accounts[1]["return_penalised"] == pytest.approx(6.0 - 3 * 0.7)
    assert accounts[0]["return_raw"] == accounts[1]["return_raw"] == 6.0


def test_the_same_cost_is_not_subtracted_twice(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"a second time: ComputePenaltyReward inside has weight=0\.1"):
        ComputePenaltyReward(ComputePenaltyReward(make(), 0.1, meter=meter), 0.1, meter=meter)


def options(meter: ComputeMeter, weight: float) -> SubPolicyAction:
    return SubPolicyAction(make(), [cheap("box"), dear("box")], weight=weight, meter=meter)


def test_a_penalty_on_top_of_weighted_options_raises(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"SubPolicyAction inside has weight=0.1"):
        ComputePenaltyReward(gym.Wrapper(options(meter, 0.1)), 0.1, meter=meter)


def test_a_penalty_on_top_of_unweighted_options_is_per_flop(meter: ComputeMeter) -> None:
    env = ComputePenaltyReward(options(meter, 0.0), 0.01, meter=meter)
    env.reset()
    # 1 + 2 + 3 + 4 + 5 = 15 less 0.01 · 5 · 40
    assert env.step(1)[1] == pytest.approx(13.0)


def test_a_weight_set_later_inside_is_found_at_the_reset(meter: ComputeMeter) -> None:
    inner = options(meter, 0.0)
    env = ComputePenaltyReward(inner, 0.01, meter=meter)
    inner.set_weight(0.1)
    with pytest.raises(WrapperOrderError, match=r"SubPolicyAction inside has weight=0.1"):
        env.reset()


def test_vector_rewards_belong_outside(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="Put ComputeVectorReward outermost"):
        ComputePenaltyReward(ComputeVectorReward(make(), meter), 0.1, meter=meter)


def test_a_penalty_that_float32_loses_warns_once(meter: ComputeMeter) -> None:
    # 5000 − 1e-4 is 5000 in float32
    env = ComputePenaltyReward(TransformReward(make(), lambda r: 5000.0), 1e-6, meter=meter)
    assert np.float32(5000 - 1e-4) == np.float32(5000)
    env.reset()
    meter.add(100)
    with pytest.warns(UserWarning, match=r"penalty of 0.0001 on a reward of 5e\+03"):
        env.step(env.action_space.sample())
    meter.add(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(env.action_space.sample())


def test_a_visible_penalty_does_not_warn(meter: ComputeMeter) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rewards(ComputePenaltyReward(make(), 1e-3, meter=meter), meter, [1, 0])
