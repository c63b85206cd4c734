"""Configuration of BEXA's agents. Defaults are those of the publication, and our readings where it is silent."""

from dataclasses import dataclass
from typing import Any, Literal

from agents.config import require
from agents.cql import CQLConfig, DiscreteCQLConfig
from agents.dqn import DQNConfig
from agents.sac import SACConfig
from agents.td3 import TD3Config
from budget_wrappers.deploy.exit_acting import Acting
from budget_wrappers.functional.gates import GateLoss
from budget_wrappers.modules.exits import resolved_depths
from budget_wrappers.selection.gates import GateTraining


@dataclass(frozen=True)
class ExitSettings:
    """What early exits add to an agent's configuration.

    Attributes:
        exit_after: hidden layers before each exit, ascending; empty for an exit after every layer and one on the
            observation itself.
        budget: b, mean cost of acting: 0 for the cheapest exit only, 1 for the dearest whenever it pays. Read where
            ``gate_training`` is ``"budget"`` or ``"batch_budget"``; the others spend whatever exits are worth to them.
        budget_from_observation: whether b is the last number of each observation, which ``BudgetAwareObservation`` with
            ``what="budget"`` puts there, instead of ``budget``: one agent then learns every budget.
        budget_feedback: step by which the programs' budget is corrected for what acting cost, at each action; 0 for
            none, as published.
        gate_training: what teaches the gates, see ``budget_wrappers.selection.gates.GateTraining``.
        gate_loss: see ``budget_wrappers.functional.gates.GateLoss``.
        gate_loss_scale: weight of the gates' loss beside the actor's.
        gate_interval: actor updates between two with the gates' loss.
        gate_temperature: of ``gate_training="softmax"``.
        gate_fraction: of ``gate_training="fraction"``.
        gate: how gates open when acting is deterministic: drawn, or from a probability of ½ on. A threshold makes
            the same choice in every state that looks alike, whatever the budget.
        acting: through the gates, by the last exit only, or by the mean of all.
        exit_training: whether every exit learns by itself, or the last one does and the others imitate it.
        imitation_scale: weight of that.
        scheme: one gradient step of all exits together, or one for each with the others frozen.
    """

    exit_after: tuple[int, ...] = ()
    budget: float = 0.5
    budget_from_observation: bool = False
    budget_feedback: float = 0.0
    gate_training: GateTraining = "budget"
    gate_loss: GateLoss = "per_gate"
    gate_loss_scale: float = 1e-2
    gate_interval: int = 1
    gate_temperature: float = 1.0
    gate_fraction: float = 0.9
    gate: Literal["sample", "threshold"] = "sample"
    acting: Acting = "early_exit"
    exit_training: Literal["all_exits", "imitate"] = "all_exits"
    imitation_scale: float = 0.1
    scheme: Literal["jointly", "stepwise"] = "jointly"

    def __post_init__(self) -> None:
        super().__post_init__()
        depths = resolved_depths(len(self.net_arch), self.exit_after or None)  # raises
        require(len(depths) > 1, "exit_after", self.exit_after, "two exits at least, or there is nothing to choose")
        require(self.budget >= 0, "budget", self.budget, "0, the cheapest exit's cost, or more")
        taught, read = self.gate_training, self.budget_from_observation
        require(not read or taught == "budget", "gate_training", taught, "'budget' with budget_from_observation=True")
        fed = self.budget_feedback
        require(fed >= 0, "budget_feedback", fed, "0 or more")
        one = taught in ("budget", "batch_budget") and not read and self.acting == "early_exit"
        require(one or not fed, "budget_feedback", fed, "0 unless gates are taught one budget and act")
        require(self.gate_loss_scale >= 0, "gate_loss_scale", self.gate_loss_scale, "0 or more")
        require(self.gate_interval >= 1, "gate_interval", self.gate_interval, "at least 1 update")
        require(self.gate_temperature > 0, "gate_temperature", self.gate_temperature, "a number above 0")
        require(0 <= self.gate_fraction <= 1, "gate_fraction", self.gate_fraction, "a fraction in [0, 1]")
        require(self.imitation_scale >= 0, "imitation_scale", self.imitation_scale, "0 or more")

    @property
    def depths(self) -> tuple[int, ...]:
        """``exit_after`` as it was resolved."""
        return resolved_depths(len(self.net_arch), self.exit_after or None)


@dataclass(frozen=True)
class ActorExits(ExitSettings):
    """What early exits in the actor add to an agent that has critics.

    Attributes:
        critic_learning_rate: Adam's step size for the critics, 0 for ``learning_rate``.
    """

    critic_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.critic_learning_rate >= 0, "critic_learning_rate", self.critic_learning_rate, "0 or more")

    @property
    def critic_heads(self) -> int:
        """K, or 1 where the one critic of the last exit scores them all."""
        return 1 if self.exit_training == "imitate" else len(self.depths)

    @property
    def critic_rate(self) -> dict[str, Any]:
        """Step size of the critics, as an optimizer takes it."""
        return {"lr": self.critic_learning_rate or self.learning_rate}


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


def require_given_budget(config: ExitSettings) -> None:
    """Raise where an offline agent is to read its budget from observations, or to correct it by what acting costs.

    Raises:
        ConfigError: always then.
    """
    read, fed = config.budget_from_observation, config.budget_feedback
    require(not read, "budget_from_observation", read, "False: a data set's observations hold no budget")
    require(not fed, "budget_feedback", fed, "0: learning from data, nothing acts whose cost could be fed back")
