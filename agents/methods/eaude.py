"""Agents of "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL", as published.

EauDe agents find their sparsity while they learn, PolyPrune agents follow a schedule to a sparsity that is given, and
Distill agents do so at each move of the target network. Each is the plain agent given the method ``Population`` or
``PolyPrune``, with the keys of both in one configuration; networks of values learn from the squared error.
"""

from dataclasses import dataclass
from typing import Literal

from agents.cql import DiscreteCQL, DiscreteCQLConfig
from agents.dqn import DQN, DQNConfig
from agents.methods.polyprune import PolyPrune
from agents.methods.polyprune_config import PolyPruneKeys, schedules_of
from agents.methods.population import Population
from agents.methods.population_config import PopulationKeys, require_population_keys
from agents.methods.preset import preset_of
from agents.sac import SAC, SACConfig
from agents.td3 import TD3, TD3Config


@dataclass(frozen=True)
class PopulationSettings(PopulationKeys):
    """What a population adds to an agent's configuration; see ``PopulationKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_population_keys(self)


@dataclass(frozen=True)
class PolyPruneSettings(PolyPruneKeys):
    """What PolyPrune adds to an agent's configuration; see ``PolyPruneKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        schedules_of(self)  # raises


@dataclass(frozen=True)
class EauDeDQNConfig(PopulationSettings, DQNConfig):
    """Configuration of ``EauDeDQN``: the keys of DQN and of ``Population``."""

    loss: Literal["huber", "squared"] = "squared"


class EauDeDQN(DQN):
    """DQN whose Q-networks become sparse at their own pace.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods, q_network: see ``DQN``.
        settings: keys of ``EauDeDQNConfig``.

    Raises:
        ConfigError: see ``DQN`` and ``Population``.
    """

    config_class = EauDeDQNConfig
    config: EauDeDQNConfig

    preset = preset_of(Population)


@dataclass(frozen=True)
class EauDeDiscreteCQLConfig(PopulationSettings, DiscreteCQLConfig):
    """Configuration of ``EauDeDiscreteCQL``: the keys of discrete CQL and of ``Population``."""

    loss: Literal["huber", "squared"] = "squared"


class EauDeDiscreteCQL(DiscreteCQL):
    """Discrete CQL whose Q-networks become sparse at their own pace.

    Args:
        env, dataset, meter, methods, q_network: see ``DiscreteCQL``.
        settings: keys of ``EauDeDiscreteCQLConfig``.

    Raises:
        ConfigError: see ``DiscreteCQL`` and ``Population``.
    """

    config_class = EauDeDiscreteCQLConfig
    config: EauDeDiscreteCQLConfig

    preset = preset_of(Population)


@dataclass(frozen=True)
class EauDeSACConfig(PopulationSettings, SACConfig):
    """Configuration of ``EauDeSAC``: the keys of SAC and of ``Population``."""


class EauDeSAC(SAC):
    """SAC whose critics become sparse at their own pace.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``SAC``.
        settings: keys of ``EauDeSACConfig``.

    Raises:
        ConfigError: see ``SAC`` and ``Population``.
    """

    config_class = EauDeSACConfig
    config: EauDeSACConfig

    preset = preset_of(Population)


@dataclass(frozen=True)
class EauDeTD3Config(PopulationSettings, TD3Config):
    """Configuration of ``EauDeTD3``: the keys of TD3 and of ``Population``."""


class EauDeTD3(TD3):
    """TD3 whose critics become sparse at their own pace.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``TD3``.
        settings: keys of ``EauDeTD3Config``.

    Raises:
        ConfigError: see ``TD3`` and ``Population``.
    """

    config_class = EauDeTD3Config
    config: EauDeTD3Config

    preset = preset_of(Population)


@dataclass(frozen=True)
class PolyPruneDQNConfig(PolyPruneSettings, DQNConfig):
    """Configuration of ``PolyPruneDQN``: the keys of DQN and of ``PolyPrune``."""

    loss: Literal["huber", "squared"] = "squared"


