"""What an episode under a limit has spent, and what ``ComputeLimit`` asks of the rule that keeps the limit."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np

from budget_wrappers.core import Allowance
from budget_wrappers.functional.options import affordable_flops
from budget_wrappers.wrappers.horizon import Horizon
from budget_wrappers.wrappers.reading import finite_reward, finite_reward_parts

OnExhausted = Literal["cheapest", "hold", "truncate", "terminate"]
Transition = tuple[Any, Any, bool, bool, dict[str, Any]]


@dataclass
class EpisodeBudget:
    """One episode under a limit.

    Attributes:
        limit: FLOPs that it may spend.
        spent: FLOPs that it has spent.
        steps: primitive steps that it has lasted.
        held_steps: those of them that a limit ran by itself, repeating the last action.
        failed: whether the last step raised, so that what follows a step was not done.
        ended_inside: whether the environment has ended it, and not only the limit.
    """

    limit: int
    spent: int = 0
    steps: int = 0
    held_steps: int = 0
    failed: bool = False
    ended_inside: bool = False

    @property
    def remaining(self) -> int:
        """FLOPs that are left, negative where the limit was passed."""
        return self.limit - self.spent


@dataclass(frozen=True)
class Left:
    """What a choice may spend: a ``core.Allowance``, as data, so that a copy of the environment has it too.

    Attributes:
        remaining: FLOPs of the limit that are left.
        steps_left: primitive steps for which the cheapest path has to stay affordable; None keeps nothing back.
        hold, cheapest, selector: of that path, see ``affordable_flops``.
    """

    remaining: int
    steps_left: int | None = None
    hold: int = 1
    cheapest: int = 0
    selector: int = 0

    def __call__(self, steps: int) -> int:
        """Return the FLOPs that a choice of ``steps`` primitive steps may spend."""
        if self.steps_left is None:
            return self.remaining
        return affordable_flops(self.remaining, self.steps_left, self.hold, self.cheapest, self.selector, steps)


@dataclass(frozen=True)
class Reduced:
    """Another allowance, of which ``flops`` are spent already; data, as ``Left`` is."""

    allowance: Allowance
    flops: int

    def __call__(self, steps: int) -> int:
        """Return the FLOPs that a choice of ``steps`` primitive steps may spend."""
        return self.allowance(steps) - self.flops


def reduced(allowance: Allowance, flops: int) -> Allowance:
    """Return ``allowance`` after ``flops`` of it were spent: on the selector, when it is asked inside the step.

    What a limit leaves is not linear where the cheapest path is out of reach, so ``Left`` is made anew: then a selector
    inside leaves as much to its choice as one outside, which has paid before the step.
    """
    if isinstance(allowance, Left):
        return replace(allowance, remaining=allowance.remaining - flops)
    return Reduced(allowance, flops)


class Rule(Protocol):
    """How a limit is kept."""

    horizon: Horizon

    def first_decision(self) -> int:
        """Return the least that an episode spends before control comes back."""
        ...

    def resetting(self) -> AbstractContextManager[None]:
        """While this lasts, the limit resets the episode."""
        ...

    def begin(self) -> None:
        """Begin an episode."""
        ...

    def before(self, budget: EpisodeBudget, selector: int) -> None:
        """Prepare a step; ``selector`` is what has been spent since the last one, and is in the budget already."""
        ...

    def settle(self, budget: EpisodeBudget) -> None:
        """Count the primitive steps that have run, also those of a step that has raised."""
        ...

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Settle a step and check its reward; return it with Python flags, truncated at the horizon."""
        ...

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether control must not come back to the policy."""
        ...

    def stuck(self, budget: EpisodeBudget, acted: int) -> bool:
        """Return, for the step after one that has raised, whether nothing may run any more.

        Args:
            budget: of the episode; what was spent up to this step is in it.
            acted: FLOPs of that which were spent since the step that has raised: the caller has acted again.
        """
        ...

    def can_hold(self, budget: EpisodeBudget, asked: bool) -> bool:
        """Return, after a failure, whether an action can be held; ``asked``: the selector was charged again for it."""
        ...

    def ends(self) -> tuple[bool, bool]:
        """Return whether the environment has terminated and truncated the episode in a step that has raised."""
        ...

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Repeat the last action to the end of the episode and return the summed transition."""
        ...


def merge_infos(first: dict[str, Any], last: dict[str, Any], summed: tuple[str, ...]) -> dict[str, Any]:
    """Return ``last`` with the counts of both steps, and the option that was chosen in the first."""
    merged = dict(last)
    for key in summed:
        if key in first and key in last:
            merged[key] = np.float64(first[key] + last[key])
    if "option" in first:
        merged["option"] = first["option"]
    return merged


def checked(budget: EpisodeBudget, transition: Transition, horizon: Horizon) -> Transition:
    """Return a transition with Python flags, truncated where no step is left; raises NonFiniteError, SpaceError."""
    obs, reward, terminated, truncated, info = transition
    # The reward itself goes on as it came.
    if isinstance(reward, np.ndarray) and reward.ndim == 1:
        finite_reward_parts(reward, budget.steps)
    else:
        finite_reward(reward, budget.steps)
    terminated, truncated = bool(terminated), bool(truncated)
    budget.ended_inside = terminated or truncated
    return obs, reward, terminated, truncated or horizon.left(budget.steps) == 0, info


__all__ = [
    "EpisodeBudget",
    "Left",
    "OnExhausted",
    "Reduced",
    "Rule",
    "Transition",
    "checked",
    "merge_infos",
    "reduced",
]
