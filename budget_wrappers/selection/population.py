"""A population of networks that learn side by side, each as sparse as it has become: who leads, who replaces whom.

Source: "Eau De Q-Network: Adaptive Distillation of Neural Networks in Deep RL". Tournaments decide who goes on
(exploitation), and every duplicate gets a higher sparsity, drawn for it (exploration). Nothing here knows networks:
whoever trains them records their losses, and overwrites and prunes them as ``advance`` says.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from budget_wrappers.arguments import a_count, a_number, refuse
from budget_wrappers.errors import ConfigError
from budget_wrappers.functional.sparsity import explored_sparsity
from budget_wrappers.functional.tournament import (
    champion,
    draw_tournaments,
    inverse_loss_shares,
    replacements,
    winners,
)

Selection = Literal["loss", "random"]
"""``"loss"``: the member of the least loss wins. ``"random"``: the null model, in which random numbers stand for losses
wherever members are selected, so that selection is blind to what sparsity does."""

REGIMES = {"mild": 3.0, "ambitious": 10.0, "aggressive": 30.0}
"""The published U_max, by name."""


class Duplicate(NamedTuple):
    """A copy of one member that takes the place of another.

    Attributes:
        place: number of the member that is overwritten.
        source: number of the member that is copied.
        sparsity: that the copy gets.
    """

    place: int
    source: int
    sparsity: float


@dataclass(frozen=True)
class Exploration:
    """How members are chosen, and how fast sparsities may grow.

    Attributes:
        members: K.
        tournament: M, how many compete for each place.
        max_growth: U_max: growth is drawn uniformly from 0 to this many times the straight line to a sparsity of 1. 0
            is the dense population, which is selected and never pruned.
        growth_cap: S_max, the largest share of what is left that goes in one generation.
        end: share of the run from which on no sparsity is drawn any more.
        selection: see ``Selection``.

    Raises:
        ConfigError: a number out of bounds, or a tournament of more members than there are.
    """

    members: int = 5
    tournament: int = 3
    max_growth: float = 3.0
    growth_cap: float = 0.01
    end: float = 1.0
    selection: Selection = "loss"

    def __post_init__(self) -> None:
        a_count("members", self.members, 1)
        a_count("tournament", self.tournament, 1)
        if self.members > 1 and self.tournament > self.members:
            raise ConfigError(
                f"tournament={self.tournament} of members={self.members}: expected as many different members at most; "
                "lower tournament or add members"
            )
        for name, expected, holds in (
            ("max_growth", "0 or more times the straight line", lambda growth: growth >= 0),
            ("growth_cap", "a share in [0, 1]", lambda cap: 0 <= cap <= 1),
            ("end", "a share of the run in (0, 1]", lambda end: 0 < end <= 1),
        ):
            a_number(name, getattr(self, name), expected, holds)
        if not isinstance(self.selection, str) or self.selection not in get_args(Selection):
            refuse("selection", self.selection, f"one of {', '.join(get_args(Selection))}")


class Population:
    """Members with losses and sparsities, one of which leads.

    Args:
        exploration: how members are chosen; see ``Exploration``.

    Attributes:
        losses: of the members since the last generation, ``(K,)`` float64; whoever trains them adds to it in place.
        sparsities: of the members, ``(K,)`` float64, as they were drawn.
        crowned: number of the member that leads.
        generation: how often members were selected.
        duplicates: how many the last generation made.

    Example:
        >>> population = Population(Exploration(members=3, tournament=2, max_growth=0.0))
        >>> population.losses[:] = 4.0, 1.0, 2.0
        >>> duplicates = population.advance(10, 20, 100, np.random.default_rng(0))
        >>> population.crowned, [place for place, _, _ in duplicates]
        (1, [0])
    """

    def __init__(self, exploration: Exploration) -> None:
        if not isinstance(exploration, Exploration):
            refuse("exploration", exploration, "an Exploration")
        self.exploration = exploration
        self.losses, self.sparsities = np.zeros(exploration.members), np.zeros(exploration.members)
        self.crowned, self.generation = 0, 0
        self.duplicates = 0

    @property
    def best(self) -> int:
        """The member of the least loss now."""
        return champion(self.losses)

    def shares(self) -> np.ndarray:
        """Return the probability with which each member acts or judges, ``(K,)``; see ``inverse_loss_shares``."""
        return inverse_loss_shares(self.losses)

    def draw(self, rng: np.random.Generator) -> int:
        """Return a member drawn by ``shares``; of a single one nothing is drawn."""
        if self.exploration.members == 1:
            return 0
        return int(np.searchsorted(self.shares().cumsum(), rng.random(), side="right").clip(0, len(self.losses) - 1))

    def advance(self, step: float, next_step: float, end: float, rng: np.random.Generator) -> tuple[Duplicate, ...]:
        """Select members by their losses, crown the best one, set all losses to 0, and return the duplicates.

        A duplicate has the sparsity of its source until ``sparsities`` is told another one: ``refuse_growth``.

        Args:
            step: t, now.
            next_step: t', when members are selected next.
            end: when the last sparsities are drawn, in the unit of ``step``.
            rng: tournaments and sparsities are drawn from it.
        """
        rules, count = self.exploration, self.exploration.members
        losses = self.losses.copy()
        if rules.selection == "random":
            losses = np.where(np.isnan(losses), losses, rng.random(count))  # a member that has diverged stays one
        self.crowned = champion(losses)
        self.generation += 1
        self.losses[:] = 0.0
        if count == 1:
            return ()
        won = winners(losses, draw_tournaments(rng, count, rules.tournament))
        before = self.sparsities.copy()
        found = []
        for place, source in replacements([self.crowned, *won.tolist()], count):
            sparsity = float(before[source])
            if step < end and rules.max_growth:
                draw = rng.uniform(0.0, rules.max_growth)
                sparsity = explored_sparsity(sparsity, step, next_step, end, draw, rules.growth_cap)
            self.sparsities[place] = sparsity
            found.append(Duplicate(place, source, sparsity))
        self.duplicates = len(found)
        return tuple(found)

    def crown(self) -> None:
        """Crown the member of the least loss and set all losses to 0; nobody is overwritten."""
        self.crowned = self.best
        self.losses[:] = 0.0

    def refuse_growth(self, duplicate: Duplicate) -> None:
        """Take over that a duplicate could not be pruned and is as sparse as the member that it is a copy of.

        Args:
            duplicate: of the last generation.
        """
        self.sparsities[duplicate.place] = self.sparsities[duplicate.source]

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain data; a loss that is not finite is ``None``."""
        return {
            "crowned": self.crowned,
            "generation": self.generation,
            "duplicates": self.duplicates,
            "sparsities": self.sparsities.tolist(),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses.tolist()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned.

        Raises:
            ConfigError: a crown that is no member's, sparsities outside [0, 1), or losses below 0.
        """
        count = len(self.losses)
        sparsities = np.asarray(state["sparsities"], dtype=np.float64)
        losses = np.array([math.nan if loss is None else loss for loss in state["losses"]], dtype=np.float64)
        for name, holds, expected in (
            ("crowned", 0 <= state["crowned"] < count, f"one of the {count} members"),
            ("duplicates", 0 <= state["duplicates"] < count, f"fewer than the {count} members"),
            ("sparsities", sparsities.shape == (count,) and _in_unit(sparsities), f"{count} shares in [0, 1)"),
            ("losses", losses.shape == (count,) and not (losses < 0).any(), f"{count} losses of 0 or more"),
        ):
            if not holds:
                refuse(name, state[name], expected)
        self.crowned, self.generation, self.duplicates = (
            int(state[key]) for key in ("crowned", "generation", "duplicates")
        )
        self.sparsities[:], self.losses[:] = sparsities, losses


def _in_unit(shares: np.ndarray) -> bool:
    return bool(((shares >= 0) & (shares < 1)).all())


__all__ = ["REGIMES", "Duplicate", "Exploration", "Population", "Selection"]
