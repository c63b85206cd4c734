"""Configuration of early exits. Defaults are those of the publication, and our readings where it is silent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agents.config import require
from agents.loop.method import MethodConfig
from budget_wrappers.deploy.exit_acting import Acting
from budget_wrappers.functional.gates import GateLoss
from budget_wrappers.modules.exits import resolved_depths
from budget_wrappers.selection.gates import GateTraining


@dataclass(frozen=True)
class ExitKeys:
    """The keys of early exits, in the method's own configuration and in those of its presets.

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


@dataclass(frozen=True)
class ExitsConfig(ExitKeys, MethodConfig):
    """Configuration of the method ``Exits``.

    Attributes:
        critic_learning_rate: Adam's step size for the critics, 0 for the agent's ``learning_rate``; 0 without critics.
    """

    critic_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_exit_keys(self)
        require_critic_rate(self)


def require_exit_keys(config: Any) -> None:
    """Raise unless the keys of ``ExitKeys`` are in bounds and fit each other.

    Raises:
        ConfigError: always then.
    """
    require(config.budget >= 0, "budget", config.budget, "0, the cheapest exit's cost, or more")
    taught, read = config.gate_training, config.budget_from_observation
    require(not read or taught == "budget", "gate_training", taught, "'budget' with budget_from_observation=True")
    fed = config.budget_feedback
    require(fed >= 0, "budget_feedback", fed, "0 or more")
    one = taught in ("budget", "batch_budget") and not read and config.acting == "early_exit"
    require(one or not fed, "budget_feedback", fed, "0 unless gates are taught one budget and act")
    require(config.gate_loss_scale >= 0, "gate_loss_scale", config.gate_loss_scale, "0 or more")
    require(config.gate_interval >= 1, "gate_interval", config.gate_interval, "at least 1 update")
    require(config.gate_temperature > 0, "gate_temperature", config.gate_temperature, "a number above 0")
    require(0 <= config.gate_fraction <= 1, "gate_fraction", config.gate_fraction, "a fraction in [0, 1]")
    require(config.imitation_scale >= 0, "imitation_scale", config.imitation_scale, "0 or more")


def require_depths(exit_after: tuple[int, ...], net_arch: Sequence[int]) -> tuple[int, ...]:
    """Return the exits' depths in a trunk of these layers.

    Raises:
        ConfigError: exits that are not depths of the trunk, or one exit only.
    """
    depths = resolved_depths(len(net_arch), exit_after or None)
    require(len(depths) > 1, "exit_after", exit_after, "two exits at least, or there is nothing to choose")
    return depths


def require_critic_rate(config: Any) -> None:
    """Raise unless ``critic_learning_rate`` is 0 or more.

    Raises:
        ConfigError: always then.
    """
    rate = config.critic_learning_rate
    require(rate >= 0, "critic_learning_rate", rate, "0 or more")


def require_given_budget(config: Any) -> None:
    """Raise where an offline agent is to read its budget from observations, or to correct it by what acting costs.

    Raises:
        ConfigError: always then.
    """
    read, fed = config.budget_from_observation, config.budget_feedback
    require(not read, "budget_from_observation", read, "False: a data set's observations hold no budget")
    require(not fed, "budget_feedback", fed, "0: learning from data, nothing acts whose cost could be fed back")
