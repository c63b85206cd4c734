"""What a limit does at the end of the money: around a policy that has acted already, and over a wrapper that chooses.

Both rules answer the same questions of ``ComputeLimit``, which therefore has no case distinction of its own.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from budget_wrappers.core import Chooser
from budget_wrappers.errors import ConfigError, CostError, WrapperOrderError
from budget_wrappers.functional.options import affordable_flops, decision_flops
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.reading import find_chooser, finite_reward, finite_reward_parts

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
    """

    limit: int
    spent: int = 0
    steps: int = 0
    held_steps: int = 0

    def left(self, horizon: int | None) -> int | None:
        """Return how many primitive steps may follow; None when nothing bounds them."""
        return None if horizon is None else max(horizon - self.steps, 0)


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


class Rule(Protocol):
    """How a limit is kept."""

    horizon: int | None

    def first_decision(self) -> int:
        """Return the least that an episode spends before control comes back."""
        ...

    def before(self, budget: EpisodeBudget, collected: int) -> None:
        """Prepare a step; ``collected`` is what has been spent up to now, the selector's call included."""
        ...

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Count what a step has run and check its reward; return it with Python flags, truncated at the horizon."""
        ...

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether control must not come back to the policy."""
        ...

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Repeat the last action to the end of the episode and return the summed transition."""
        ...


class OpaqueRule:
    """Around a policy that computes its action before ``step``: late by one step at most."""

    def __init__(self, env: gym.Env, on_exhausted: OnExhausted, horizon: int | None) -> None:
        """Check that the limit can be kept at all.

        Raises:
            ConfigError: ``cheapest``, as nothing inside can choose; ``hold`` without a horizon.
        """
        if on_exhausted == "cheapest":
            raise ConfigError(
                "on_exhausted='cheapest' needs a wrapper inside that chooses (SubPolicyAction, EarlyExitAction), and "
                f"{env} has none: its policy has acted before step() is called. Use 'truncate', 'terminate' or 'hold', "
                "or give the sub-policies to SubPolicyAction."
            )
        self.horizon = horizon if horizon is not None else _time_limit(env)
        _require_horizon(env, on_exhausted, self.horizon)

    def first_decision(self) -> int:
        """Return 0: what the policy will cost is not known."""
        return 0

    def before(self, budget: EpisodeBudget, collected: int) -> None:
        """Do nothing: the policy has acted."""

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Count one step."""
        return _counted(budget, transition, 1, self.horizon)

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether everything is spent."""
        return budget.spent >= budget.limit

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Step with the same action until the episode ends or has lasted ``horizon`` steps."""
        total: Any = 0.0
        terminated = truncated = False
        while not (terminated or truncated):
            obs, reward, terminated, truncated, info = self.after(budget, env.step(action))
            total = total + reward
            budget.held_steps += 1
        return obs, total, terminated, truncated, info


