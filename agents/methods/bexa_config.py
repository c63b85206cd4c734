"""Configuration of BEXA's agents: an agent's keys and those of its exits in one."""

from dataclasses import dataclass

from agents.config import require
from agents.cql import CQLConfig, DiscreteCQLConfig
from agents.dqn import DQNConfig
from agents.methods.exits_config import (
    ExitKeys,
    require_critic_rate,
    require_depths,
    require_exit_keys,
    require_given_budget,
)
from agents.sac import SACConfig
from agents.td3 import TD3Config


@dataclass(frozen=True)
class ExitSettings(ExitKeys):
    """What early exits add to an agent's configuration; see ``ExitKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_depths(self.exit_after, self.net_arch)
        require_exit_keys(self)

    @property
    def depths(self) -> tuple[int, ...]:
        """``exit_after`` as it was resolved."""
        return require_depths(self.exit_after, self.net_arch)


@dataclass(frozen=True)
class ActorExits(ExitSettings):
    """What early exits in the actor add to an agent that has critics.

    Attributes:
        critic_learning_rate: Adam's step size for the critics, 0 for ``learning_rate``.
    """

    critic_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_critic_rate(self)


@dataclass(frozen=True)
class BexaSACConfig(ActorExits, SACConfig):
    """Configuration of BEXA-SAC: SAC's keys and those of its exits."""

    learning_starts: int = 5_000


@dataclass(frozen=True)
class BexaTD3Config(ActorExits, TD3Config):
    """Configuration of BEXA-TD3: TD3's keys and those of its exits."""

    learning_rate: float = 3e-4
    learning_starts: int = 25_000


@dataclass(frozen=True)
class BexaCQLConfig(ActorExits, CQLConfig):
    """Configuration of BEXA-CQL: continuous CQL's keys and those of its exits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given_budget(self)


@dataclass(frozen=True)
class BexaDQNConfig(ExitSettings, DQNConfig):
    """Configuration of BEXA-DQN: DQN's keys and those of its exits; its values are one stream."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.dueling, "dueling", self.dueling, "False: the exits of one trunk are one stream each")


@dataclass(frozen=True)
class BexaDiscreteCQLConfig(BexaDQNConfig, DiscreteCQLConfig):
    """Configuration of discrete BEXA-CQL: discrete CQL's keys and those of its exits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given_budget(self)
