"""ComputeVectorReward: reward and cost apart."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

from budget_wrappers.errors import WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import ComputePenaltyReward, ComputeVectorReward, RecordComputeStatistics, SubPolicyAction
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import SpacesEnv, cheap, make


class TestContract(WrapperContract):
    wrapper = ComputeVectorReward
    variants: ClassVar = {"meter": ({"meter": "policy"}, {"meter": "tests.another"})}

    def visible(self, env: gym.Env) -> list[Any]:
        get_meter("tests.another").add(0)
        return super().visible(env)


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def test_the_cost_is_the_last_objective_negated(meter: ComputeMeter) -> None:
    env = ComputeVectorReward(SpacesEnv(), meter)
    env.reset()
    meter.add(640)
    reward = env.step(None)[1]
    assert (reward.tolist(), reward.dtype) == ([1.0, -640.0], np.float32)


def test_a_free_step_costs_zero_and_not_minus_zero(meter: ComputeMeter) -> None:
    env = ComputeVectorReward(SpacesEnv(), meter)
    env.reset()
    assert not np.signbit(env.step(None)[1][1])


def test_rewards_are_in_the_reward_space(meter: ComputeMeter) -> None:
    env = ComputeVectorReward(SpacesEnv(), meter)
    assert env.reward_space == gym.spaces.Box(
        np.array([-np.inf, -np.inf], np.float32), np.array([np.inf, 0.0], np.float32), dtype=np.float32
    )
    env.reset()
    meter.add(10)
    assert env.step(None)[1] in env.reward_space
    assert env.reward_dim == 2


def test_a_vector_reward_is_extended(meter: ComputeMeter) -> None:
    second = ComputeMeter("tests.second")
    env = ComputeVectorReward(ComputeVectorReward(SpacesEnv(), meter), second)
    env.reset()
    meter.add(3)
    second.add(5)
    reward = env.step(None)[1]
    assert reward.tolist() == [1.0, -3.0, -5.0]
    assert reward in env.reward_space


class TwoRewards(SpacesEnv):
    """Hands out vectors, as MO-Gymnasium's environments do."""

    reward_space = gym.spaces.Box(-1.0, 5.0, (2,), np.float32)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return (observation, np.array([1.0, 3.0], np.float32), *rest)


class LinearReward(gym.Wrapper):
    """As in MO-Gymnasium: makes a number of a vector, and declares no reward_space."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = self.env.step(action)
        return (observation, float(reward @ np.full(len(reward), 0.5)), *rest)


class Declared(LinearReward):
    """One's own wrapper that says so."""

    reward_space = None


Own = type("Own", (Declared,), {})
Another = type("Another", (LinearReward,), {})


@pytest.mark.parametrize("scalarise", [LinearReward, Own, Another])
def test_a_vector_that_a_wrapper_makes_a_number_of_is_a_number(scalarise: type, meter: ComputeMeter) -> None:
    recorded = RecordComputeStatistics(scalarise(TwoRewards()), meter)
    env = ComputeVectorReward(ComputePenaltyReward(recorded, 0, meter=meter), meter)
    env.reset()
    meter.add(3)
    assert env.step(None)[1].tolist() == [2.0, -3.0]
    SubPolicyAction(scalarise(TwoRewards()), [cheap("box")], meter=meter)
    outside = RecordComputeStatistics(LinearReward(ComputeVectorReward(SpacesEnv(), meter)), meter)
    outside.reset()
    meter.add(3)
    assert outside.step(None)[1] == -1.0


def test_vectors_of_an_environment_are_refused_with_a_remedy_that_helps(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="number of them inside, by LinearReward"):
        RecordComputeStatistics(TwoRewards(), meter)


def test_the_inner_reward_is_not_written_to(meter: ComputeMeter) -> None:
    """MO-Gymnasium's own wrappers have edited the inner environment's array."""
    vector = np.array([1.0, 2.0], np.float32)
    vector.flags.writeable = False

    class TwoRewards(SpacesEnv):
        reward_space = gym.spaces.Box(-1.0, 5.0, (2,), np.float32)

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return (observation, vector, *rest)

    env = ComputeVectorReward(TwoRewards(), meter)
    env.reset()
    meter.add(7)
    assert env.step(None)[1].tolist() == [1.0, 2.0, -7.0]
    assert vector.tolist() == [1.0, 2.0]


def test_the_same_cost_does_not_enter_twice(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match=r"ComputePenaltyReward inside has weight=0.1"):
        ComputeVectorReward(ComputePenaltyReward(make(), 0.1, meter=meter), meter)
    weighted = SubPolicyAction(make(), [cheap("box")], weight=0.1, meter=meter)
    with pytest.raises(WrapperOrderError, match=r"SubPolicyAction inside has weight=0.1"):
        ComputeVectorReward(weighted, meter)


def test_a_recorder_belongs_inside(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="Put ComputeVectorReward outermost"):
        RecordComputeStatistics(ComputeVectorReward(make(), meter), meter)
    env = ComputeVectorReward(RecordComputeStatistics(make(), meter), meter)
    env.reset()
    meter.add(7)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert (reward[1], info["cost"]) == (-7.0, 7.0)
