"""Whose acting a step pays for: what a wrapper can tell, and what is refused or warned of where nobody can."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn

from budget_wrappers.errors import MeterError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers import ComputePenaltyReward, RecordComputeStatistics
from budget_wrappers.wrappers import vector as vectors
from tests.wrappers.acting import LAYER, WRAPS, acts, recorded, small, step
from tests.wrappers.environments import SpacesEnv

# ---- several environments on one meter ------------------------------------------------------------------------------


CHARGES = {
    "watched": lambda meter, net: acts(net),
    "added": lambda meter, net: meter.add(LAYER),
    "under names of their own": lambda meter, net: meter.add(LAYER, f"name {len(meter.by_name)}"),
}


@pytest.mark.parametrize("charge", CHARGES.values(), ids=CHARGES)
@pytest.mark.parametrize("number", [2, 3])
def test_rows_acted_on_one_by_one_are_not_paid_by_the_first_environment_alone(
    meter: ComputeMeter, number: int, charge: Callable[[ComputeMeter, nn.Module], None]
) -> None:
    net = nn.Linear(3, 2)
    meter.watch(net)
    envs = SyncVectorEnv([lambda: RecordComputeStatistics(SpacesEnv(), meter)] * number)
    envs.reset(seed=0)
    for _ in range(number):
        charge(meter, net)
    with pytest.raises(MeterError, match=r"wrappers\.vector"):
        envs.step(envs.action_space.sample())


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_every_wrapper_refuses_what_another_environment_has_paid_for(
    meter: ComputeMeter, wrap: Callable[..., gym.Env]
) -> None:
    one, two = (wrap(SpacesEnv(), meter) for _ in range(2))
    one.reset(seed=0), two.reset(seed=0)
    meter.add(5), meter.add(5)
    step(one)
    with pytest.raises(MeterError, match="paid for this one's action, too"):
        step(two)


def test_two_vector_environments_that_are_acted_for_first_and_stepped_then_are_refused(meter: ComputeMeter) -> None:
    one, two = (
        vectors.RecordComputeStatistics(SyncVectorEnv([SpacesEnv] * 2), meter) for _ in range(2)
    )  # fmt: skip
    one.reset(seed=0), two.reset(seed=0)
    meter.add(10, rows=2), meter.add(10, rows=2)
    step(one)
    with pytest.raises(MeterError, match="paid for this one's action, too"):
        step(two)


def test_environments_stepped_right_after_their_action_share_a_meter(meter: ComputeMeter) -> None:
    one, two = recorded(meter), recorded(meter)
    costs = []
    for env, flops in ((one, 3), (two, 5), (one, 7), (two, 0), (two, 2)):
        meter.add(flops)
        costs.append(step(env)["cost"])
    assert costs == [3.0, 5.0, 7.0, 0.0, 2.0]


def test_training_goes_on_with_a_free_step_after_an_evaluation_that_has_ended(meter: ComputeMeter) -> None:
    train, evaluation = recorded(meter), RecordComputeStatistics(SpacesEnv(end_at=1), meter)
    evaluation.reset(seed=0)
    meter.add(4), meter.add(4)  # a policy of two parts
    assert step(evaluation)["cost"] == 8.0
    assert step(train)["cost"] == 0.0


@pytest.mark.parametrize("steps", [["act", "hold"], ["act", "hold", "hold"]], ids=["every second", "every third"])
def test_environments_that_hold_actions_of_a_policy_of_two_parts_share_a_meter(
    meter: ComputeMeter, steps: list[str]
) -> None:
    head, body = nn.Linear(3, 2), nn.Linear(3, 3)
    meter.watch(body, "body"), meter.watch(head, "head")
    envs, costs = [recorded(meter), recorded(meter)], []
    for what in steps * 2:
        for env in envs:
            if what == "act":
                with torch.no_grad():
                    head(body(torch.zeros(1, 3)))
            costs.append(step(env)["cost"])
    assert costs == [30.0 * (what == "act") for what in steps * 2 for _ in envs]  # 2·3·3 + 2·3·2


def test_training_at_random_goes_on_after_an_evaluation_that_was_reset_again(meter: ComputeMeter) -> None:
    train, evaluation = recorded(meter), recorded(meter)
    meter.add(4), meter.add(4)
    assert step(evaluation)["cost"] == 8.0
    evaluation.reset()
    assert step(train)["cost"] == 0.0


# ---- two policies ----------------------------------------------------------------------------------------------------


def test_two_agents_of_one_meter_are_told_apart_or_refused(meter: ComputeMeter) -> None:
    one, two = small(meter=meter), small(meter=meter)
    envs = [RecordComputeStatistics(gym.make("Pendulum-v1"), meter) for _ in range(2)]
    observations = [env.reset(seed=0)[0] for env in envs]
    actions = [agent.predict(seen)[0] for agent, seen in zip((one, two), observations, strict=True)]
    with pytest.raises(MeterError, match="two owners"):
        envs[0].step(actions[0])


def test_two_agents_of_one_meter_take_turns(meter: ComputeMeter) -> None:
    agents = [small(meter=meter), small(meter=meter)]
    envs = [RecordComputeStatistics(gym.make("Pendulum-v1"), meter) for _ in range(2)]
    observations = [env.reset(seed=0)[0] for env in envs]
    costs = []
    for turn in (0, 1, 1, 0):
        action, _ = agents[turn].predict(observations[turn])
        costs.append(envs[turn].step(action)[-1]["cost"])
    assert costs == [agents[0].flops_per_action] * 4


def test_two_agents_that_act_together_in_one_environment_are_charged_together(meter: ComputeMeter) -> None:
    one, two = small(meter=meter), small(meter=meter)
    env = RecordComputeStatistics(gym.make("Pendulum-v1"), meter)
    observation, _ = env.reset(seed=0)
    action = (one.predict(observation)[0] + two.predict(observation)[0]) / 2
    assert env.step(action)[-1]["cost"] == one.flops_per_action + two.flops_per_action


def test_watched_modules_of_two_owners_in_one_step_are_refused(meter: ComputeMeter) -> None:
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    for number, net in enumerate(nets):
        meter.watch(net, str(number), owner=object())
    one, _two = recorded(meter), recorded(meter)
    acts(nets[0]), acts(nets[1])
    with pytest.raises(MeterError, match="two owners"):
        step(one)


# ---- an episode that begins by itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["record", "penalty inside", "penalty outside", "by hand"])
def test_a_step_after_an_end_begins_an_account(meter: ComputeMeter, wrap: str) -> None:
    env: Any = SpacesEnv(end_at=3) if wrap == "by hand" else gym.wrappers.Autoreset(SpacesEnv(end_at=3))
    if wrap == "penalty inside":
        env = ComputePenaltyReward(env, 0.5, meter=meter)
    env = RecordComputeStatistics(env, meter)
    if wrap == "penalty outside":
        env = ComputePenaltyReward(env, 0.5, meter=meter)
    env.reset(seed=0)
    ends = []
    for number in range(11):
        if wrap == "by hand" and number in (3, 6, 9):
            env.unwrapped.reset()  # whatever starts an episode without asking
        meter.add(10)
        info = step(env)
        if "compute" in info:
            ends.append((info["compute"]["flops"], info["compute"]["steps"], info["compute"]["return_raw"]))
    # Rewards are 1 + 2 + 3; with Autoreset the first step of a later episode only resets: its action counts, too.
    assert ends[0] == (30.0, 3.0, 6.0)
    assert all(end in ((40.0, 4.0, 6.0), (30.0, 3.0, 6.0)) for end in ends[1:])
    assert len(ends) >= 2
