"""SubPolicyAction: sub-policies as actions, an SMDP."""

import pickle
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TransformReward

from budget_wrappers.core import Chooser
from budget_wrappers.errors import (
    InfeasibleBudgetError,
)
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.policies import FunctionPolicy, ModulePolicy
from budget_wrappers.wrappers import (
    HELD,
    ComputeLimit,
    PrimitiveTransition,
    RecordComputeStatistics,
    SubPolicyAction,
)
from tests.contracts.wrapper import WrapperContract
from tests.wrappers.environments import CHEAP, DEAR, HORIZON, SpacesEnv, cheap, dear, make


class TestContract(WrapperContract):
    wrapper = SubPolicyAction
    variants: ClassVar = {
        "sub_policies": ({"sub_policies": ["cheap-box"]}, {"sub_policies": ["cheap-box", "dear-box"]}),
        "hold": ({"hold": 2}, {"hold": [2, 3]}),
        "weight": ({"weight": 0.0}, {"weight": 0.5}),
        "meter": ({"meter": "policy"}, {"meter": "tests.another"}),
        "selector_flops": ({"selector_flops": 64}, {"selector_flops": 70}),
        "selector": ({"selector": None}, {"selector": "alternating"}),
    }

    def arguments(self, kind: str) -> dict[str, Any]:
        return {"sub_policies": [f"dear-{kind}", f"cheap-{kind}"]}

    def visible(self, env: gym.Env) -> list[Any]:
        """Its charges show in a recorder, and what it declares in the least limit that it can be put under."""
        with pytest.raises(InfeasibleBudgetError) as least:
            ComputeLimit(env, 1, meter=env.meter)
        return [*super().visible(RecordComputeStatistics(env)), str(least.value)]


@pytest.fixture
def meter() -> ComputeMeter:
    return ComputeMeter("tests")


def options(meter: ComputeMeter, env: gym.Env | None = None, **arguments: Any) -> SubPolicyAction:
    env = SpacesEnv() if env is None else env
    return SubPolicyAction(env, [dear("box"), cheap("box")], **{"hold": 3, "meter": meter, **arguments})


def test_actions_are_the_sub_policies_cheapest_first(meter: ComputeMeter) -> None:
    env = options(meter)
    assert env.action_space == gym.spaces.Discrete(2)
    assert env.sub_policies.names == ("cheap", "dear")
    assert env.observation_space == SpacesEnv().observation_space


def test_it_is_a_chooser(meter: ComputeMeter) -> None:
    env = options(meter, selector_flops=7)
    assert isinstance(env, Chooser)
    assert (env.choice_flops.tolist(), env.selector_flops, env.durations) == ([CHEAP, DEAR], 7, (3,))


def test_the_chosen_one_acts_for_the_whole_option(meter: ComputeMeter) -> None:
    acted: list[str] = []
    policies = [
        FunctionPolicy(lambda obs, name=name: acted.append(name) or np.zeros(3, np.float32), flops, name)
        for name, flops in (("small", 1), ("large", 2))
    ]
    env = SubPolicyAction(SpacesEnv(), policies, hold=2, meter=meter)
    env.reset()
    for choice in (1, 0, 1):
        env.step(choice)
    assert acted == ["large", "large", "small", "small", "large", "large"]


def test_rewards_are_summed_undiscounted(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    assert [env.step(0)[1] for _ in range(2)] == [1 + 2 + 3, 4 + 5 + 6]


def test_the_weight_prices_relative_cost_by_the_step(meter: ComputeMeter) -> None:
    env = options(meter, weight=0.5)
    env.reset()
    # c_dear = 40/10: 6 − 0.5·3·4; c_cheap = 1: 15 − 0.5·3·1
    assert [env.step(1)[1], env.step(0)[1]] == [0.0, 13.5]


def test_an_option_cut_short_pays_for_the_steps_it_took(meter: ComputeMeter) -> None:
    env = options(meter, SpacesEnv(end_at=2), weight=0.5)
    env.reset()
    _, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (1 + 2 - 0.5 * 2 * 4, True, False)
    assert info["duration"] == 2.0


def test_a_truncation_inside_an_option_stays_a_truncation(meter: ComputeMeter) -> None:
    env = options(meter, make(), hold=5)
    env.reset()
    steps = [env.step(0) for _ in range(3)]
    assert [float(step[4]["duration"]) for step in steps] == [5.0, 5.0, 2.0]  # 12 steps
    assert [step[2:4] for step in steps] == [(False, False), (False, False), (False, True)]


def test_flags_and_reward_are_pythons(meter: ComputeMeter) -> None:
    env = options(meter, TransformReward(SpacesEnv(), np.float32), weight=0.5)
    env.reset()
    _, reward, terminated, truncated, _ = env.step(0)
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]


def test_info_says_what_ran_from_the_reset_on(meter: ComputeMeter) -> None:
    env = options(meter)
    at_reset, after = env.reset()[1], env.step(1)[4]
    assert at_reset == {"duration": 0.0, "option": HELD}
    assert after == {"duration": 3.0, "option": 1.0}
    assert {type(value) for value in (*at_reset.values(), *after.values())} == {np.float64}