class ChooserRule:
    """Over a wrapper that chooses: every choice is checked before it runs."""

    def __init__(self, env: gym.Env, chooser: Chooser, on_exhausted: OnExhausted, horizon: int | None) -> None:
        """Find out how many primitive steps an episode can last.

        Raises:
            ConfigError: a horizon is needed and unknown.
        """
        self._chooser = chooser
        self._keeps_path = on_exhausted == "cheapest"
        self._fallback: Literal["cheapest", "hold"] = "hold" if on_exhausted == "hold" else "cheapest"
        self.horizon = horizon if horizon is not None else _primitive_horizon(env, chooser)
        _require_horizon(env, on_exhausted, self.horizon)

    def _decision(self, steps_left: int | None) -> int:
        chooser = self._chooser
        return decision_flops(steps_left, chooser.durations[0], int(chooser.choice_flops[0]), chooser.selector_flops)

    def first_decision(self) -> int:
        """Return what one selector call and the cheapest choice cost, for the shortest duration."""
        return self._decision(self.horizon)

    def before(self, budget: EpisodeBudget, collected: int) -> None:
        """Check the selector's charge and tell the chooser what its choice may spend.

        Raises:
            CostError: the selector has cost more than it declares, so no promise about it can be kept.
        """
        chooser = self._chooser
        selector = collected - budget.spent
        if selector > chooser.selector_flops:
            raise CostError(
                f"The selector was charged {selector} FLOPs for one choice and {chooser.selector_flops} are declared; "
                "a hard limit has to know them beforehand. Pass selector_flops= to the wrapper that chooses, or call "
                "its set_selector_flops: the most that one choice costs."
            )
        budget.spent = collected
        remaining, left = budget.limit - collected, budget.left(self.horizon)
        hold, cheapest = chooser.durations[-1], int(chooser.choice_flops[0])
        kept = left if self._keeps_path else None
        chooser.restrict(Left(remaining, kept, hold, cheapest, chooser.selector_flops), left, self._fallback)

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Count the primitive steps of a choice."""
        info = transition[4]
        duration = int(info.get("duration", 1))
        if info.get("option", 0) < 0:  # nothing was affordable: the chooser has repeated the last action
            budget.held_steps += duration
        return _counted(budget, transition, duration, self.horizon)

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether the next selector call and the cheapest choice after it can't be paid."""
        return budget.limit - budget.spent < self._decision(budget.left(self.horizon))

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Let the chooser repeat its last primitive action; wrappers between see one more long step."""
        left = budget.left(self.horizon) or 0
        self._chooser.restrict(Left(0), 1, "hold")  # should a wrapper between step the chooser more often than once
        self._chooser.hold_last_action(left)
        obs, reward, terminated, truncated, info = self.after(budget, env.step(action))
        return obs, reward, terminated, truncated or not terminated, info


def merge_infos(first: dict[str, Any], last: dict[str, Any], summed: tuple[str, ...]) -> dict[str, Any]:
    """Return ``last`` with the counts of both steps, and the option that was chosen in the first."""
    merged = dict(last)
    for key in summed:
        if key in first and key in last:
            merged[key] = np.float64(first[key] + last[key])
    if "option" in first:
        merged["option"] = first["option"]
    return merged


def make_rule(env: gym.Env, meter: ComputeMeter, on_exhausted: OnExhausted, horizon: int | None) -> Rule:
    """Return how to limit ``env``: hard where a layer of it chooses.

    Raises:
        ConfigError: the limit cannot be kept like this.
        WrapperOrderError: the layer that chooses charges another meter.
    """
    chooser = find_chooser(env)
    if chooser is None:
        return OpaqueRule(env, on_exhausted, horizon)
    theirs = getattr(chooser, "meter", meter)
    if theirs is not meter:
        raise WrapperOrderError(
            f"{chooser} charges meter {theirs.name!r} and this limit reads {meter.name!r}, so it would limit nothing. "
            "Give both the same meter."
        )
    return ChooserRule(env, chooser, on_exhausted, horizon)


def _counted(budget: EpisodeBudget, transition: Transition, steps: int, horizon: int | None) -> Transition:
    obs, reward, terminated, truncated, info = transition
    budget.steps += steps
    # The reward itself goes on as it came.
    if isinstance(reward, np.ndarray) and reward.ndim == 1:
        finite_reward_parts(reward, budget.steps)
    else:
        finite_reward(reward, budget.steps)
    return obs, reward, bool(terminated), bool(truncated) or budget.left(horizon) == 0, info


def _time_limit(env: gym.Env) -> int | None:
    """Return after how many of its steps ``env`` truncates; an environment without a spec may have the wrapper."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            return layer._max_episode_steps
        layer = layer.env
    return None


def _primitive_horizon(env: gym.Env, chooser: Chooser) -> int | None:
    """Return the chooser's own time limit, or that of a wrapper around it, which counts decisions."""
    inside = _time_limit(getattr(chooser, "env", chooser))
    if inside is not None:
        return inside
    outside = _time_limit(env)
    return None if outside is None else outside * chooser.durations[-1]


def _require_horizon(env: gym.Env, on_exhausted: OnExhausted, horizon: int | None) -> None:
    if horizon is None and on_exhausted in ("cheapest", "hold"):
        raise ConfigError(
            f"on_exhausted={on_exhausted!r} needs to know how many steps an episode can last, and {env} has no time "
            "limit. Pass horizon=, or make the environment with max_episode_steps=."
        )
    require_whole_horizon(horizon)


def require_whole_horizon(horizon: int | None) -> None:
    """Check a number of steps, or ``None`` for no such end; raises ConfigError."""
    if horizon is not None and (not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 1):
        raise ConfigError(f"horizon={horizon!r}; expected a whole number of steps >= 1.")


__all__ = [
    "ChooserRule",
    "EpisodeBudget",
    "OnExhausted",
    "OpaqueRule",
    "Rule",
    "Transition",
    "make_rule",
    "merge_infos",
    "require_whole_horizon",
]
