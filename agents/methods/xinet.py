"""XiNet: agents whose hidden units learn whether they are needed, and whose networks get smaller while they learn.

Source: "Online Training and Pruning of Deep Reinforcement Learning Networks", the part that prunes. Each is the plain
agent given the method ``Units``, with the keys of both in one configuration.
"""

from dataclasses import dataclass

from agents.cql import CQL, CQLConfig, DiscreteCQL, DiscreteCQLConfig
from agents.dqn import DQN, DQNConfig
from agents.methods.preset import preset_of
from agents.methods.units import Units
from agents.methods.units_config import UnitKeys, require_unit_keys
from agents.sac import SAC, SACConfig
from agents.td3 import TD3, TD3Config


@dataclass(frozen=True)
class UnitSettings(UnitKeys):
    """What units that learn add to an agent's configuration; see ``UnitKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit_keys(self)


@dataclass(frozen=True)
class XiNetSACConfig(UnitSettings, SACConfig):
    """Configuration of XiNet-SAC: SAC's keys and those of its units."""


@dataclass(frozen=True)
class XiNetTD3Config(UnitSettings, TD3Config):
    """Configuration of XiNet-TD3: TD3's keys and those of its units."""


@dataclass(frozen=True)
class XiNetDQNConfig(UnitSettings, DQNConfig):
    """Configuration of XiNet-DQN: DQN's keys and those of its units."""


@dataclass(frozen=True)
class XiNetCQLConfig(UnitSettings, CQLConfig):
    """Configuration of XiNet-CQL: CQL's keys and those of its units."""


@dataclass(frozen=True)
class XiNetDiscreteCQLConfig(UnitSettings, DiscreteCQLConfig):
    """Configuration of discrete XiNet-CQL: discrete CQL's keys and those of its units."""


class XiNetSAC(SAC):
    """SAC whose hidden units learn whether they are needed.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``SAC``.
        settings: keys of ``XiNetSACConfig``.

    Raises:
        ConfigError: see ``SAC`` and ``Units``.
        InfeasibleBudgetError: a size below that of the smallest network.
    """

    config_class = XiNetSACConfig
    config: XiNetSACConfig

    preset = preset_of(Units)


class XiNetTD3(TD3):
    """TD3 whose hidden units learn whether they are needed.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``TD3``.
        settings: keys of ``XiNetTD3Config``.

    Raises:
        ConfigError: see ``TD3`` and ``Units``.
        InfeasibleBudgetError: a size below that of the smallest network.
    """

    config_class = XiNetTD3Config
    config: XiNetTD3Config

    preset = preset_of(Units)


class XiNetDQN(DQN):
    """DQN whose hidden units learn whether they are needed.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods, q_network: see ``DQN``.
        settings: keys of ``XiNetDQNConfig``.

    Raises:
        ConfigError: see ``DQN`` and ``Units``.
        InfeasibleBudgetError: a size below that of the smallest network.
    """

    config_class = XiNetDQNConfig
    config: XiNetDQNConfig

    preset = preset_of(Units)


class XiNetCQL(CQL):
    """Continuous CQL whose hidden units learn whether they are needed.

    Args:
        env, dataset, meter, methods: see ``CQL``.
        settings: keys of ``XiNetCQLConfig``.
    """

    config_class = XiNetCQLConfig
    config: XiNetCQLConfig

    preset = preset_of(Units)


class XiNetDiscreteCQL(DiscreteCQL):
    """Discrete CQL whose hidden units learn whether they are needed.

    Args:
        env, dataset, meter, methods: see ``DiscreteCQL``.
        settings: keys of ``XiNetDiscreteCQLConfig``.
    """

    config_class = XiNetDiscreteCQLConfig
    config: XiNetDiscreteCQLConfig

    preset = preset_of(Units)