def test_a_stack_adds_three_keys_a_step_at_most(meter: ComputeMeter) -> None:
    env = ComputeLimit(RecordComputeStatistics(options(meter, make()), meter), 10**6, meter=meter)
    env.reset()
    assert set(env.step(0)[4]) == {"cost", "duration", "option"}


def test_each_primitive_step_is_charged_by_name(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    env.step(1)
    env.step(0)
    assert dict(meter.take().by_name) == {"dear": 3 * DEAR, "cheap": 3 * CHEAP}


def test_a_watched_sub_policy_is_not_charged_twice(meter: ComputeMeter) -> None:
    net = torch.nn.Linear(3, 3)
    policy = ModulePolicy(net, lambda module, obs: module(obs).tanh(), example=np.zeros(3, np.float32), name="net")
    env = SubPolicyAction(SpacesEnv(), [policy], hold=3, meter=meter)
    env.reset()
    with meter.watch(net):
        env.step(0)
    assert meter.take().executed == 3 * 2 * 3 * 3


def test_the_first_action_of_an_episode_sees_its_first_observation(meter: ComputeMeter) -> None:
    """The authors' evaluation loop used the last observation of the episode before."""
    seen: list[Any] = []
    policy = FunctionPolicy(lambda obs: seen.append(obs) or np.zeros(3, np.float32), 1, "p")
    env = SubPolicyAction(SpacesEnv(end_at=2), [policy], meter=meter)
    for _ in range(2):
        first, _ = env.reset()
        env.step(0)
        assert seen[-2] is first


def test_stepping_before_a_reset_raises(meter: ComputeMeter) -> None:
    with pytest.raises(ResetNeeded, match="Call reset"):
        options(meter).step(0)


# Subscribers: the shared replay.


def test_subscribers_receive_every_primitive_transition(meter: ComputeMeter) -> None:
    env = options(meter, SpacesEnv(end_at=4), weight=0.5)
    heard: list[PrimitiveTransition] = []
    env.subscribe(heard.append)
    first, _ = env.reset()
    env.step(1)
    last = env.step(0)[0]
    assert [transition.index for transition in heard] == [1, 1, 1, 0]
    assert [transition.reward for transition in heard] == [1.0, 2.0, 3.0, 4.0]  # without the penalty
    assert [transition.terminated for transition in heard] == [False, False, False, True]
    assert heard[0].observation is first
    assert heard[-1].next_observation is last
    assert all(one.next_observation is other.observation for one, other in pairwise(heard))


def test_unsubscribing_ends_it(meter: ComputeMeter) -> None:
    env = options(meter)
    heard: list[PrimitiveTransition] = []
    end = env.subscribe(heard.append)
    env.reset()
    env.step(0)
    end()
    env.step(0)
    assert len(heard) == 3


def test_held_steps_reach_subscribers_as_held(meter: ComputeMeter) -> None:
    env = options(meter, make())
    heard: list[PrimitiveTransition] = []
    env.subscribe(heard.append)
    limited = ComputeLimit(env, 30, meter=meter)
    limited.reset()
    limited.step(0)
    assert [transition.index for transition in heard] == [0] * 3 + [HELD] * (HORIZON - 3)


def test_a_pickled_copy_has_no_subscribers(meter: ComputeMeter) -> None:
    env = SubPolicyAction(make(), ["cheap-box"])
    heard: list[PrimitiveTransition] = []
    env.subscribe(heard.append)
    copy = pickle.loads(pickle.dumps(env))
    copy.reset()
    copy.step(0)
    assert heard == []


# The chooser's side of a limit.


def test_a_restriction_replaces_what_does_not_fit(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    env.restrict(lambda steps: 3 * DEAR + 2, 3)
    # dear fits once; then 2 are left, which pay nothing: the last action again
    assert [float(env.step(1)[4]["option"]) for _ in range(2)] == [1.0, HELD]


def test_a_restriction_limits_the_steps(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    env.restrict(lambda steps: 2 * DEAR, 2)
    assert env.step(1)[4] == {"duration": 2.0, "option": 1.0}


def test_a_reset_lifts_the_restriction(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    env.restrict(lambda steps: 0, 1)
    env.reset()
    assert env.step(1)[4] == {"duration": 3.0, "option": 1.0}


def test_nothing_can_be_held_before_anything_acted(meter: ComputeMeter) -> None:
    env = options(meter)
    env.reset()
    with pytest.raises(InfeasibleBudgetError, match="no action to hold"):
        env.hold_last_action(3)


def test_held_steps_cost_nothing(meter: ComputeMeter) -> None:
    env = options(meter, weight=0.5)
    env.reset()
    env.step(0)
    meter.take()
    env.hold_last_action(4)
    _, reward, _, _, info = env.step(1)
    assert (reward, info["duration"], info["option"]) == (4 + 5 + 6 + 7, 4.0, HELD)
    assert meter.take().executed == 0
