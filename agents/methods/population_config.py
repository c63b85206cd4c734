"""Configuration of populations. Defaults are the published ones."""

from dataclasses import dataclass
from typing import Any, Literal

from agents.config import require
from agents.loop.method import MethodConfig
from budget_wrappers.functional.sparsity import Distribution
from budget_wrappers.selection.population import REGIMES, Exploration, Selection

EVERY_UPDATES, EVERY_TARGETS = 1_000, 1


@dataclass(frozen=True)
class PopulationKeys:
    """The keys of a population, in the method's own configuration and in those of its presets.

    Attributes:
        members: K, networks that learn side by side; of twins so many for each.
        tournament: M, how many of them compete for each place; at most ``members``.
        max_growth: U_max, how many times as steep as a straight line to a sparsity of 1 sparsities may grow; 0 for the
            dense population, which is selected and never pruned. ``"ambitious"`` is 10, ``"aggressive"`` 30.
        growth_cap: S_max, the largest share of the remaining weights that goes in one generation. What a population
            can reach depends on it times the number of generations.
        growth_end: share of the run from which on no sparsity is drawn.
        selection: ``"loss"``, or ``"random"`` for the null model, blind to what sparsity does.
        selection_loss: ``"td"``, the squared error of temporal differences, or ``"full"``, what is stepped down.
        generation_every: updates between two selections of critics.
        generation_targets: moves of the target network between two selections of networks that say values.
        mask_distribution: shares of the layers, see ``budget_wrappers.functional.sparsity.Distribution``.
    """

    members: int = 5
    tournament: int = 3
    max_growth: float | Literal["ambitious", "aggressive"] = 3.0
    growth_cap: float = 0.01
    growth_end: float = 1.0
    selection: Selection = "loss"
    selection_loss: Literal["td", "full"] = "td"
    generation_every: int = EVERY_UPDATES
    generation_targets: int = EVERY_TARGETS
    mask_distribution: Distribution = "erk"


def exploration_of(config: Any) -> Exploration:
    """Return how members are chosen.

    Raises:
        ConfigError: a number out of bounds, or a tournament of more members than there are.
    """
    growth = config.max_growth
    return Exploration(
        config.members,
        config.tournament,
        REGIMES[growth] if isinstance(growth, str) else growth,
        config.growth_cap,
        config.growth_end,
        config.selection,
    )


def require_population_keys(config: Any) -> None:
    """Raise for values of ``PopulationKeys`` out of bounds.

    Raises:
        ConfigError: the first of them.
    """
    require(config.growth_end > 0, "growth_end", config.growth_end, "a share of the run in (0, 1]")
    exploration_of(config)  # raises
    require(config.generation_every >= 1, "generation_every", config.generation_every, "1 update or more")
    require(config.generation_targets >= 1, "generation_targets", config.generation_targets, "1 move or more")


@dataclass(frozen=True)
class PopulationConfig(PopulationKeys, MethodConfig):
    """Configuration of ``Population``; see ``PopulationKeys``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_population_keys(self)


__all__ = ["EVERY_TARGETS", "EVERY_UPDATES", "PopulationConfig", "PopulationKeys", "exploration_of"]
