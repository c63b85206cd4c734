"""One account, one convention: what sub-policies, exits and profiles declare is what the meter counts, or it raises."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from budget_wrappers.errors import ConfigError
from budget_wrappers.metering import ComputeMeter, profile
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, FunctionPolicy, ModulePolicy
from budget_wrappers.wrappers import (
    ComputeDelayAction,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
    vector,
)
from budget_wrappers.wrappers.multi_agent import aec, parallel
from tests.gymnasium_versions import sync
from tests.wrappers.multi_agent.environments import Team, sub_policies, turns

BOTH = r"'matmul'.*'all'"


def net() -> torch.nn.Module:
    """Return 4 → 8 → 2: products are 2·(4·8 + 8·2) = 96 FLOPs; 8 + 2 biases and 8 of the ReLU make 114."""
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def module_policy(**settings: Any) -> ModulePolicy:
    return ModulePolicy(net(), lambda module, obs: module(obs).argmax(-1), np.zeros(4, np.float32), "net", **settings)


def cartpole() -> gym.Env:
    return gym.make("CartPole-v1")


def exits(**settings: Any) -> ExitPolicy:
    return ExitPolicy(EarlyExitNetwork(inputs=4, outputs=2, hidden=[8]), act=np.argmax, **settings)


def test_a_meter_of_all_operators_refuses_sub_policies_that_declare_products() -> None:
    for policy in (module_policy(), FunctionPolicy(lambda obs: 0, 96, "rule")):
        with pytest.raises(ConfigError, match=BOTH):
            SubPolicyAction(cartpole(), [policy], meter=ComputeMeter("m", "all"))


def test_a_vector_refuses_them_too() -> None:
    with pytest.raises(ConfigError, match=BOTH):
        vector.SubPolicyAction(sync([cartpole] * 2, "NextStep"), [module_policy()], meter=ComputeMeter("m", "all"))


@pytest.mark.parametrize("kind", [parallel, aec])
def test_a_team_refuses_them_too(kind: Any) -> None:
    env = Team() if kind is parallel else turns()
    meters = {agent: ComputeMeter(agent, "all" if agent == "agent_1" else "matmul") for agent in env.possible_agents}
    with pytest.raises(ConfigError, match=rf"{BOTH}"):
        kind.SubPolicyAction(env, sub_policies(env), meter=meters)


def test_exits_are_refused_too() -> None:
    meter = ComputeMeter("m", "all")
    with pytest.raises(ConfigError, match=rf"'exit 1'.*{BOTH}"):
        EarlyExitAction(cartpole(), exits(), meter=meter)
    with pytest.raises(ConfigError, match=rf"'exit 1'.*{BOTH}"):
        vector.EarlyExitAction(sync([cartpole] * 2, "NextStep"), exits(), meter=meter)


def test_a_delay_refuses_a_profile_of_another_convention() -> None:
    card = profile(net(), np.zeros((1, 4), np.float32), samples=2, warmup=1, energy_seconds=0.001)
    meter = ComputeMeter("m", "all")
    with pytest.raises(ConfigError, match=BOTH):
        ComputeDelayAction(cartpole(), card, period=0.02, meter=meter)
    with pytest.raises(ConfigError, match=BOTH):
        vector.ComputeDelayAction(sync([cartpole] * 2, "NextStep"), card, period=0.02, meter=meter)


def test_a_module_that_is_counted_in_the_meters_convention_is_charged_in_it() -> None:
    meter = ComputeMeter("m", "all")
    env = SubPolicyAction(cartpole(), [module_policy(convention="all")], hold=1, meter=meter)
    env = RecordComputeStatistics(env, meter)
    env.reset(seed=0)
    assert float(env.step(0)[-1]["cost"]) == 96 + 10 + 8


def test_exits_are_counted_in_the_convention_that_is_asked_for() -> None:
    assert exits().flops == (2 * 4 * 2, 96)
    assert exits(convention="all").flops == (2 * 4 * 2 + 2, 114)


@pytest.mark.parametrize("make", [module_policy, exits], ids=["module", "exits"])
def test_an_unknown_convention_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="convention='macs'"):
        make(convention="macs")
