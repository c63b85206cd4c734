"""Configuration of PolyPrune. Defaults are the published ones."""

from dataclasses import dataclass
from typing import Any

from agents.config import require
from agents.loop.method import MethodConfig
from budget_wrappers.functional.sparsity import Distribution, PolynomialSchedule


@dataclass(frozen=True)
class PolyPruneKeys:
    """The keys of PolyPrune, in the method's own configuration and in those of its presets.

    Attributes:
        final: sparsity of the critics, of DQN its network's, once pruning is complete; biases are kept.
        power: exponent of the schedule.
        start: share of the run after which pruning begins.
        end: share of the run at which it is complete.
        every: updates between two growths of the masks; at the end they grow in any case.
        at_targets: whether masks grow right after each move of the target network instead, of which what learns is then
            a pruned copy (DistillQN).
        distribution: shares of the layers, see ``budget_wrappers.functional.sparsity.Distribution``.
        actor_final: sparsity of an actor beside critics; 0 leaves it dense.
        actor_start: see ``start``.
        actor_end: see ``end``.
    """

    final: float = 0.95
    power: float = 3.0
    start: float = 0.2
    end: float = 0.8
    every: int = 1_000
    at_targets: bool = False
    distribution: Distribution = "erk"
    actor_final: float = 0.0
    actor_start: float = 0.2
    actor_end: float = 0.8


def schedules_of(config: Any) -> tuple[PolynomialSchedule, PolynomialSchedule]:
    """Return the schedule of the critics or of DQN's network, and the actor's.

    Raises:
        ConfigError: see ``PolynomialSchedule``; no update between two growths.
    """
    require(config.every >= 1, "every", config.every, "at least 1 update")
    main = PolynomialSchedule(config.start, config.end, config.final, config.power)
    return main, PolynomialSchedule(config.actor_start, config.actor_end, config.actor_final, config.power, "actor_")


@dataclass(frozen=True)
class PolyPruneConfig(PolyPruneKeys, MethodConfig):
    """Configuration of ``PolyPrune``; see ``PolyPruneKeys``. Defaults are the published ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        schedules_of(self)  # raises


__all__ = ["PolyPruneConfig", "PolyPruneKeys", "schedules_of"]
