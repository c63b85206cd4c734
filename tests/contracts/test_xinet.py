"""Agents whose units learn whether they are needed keep the contract of agents."""

from typing import Any, ClassVar

from agents import XiNetCQL, XiNetDiscreteCQL, XiNetDQN, XiNetSAC, XiNetTD3

# The module and not its classes, which would be collected here a second time.
from tests.contracts import test_agents as plain
from tests.contracts.agent import OnlineContract

UNIT_KEYS: dict[str, Any] = {
    "max_parameters": 25,
    "max_flops": 40,
    # A device's profile is a file: tests/agents/methods/test_units.py.
    "max_latency_us": 0.0,
    "device_profile": "",
    "unit_penalty": 1e-3,
    "learn_from": 0.0,
    "fix_from": 0.5,
    "drop_below": 0.4,
    "prune_every": 1,
    "unit_optimizer": "sgd",
    "unit_learning_rate": 0.1,
}
CRITIC_KEYS = {**UNIT_KEYS, "max_critic_parameters": 80, "critic_unit_penalty": 1e-3}
ALONE = {**UNIT_KEYS, "max_critic_parameters": 0, "critic_unit_penalty": 0.0}


class TestXiNetSAC(OnlineContract):
    agent_class = XiNetSAC
    flips: ClassVar = {**plain.TestSAC.flips, **CRITIC_KEYS}

    losses = plain.TestSAC.losses
    torch_actions = plain.TestSAC.torch_actions


class TestXiNetTD3(OnlineContract):
    agent_class = XiNetTD3
    flips: ClassVar = {**plain.TestTD3.flips, **CRITIC_KEYS}

    losses = plain.TestTD3.losses
    torch_actions = plain.TestTD3.torch_actions


class TestXiNetDQN(OnlineContract):
    agent_class = XiNetDQN
    discrete = True
    flips: ClassVar = {**plain.TestDQN.flips, **ALONE}

    losses = plain.TestDQN.losses
    torch_actions = plain.TestDQN.torch_actions


class TestXiNetCQL(plain.OfflineContract):
    agent_class = XiNetCQL
    settings: ClassVar = plain.TestCQL.settings
    flips: ClassVar = {**plain.TestCQL.flips, **CRITIC_KEYS}

    losses = plain.TestCQL.losses
    torch_actions = plain.TestCQL.torch_actions


class TestXiNetDiscreteCQL(plain.OfflineContract):
    agent_class = XiNetDiscreteCQL
    discrete = True
    flips: ClassVar = {**plain.TestDiscreteCQL.flips, **ALONE}

    losses = plain.TestDiscreteCQL.losses
    torch_actions = plain.TestDiscreteCQL.torch_actions
