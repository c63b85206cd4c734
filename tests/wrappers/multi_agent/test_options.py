"""SubPolicyAction for teams: what a choice runs, what it is charged, and what the selector observes."""

from typing import Any

import numpy as np
import pettingzoo
import pytest

from budget_wrappers.errors import ConfigError, CostError, SpaceError
from budget_wrappers.metering import get_meter
from budget_wrappers.policies import FunctionPolicy
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.wrappers.multi_agent.environments import (
    AGENTS,
    CHEAP,
    DEAR,
    STEPS,
    Team,
    of_kind,
    play,
    spent,
    sub_policies,
    turns,
)

both = pytest.mark.parametrize("make", [Team, turns], ids=["parallel", "aec"])


@both
def test_a_choice_acts_and_is_charged_what_it_declares(make: Any) -> None:
    env = make()
    env = of_kind(env).SubPolicyAction(env, sub_policies(env))
    env = of_kind(env).RecordComputeStatistics(env)
    assert env.action_space("agent_0").n == 2
    play(env, lambda agent, number: int(agent == "agent_1"))
    assert [{agent: round(x, 1) for agent, x in step.items()} for step in env.unwrapped.taken] == [
        {"agent_0": 0.1, "agent_1": 0.4, "agent_2": 0.1}
    ] * STEPS
    assert spent(env) == STEPS * (CHEAP + DEAR + CHEAP)


@both
def test_a_watched_sub_policy_is_not_charged_twice(make: Any) -> None:
    """Not even to another agent that shares its module."""
    env = make()
    meter = get_meter("policy.agent_0")

    def act(observation: Any) -> np.ndarray:
        meter.add(1_000)  # as a watched module would
        return np.zeros(1, np.float32)

    env = of_kind(env).SubPolicyAction(env, [FunctionPolicy(act, flops=10, name="watched")])
    env = of_kind(env).RecordComputeStatistics(env)
    play(env, lambda agent, number: 0)
    assert {env.account.total(agent) for agent in AGENTS} == {STEPS * 10}


@both
@pytest.mark.parametrize("action", [2, -1, "dear", None, 0.5])
def test_an_action_that_is_no_choice_is_refused(make: Any, action: Any) -> None:
    env = make()
    env = of_kind(env).SubPolicyAction(env, sub_policies(env))
    with pytest.raises(SpaceError, match="sub-policy"):
        play(env, lambda agent, number: action)


def test_a_live_agent_without_an_action_is_named() -> None:
    env = parallel.SubPolicyAction(Team(), sub_policies(Team()))
    env.reset()
    with pytest.raises(SpaceError, match=r"nothing for \['agent_2'\]"):
        env.step({"agent_0": 0, "agent_1": 0})


@both
def test_sub_policies_of_an_unknown_agent_or_of_too_few_are_refused(make: Any) -> None:
    policies, kind = sub_policies(make()), of_kind(make())
    with pytest.raises(ConfigError, match=r"the agent 'agent_9'; known agents are \['agent_0'"):
        kind.SubPolicyAction(make(), {**policies, "agent_9": policies["agent_0"]})
    with pytest.raises(ConfigError, match=r"nothing for \['agent_1', 'agent_2'\]"):
        kind.SubPolicyAction(make(), {"agent_0": policies["agent_0"]})
    with pytest.raises(CostError, match="selector_flops of 'agent_0'"):
        kind.SubPolicyAction(make(), policies, selector_flops={"agent_0": -1})


def test_a_mask_of_actions_becomes_one_of_choices() -> None:
    base = pettingzoo.make("aec", "classic/connect_four-v3")
    env = aec.SubPolicyAction(base, sub_policies(base))
    env.reset()
    observation = env.last()[0]
    assert observation["action_mask"].tolist() == [1, 1]
    assert env.observation_space("player_0").contains(observation)
    assert base.observe("player_0")["action_mask"].shape == (7,)