class PolyPruneDQN(DQN):
    """DQN whose network loses its smallest weights on a schedule.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods, q_network: see ``DQN``.
        settings: keys of ``PolyPruneDQNConfig``.

    Raises:
        ConfigError: see ``DQN`` and ``PolyPrune``.
    """

    config_class = PolyPruneDQNConfig
    config: PolyPruneDQNConfig

    preset = preset_of(PolyPrune)


@dataclass(frozen=True)
class PolyPruneDiscreteCQLConfig(PolyPruneSettings, DiscreteCQLConfig):
    """Configuration of ``PolyPruneDiscreteCQL``: the keys of discrete CQL and of ``PolyPrune``."""

    loss: Literal["huber", "squared"] = "squared"


class PolyPruneDiscreteCQL(DiscreteCQL):
    """Discrete CQL whose network loses its smallest weights on a schedule.

    Args:
        env, dataset, meter, methods, q_network: see ``DiscreteCQL``.
        settings: keys of ``PolyPruneDiscreteCQLConfig``.

    Raises:
        ConfigError: see ``DiscreteCQL`` and ``PolyPrune``.
    """

    config_class = PolyPruneDiscreteCQLConfig
    config: PolyPruneDiscreteCQLConfig

    preset = preset_of(PolyPrune)


@dataclass(frozen=True)
class PolyPruneSACConfig(PolyPruneSettings, SACConfig):
    """Configuration of ``PolyPruneSAC``: the keys of SAC and of ``PolyPrune``."""


class PolyPruneSAC(SAC):
    """SAC whose critics lose their smallest weights on a schedule.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``SAC``.
        settings: keys of ``PolyPruneSACConfig``.

    Raises:
        ConfigError: see ``SAC`` and ``PolyPrune``.
    """

    config_class = PolyPruneSACConfig
    config: PolyPruneSACConfig

    preset = preset_of(PolyPrune)


@dataclass(frozen=True)
class PolyPruneTD3Config(PolyPruneSettings, TD3Config):
    """Configuration of ``PolyPruneTD3``: the keys of TD3 and of ``PolyPrune``."""


class PolyPruneTD3(TD3):
    """TD3 whose critics lose their smallest weights on a schedule.

    Args:
        env: with a bounded ``Box`` action space.
        meter, methods, actor, critic: see ``TD3``.
        settings: keys of ``PolyPruneTD3Config``.

    Raises:
        ConfigError: see ``TD3`` and ``PolyPrune``.
    """

    config_class = PolyPruneTD3Config
    config: PolyPruneTD3Config

    preset = preset_of(PolyPrune)


@dataclass(frozen=True)
class DistillDQNConfig(PolyPruneSettings, DQNConfig):
    """Configuration of ``DistillDQN``: the keys of DQN and of ``PolyPrune``."""

    loss: Literal["huber", "squared"] = "squared"
    at_targets: bool = True


class DistillDQN(DQN):
    """DQN that learns in a pruned copy of its target network.

    Args:
        env: with a ``Discrete`` action space.
        meter, methods, q_network: see ``DQN``.
        settings: keys of ``DistillDQNConfig``.

    Raises:
        ConfigError: see ``DQN`` and ``PolyPrune``.
    """

    config_class = DistillDQNConfig
    config: DistillDQNConfig

    preset = preset_of(PolyPrune)


@dataclass(frozen=True)
class DistillDiscreteCQLConfig(PolyPruneSettings, DiscreteCQLConfig):
    """Configuration of ``DistillDiscreteCQL``: the keys of discrete CQL and of ``PolyPrune``."""

    loss: Literal["huber", "squared"] = "squared"
    at_targets: bool = True


class DistillDiscreteCQL(DiscreteCQL):
    """Discrete CQL that learns in a pruned copy of its target network.

    Args:
        env, dataset, meter, methods, q_network: see ``DiscreteCQL``.
        settings: keys of ``DistillDiscreteCQLConfig``.

    Raises:
        ConfigError: see ``DiscreteCQL`` and ``PolyPrune``.
    """

    config_class = DistillDiscreteCQLConfig
    config: DistillDiscreteCQLConfig

    preset = preset_of(PolyPrune)
