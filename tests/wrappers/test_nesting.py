"""Several wrappers in one stack: every order that makes sense tells the same story, and the account stays one."""

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from budget_wrappers.errors import MeterError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter, get_meter
from budget_wrappers.wrappers import (
    BudgetAwareObservation,
    ComputeLimit,
    ComputePenaltyReward,
    ComputeVectorReward,
    RecordComputeStatistics,
    SubPolicyAction,
    check_wrapper,
)
from tests.gymnasium_versions import RepeatAction
from tests.wrappers.environments import HORIZON, make

Layer = Callable[[gym.Env], gym.Env]
METER = "tests.nesting"

LAYERS: dict[str, Layer] = {
    "record": lambda env: RecordComputeStatistics(env, METER),
    "penalty": lambda env: ComputePenaltyReward(env, 0.001, meter=METER),
    "limit": lambda env: ComputeLimit(env, 400, "terminate", meter=METER),
    "budget": lambda env: BudgetAwareObservation(env),
}


def orders() -> list[tuple[str, ...]]:
    """Return the orders, from the inside out, in which the budget is seen outside of its limit."""
    return [order for order in itertools.permutations(LAYERS) if order.index("limit") < order.index("budget")]


def stack(env: gym.Env, order: tuple[str, ...]) -> gym.Env:
    for name in order:
        env = LAYERS[name](env)
    return env


def options(env: gym.Env) -> gym.Env:
    return SubPolicyAction(env, ["cheap-box", "dear-box"], hold=2, meter=METER, selector_flops=5)


def play(env: gym.Env, charge: int, seed: int = 0) -> list[Any]:
    """Return observations, rewards, flags, costs and account of one episode."""
    env.action_space.seed(seed)
    story: list[Any] = [env.reset(seed=seed)[0]]
    ended = False
    while not ended:
        get_meter(METER).add(charge, "selector")
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        ended = terminated or truncated
        story += [observation, reward, terminated, truncated, float(info["cost"])]
    return [*story, info["compute"]]


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(np.allclose(left, right, rtol=1e-12))


@pytest.mark.parametrize("choosing", [False, True], ids=["opaque", "options"])
@pytest.mark.parametrize("order", orders(), ids="-".join)
def test_every_order_tells_the_same_story(order: tuple[str, ...], choosing: bool) -> None:
    base, charge = (options, 5) if choosing else ((lambda env: env), 60)
    reference = play(stack(base(make()), orders()[0]), charge)
    story = play(stack(base(make()), order), charge)
    assert len(story) == len(reference)
    assert all(equal(left, right) for left, right in zip(story, reference, strict=True))


@pytest.mark.parametrize("order", orders(), ids="-".join)
def test_every_order_keeps_the_contract(order: tuple[str, ...]) -> None:
    check_wrapper(make, lambda env: stack(options(env), order), steps=16)


@pytest.mark.parametrize("order", orders()[::4], ids="-".join)
def test_every_order_survives_json(order: tuple[str, ...]) -> None:
    env = stack(options(make()), order)
    remade = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert all(equal(left, right) for left, right in zip(play(env, 5), play(remade, 5), strict=True))


def test_one_wrapper_closes_the_account_and_it_is_the_innermost() -> None:
    env = stack(make(), ("penalty", "record", "limit", "budget"))
    layers = []
    while isinstance(env, gym.Wrapper):
        layers.append(env)
        env = env.env
    closing = [type(layer) for layer in layers if getattr(layer, "_closes", False)]
    assert closing == [ComputePenaltyReward]


def test_two_meters_have_two_accounts() -> None:
    actor, critic = ComputeMeter("tests.actor"), ComputeMeter("tests.critic")
    env = ComputePenaltyReward(RecordComputeStatistics(make(), actor), 0.1, meter=critic)
    env.reset()
    actor.add(7)
    critic.add(5)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert (info["cost"], reward) == (7.0, 1.0 - 0.5)


def test_repeating_between_two_readers_loses_nothing() -> None:
    """The inner one is read three times a step; the outer one reads a running total."""
    env = RepeatAction(ComputePenaltyReward(make(), 0.1, meter=METER), 3)
    env = RecordComputeStatistics(env, METER)
    env.reset()
    get_meter(METER).add(9)
    assert env.step(env.action_space.sample())[4]["cost"] == 9.0


def test_repeating_around_a_recorder_loses_costs_which_is_why_it_belongs_inside() -> None:
    class ChargesEachStep(gym.Wrapper):
        def step(self, action: Any) -> Any:
            get_meter(METER).add(4)
            return self.env.step(action)

    inside_out = RepeatAction(RecordComputeStatistics(ChargesEachStep(make()), METER), 3)
    right_way = RecordComputeStatistics(RepeatAction(ChargesEachStep(make()), 3), METER)
    costs = []
    for env in (inside_out, right_way):
        env.reset()
        costs.append(env.step(env.action_space.sample())[4]["cost"])
    assert costs == [4.0, 12.0]


