"""SubPolicyAction: what it refuses, what it survives, and how it holds its sub-policies."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TransformReward

from budget_wrappers.errors import (
    ConfigError,
    CostError,
    InfoKeyError,
    NonFiniteError,
    SpaceError,
    WrapperOrderError,
)
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy, ModulePolicy, SubPolicies
from budget_wrappers.wrappers import (
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.wrappers.environments import SpacesEnv, cheap, dear, make


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, env: gym.Env | None = None, **arguments: Any) -> SubPolicyAction:
    env = SpacesEnv() if env is None else env
    return SubPolicyAction(env, [dear("box"), cheap("box")], **{"hold": 3, "meter": meter, **arguments})


def test_an_exception_in_an_option_leaves_a_usable_environment(meter: ComputeMeter) -> None:
    calls: list[Any] = []

    def fails_once(observation: Any) -> np.ndarray:
        calls.append(observation)
        if len(calls) == 2:
            raise RuntimeError("lost contact")
        return np.zeros(3, np.float32)

    env = SubPolicyAction(SpacesEnv(), [FunctionPolicy(fails_once, 10, "p")], hold=3, meter=meter)
    env.reset()
    with pytest.raises(RuntimeError, match="lost contact"):
        env.step(0)
    assert env.unwrapped.steps == 1
    assert meter.take().executed == 20  # the call that failed has run, too
    _, reward, *_ = env.step(0)
    assert reward == 2 + 3 + 4  # a new option, from where the environment stands
    assert calls[2] is calls[1]
    meter.add(5)  # and the meter is not left paused
    assert meter.take().executed == 3 * 10 + 5


@pytest.mark.parametrize("action", [-1, 2, 1.0, "0", None, np.array([0, 1])])
def test_an_action_that_is_no_index_raises(meter: ComputeMeter, action: Any) -> None:
    env = options(meter)
    env.reset()
    with pytest.raises(SpaceError, match="expected"):
        env.step(action)


@pytest.mark.parametrize("action", [1, np.int64(1), np.array(1)])
def test_every_integer_is_an_index(meter: ComputeMeter, action: Any) -> None:
    env = options(meter)
    env.reset()
    assert env.step(action)[4]["option"] == 1.0


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (np.zeros((1, 3)), SpaceError, r"shape \(1, 3\); expected \(3,\): one action, without a batch dimension"),
        (np.array([0.0, np.nan, 0.0]), NonFiniteError, "Sub-policy 'p' returned .*nan"),
        (np.array([0.0, np.inf, 0.0]), NonFiniteError, "expected finite numbers"),
    ],
)
def test_an_action_that_does_not_fit_names_the_sub_policy(
    meter: ComputeMeter, action: np.ndarray, error: type[Exception], message: str
) -> None:
    env = SubPolicyAction(SpacesEnv(), [FunctionPolicy(lambda obs: action, 1, "p")], meter=meter)
    env.reset()
    with pytest.raises(error, match=message):
        env.step(0)
    assert env.unwrapped.steps == 0


def test_a_discrete_action_outside_the_space_names_the_sub_policy(meter: ComputeMeter) -> None:
    env = SubPolicyAction(SpacesEnv("discrete"), [FunctionPolicy(lambda obs: 9, 1, "p")], meter=meter)
    env.reset()
    with pytest.raises(SpaceError, match=r"'p' returned 9; expected one action in Discrete\(4\)"):
        env.step(0)


def test_a_reward_that_is_no_number_names_the_step(meter: ComputeMeter) -> None:
    env = options(meter, TransformReward(SpacesEnv(), lambda r: float("nan") if r == 2 else r))
    env.reset()
    with pytest.raises(NonFiniteError, match="reward of step 2 is nan"):
        env.step(0)


@pytest.mark.parametrize("hold", [0, -1, 2.5, True])
def test_a_hold_is_a_positive_whole_number(meter: ComputeMeter, hold: Any) -> None:
    with pytest.raises(ConfigError, match=f"hold={hold!r}; expected a whole number"):
        options(meter, hold=hold)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"weight": -1.0}, ConfigError), ({"weight": float("nan")}, ConfigError), ({"selector_flops": -1}, CostError)],
)
def test_illegal_numbers_raise(meter: ComputeMeter, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        options(meter, **arguments)


def test_a_free_sub_policy_has_no_relative_cost(meter: ComputeMeter) -> None:
    policies = [FunctionPolicy(lambda obs: np.zeros(3, np.float32), flops, f"p{flops}") for flops in (0, 5)]
    assert SubPolicyAction(SpacesEnv(), policies, meter=meter).weight == 0.0
    with pytest.raises(CostError, match=r"cheapest of .* is 0"):
        SubPolicyAction(SpacesEnv(), policies, weight=0.1, meter=meter)


def test_a_key_of_the_environment_is_not_overwritten(meter: ComputeMeter) -> None:
    with pytest.raises(InfoKeyError, match="'duration' and 'option' are ours"):
        options(meter, SpacesEnv(info={"duration": 1.0})).reset()


@pytest.mark.parametrize(
    "inside",
    [
        lambda env, meter: RecordComputeStatistics(env, meter),
        lambda env, meter: ComputePenaltyReward(env, 0.1, meter=meter),
        lambda env, meter: ComputeLimit(env, 100, "truncate", meter=meter),
    ],
    ids=["record", "penalty", "limit"],
)
def test_wrappers_that_read_costs_belong_outside(meter: ComputeMeter, inside: Any) -> None:
    with pytest.raises(WrapperOrderError, match=r"reads costs inside SubPolicyAction.*outside"):
        options(meter, gym.Wrapper(inside(SpacesEnv(), meter)))


def test_vector_rewards_belong_outside(meter: ComputeMeter) -> None:
    with pytest.raises(WrapperOrderError, match="Put ComputeVectorReward outermost"):
        options(meter, ComputeVectorReward(SpacesEnv(), meter))


def test_a_chooser_in_a_chooser_raises(meter: ComputeMeter) -> None:
    inner = options(meter)
    with pytest.raises(WrapperOrderError, match="chooses sub-policies already"):
        SubPolicyAction(inner, [FunctionPolicy(lambda obs: 0, 1, "p")], meter=meter)


# Objects and names.


def test_objects_are_not_copied(meter: ComputeMeter) -> None:
    """RecordConstructorArgs deep-copies: the agent would train one network while another acts."""
    net = torch.nn.Linear(3, 3)
    policy = ModulePolicy(net, lambda module, obs: module(obs), example=np.zeros(3, np.float32))
    env = SubPolicyAction(make(), [policy], meter=meter)
    outer = RecordComputeStatistics(env, meter)
    assert env.sub_policies[0] is policy
    remade = outer.spec.make()
    assert remade.get_wrapper_attr("sub_policies")[0] is policy


def test_names_stay_names_in_the_spec() -> None:
    env = SubPolicyAction(make(), ["dear-box", "cheap-box"])
    assert env.spec.additional_wrappers[-1].kwargs["sub_policies"] == ["dear-box", "cheap-box"]


def test_a_set_is_taken_as_it_is(meter: ComputeMeter) -> None:
    given = SubPolicies([cheap("box")])
    assert SubPolicyAction(SpacesEnv(), given, meter=meter).sub_policies is given
