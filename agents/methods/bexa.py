"""BEXA: agents whose policies leave early, through gates that a linear program teaches to keep a budget.

Source: "Mind the Budget: Accelerating DRL Using Early Exit Neural Networks". Each is the plain agent given the method
``Exits``, with the keys of both in one configuration.
"""

from agents.cql import CQL, DiscreteCQL
from agents.dqn import DQN
from agents.methods.bexa_config import (
    BexaCQLConfig,
    BexaDiscreteCQLConfig,
    BexaDQNConfig,
    BexaSACConfig,
    BexaTD3Config,
)
from agents.methods.exits import Exits
from agents.methods.preset import preset_of
from agents.sac import SAC
from agents.td3 import TD3


class BexaSAC(SAC):
    """SAC with early exits under a budget.

    Policy and temperature take one step each update, as SAC's do; the publication's take two every second one.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods: see ``OffPolicyAgent``.
        settings: keys of ``BexaSACConfig``.

    Raises:
        ConfigError: see ``SAC``; exits that are not depths of the trunk, a budget below 0.
    """

    config_class = BexaSACConfig
    config: BexaSACConfig

    preset = preset_of(Exits)


class BexaTD3(TD3):
    """TD3 with early exits under a budget.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods: see ``OffPolicyAgent``.
        settings: keys of ``BexaTD3Config``.

    Raises:
        ConfigError: see ``TD3``; exits that are not depths of the trunk, a budget below 0.
    """

    config_class = BexaTD3Config
    config: BexaTD3Config

    preset = preset_of(Exits)


class BexaDQN(DQN):
    """DQN with early exits under a budget: exit i says ``Q_i(s, ·)`` and learns from its own target.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods: see ``OffPolicyAgent``.
        settings: keys of ``BexaDQNConfig``.

    Raises:
        ConfigError: see ``DQN``; exits that are not depths of the trunk, a budget below 0, ``dueling``.
    """

    config_class = BexaDQNConfig
    config: BexaDQNConfig

    preset = preset_of(Exits)


class BexaCQL(CQL):
    """Continuous CQL with early exits under a budget.

    Args:
        env, dataset, meter, methods: see ``CQL``.
        settings: keys of ``BexaCQLConfig``.
    """

    config_class = BexaCQLConfig
    config: BexaCQLConfig

    preset = preset_of(Exits)


class BexaDiscreteCQL(DiscreteCQL):
    """Discrete CQL with early exits under a budget.

    Args:
        env, dataset, meter, methods: see ``DiscreteCQL``.
        settings: keys of ``BexaDiscreteCQLConfig``.
    """

    config_class = BexaDiscreteCQLConfig
    config: BexaDiscreteCQLConfig

    preset = preset_of(Exits)