def repeated(times: int) -> gym.Env:
    return RepeatAction(RecordComputeStatistics(TimeLimit(make(), HORIZON), METER), times)


@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_recorder_inside_a_frame_skip_raises_before_it_loses_a_second_cost(times: int) -> None:
    """The policy pays once for ``times`` steps, of which the last, free one is all that is handed out."""
    env = repeated(times)
    env.reset(seed=0)
    with pytest.raises(WrapperOrderError, match=r"RepeatAction steps RecordComputeStatistics several .*lost\. Put"):
        for _ in range(2):
            get_meter(METER).add(9)
            env.step(env.action_space.sample())


class Holder(gym.Env):
    """Repeats actions in an environment that it holds, and is no wrapper."""

    def __init__(self, env: gym.Env) -> None:
        self.held, self.observation_space, self.action_space = env, env.observation_space, env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self.held.reset(seed=seed)

    def step(self, action: Any) -> Any:
        for _ in range(2):
            transition = self.held.step(action)
        return transition


def test_a_recorder_in_an_environment_that_repeats_actions_and_is_no_wrapper_raises() -> None:
    env = Holder(RecordComputeStatistics(TimeLimit(make(), HORIZON), METER))
    env.reset(seed=0)
    with pytest.raises(WrapperOrderError, match=r"Holder steps RecordComputeStatistics several .*lost\. Put"):
        for _ in range(2):
            get_meter(METER).add(9)
            env.step(env.action_space.sample())


def test_who_holds_an_action_by_himself_sees_every_info() -> None:
    """Also through wrappers that step once, and in a program that is itself called ``step``."""
    env = OrderEnforcing(TimeLimit(RecordComputeStatistics(make(), METER), HORIZON))
    env.reset(seed=0)
    action, costs = env.action_space.sample(), []

    def step(charge: int) -> None:
        for flops in (charge, 0):
            get_meter(METER).add(flops)
            costs.append(env.step(action)[4]["cost"])

    for _ in range(3):
        step(9)
    assert costs == [9.0, 0.0] * 3


def test_a_recorder_that_watches_for_repeats_is_copied_and_pickled() -> None:
    env = repeated(2)
    env.reset(seed=0)
    get_meter(METER).add(9)
    env.step(env.action_space.sample())
    assert copy.deepcopy(env).reset(seed=1)[1]["cost"] == 0.0


def test_train_and_evaluation_environments_share_a_meter_and_nothing_else() -> None:
    train, evaluation = (stack(make(), ("record", "penalty")) for _ in range(2))
    train.reset(seed=0)
    get_meter(METER).add(10)
    train.step(train.action_space.sample())
    play(evaluation, 1000)
    ended = False
    while not ended:
        get_meter(METER).add(10)
        _, _, terminated, truncated, info = train.step(train.action_space.sample())
        ended = terminated or truncated
    assert info["compute"]["flops"] == 10 * HORIZON


def test_a_vector_reward_goes_around_everything() -> None:
    env = ComputeVectorReward(stack(options(make()), ("record", "limit", "budget")), METER)
    env.reset()
    get_meter(METER).add(5)
    _, reward, _, _, info = env.step(0)
    # one option of two cheap steps: rewards 1 + 2, and 5 + 2·10 FLOPs
    assert (reward.tolist(), info["cost"]) == ([3.0, -25.0], 25.0)


@pytest.mark.parametrize("clone", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy], ids=["pickle", "copy"])
def test_a_copy_of_a_stack_is_a_stack_on_the_same_meter(clone: Callable[[gym.Env], gym.Env]) -> None:
    env = stack(options(make()), ("record", "limit", "penalty", "budget"))
    reference = play(env, 5)
    cloned = clone(env)
    assert cloned.get_wrapper_attr("meter") is get_meter(METER)
    assert all(equal(left, right) for left, right in zip(play(cloned, 5), reference, strict=True))


def test_a_meter_object_does_not_travel() -> None:
    env = RecordComputeStatistics(make(), ComputeMeter("tests.object"))
    with pytest.raises(MeterError, match=r"in the main process, with .*wrappers\.vector"):
        pickle.dumps(env)


def test_a_deep_copy_of_a_meter_object_is_the_meter() -> None:
    meter = ComputeMeter("tests.object")
    assert copy.deepcopy(RecordComputeStatistics(make(), meter)).meter is meter
