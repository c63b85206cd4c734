"""How a limit is kept: around a policy that has acted already, and over a wrapper that chooses.

Both rules answer the same questions of ``ComputeLimit``, which therefore has no case distinction of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import Autoreset
from numpy.typing import NDArray

from budget_wrappers.core import Chooser
from budget_wrappers.errors import ConfigError, CostError, WrapperOrderError
from budget_wrappers.functional.options import decision_flops
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.choosing import HELD, ChooserWrapper, wrappers_of
from budget_wrappers.wrappers.exhaustion import EpisodeBudget, Left, OnExhausted, Rule, Transition, checked
from budget_wrappers.wrappers.horizon import Horizon
from budget_wrappers.wrappers.reading import find_chooser


class OpaqueRule:
    """Around a policy that computes its action before ``step``: late by one step, and after a failure by one action."""

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
        self.horizon = Horizon(env, None, horizon)
        _require_horizon(env, on_exhausted, self.horizon.most)
        self._holds = on_exhausted == "hold"

    def first_decision(self) -> int:
        """Return 0: what the policy will cost is not known."""
        return 0

    @contextmanager
    def resetting(self) -> Iterator[None]:
        """Do nothing: the limit itself counts what is charged meanwhile."""
        yield

    def begin(self) -> None:
        """Do nothing."""

    def before(self, budget: EpisodeBudget, selector: int) -> None:
        """Do nothing: the policy has acted."""
        self.horizon.open_step()

    def settle(self, budget: EpisodeBudget) -> None:
        """Do nothing: a step that has raised was none."""

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Count one step."""
        budget.steps += 1
        self.horizon.close_step(1)
        return checked(budget, transition, self.horizon)

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether everything is spent."""
        return budget.remaining <= 0

    def stuck(self, budget: EpisodeBudget, acted: int) -> bool:
        """Return whether the episode has lasted as long as it may, or has spent what it may.

        A limit that holds can still go on, as holding is free, unless the policy has acted although nothing was left:
        where holding raises again and again it would do so each time.
        """
        if self.horizon.left(budget.steps) == 0:
            return True
        return self.exhausted(budget) and not (self._holds and (acted == 0 or budget.remaining + acted > 0))

    def can_hold(self, budget: EpisodeBudget, asked: bool) -> bool:
        """Return False: an episode that is stuck holds nothing."""
        return False

    def ends(self) -> tuple[bool, bool]:
        """Return that nothing is known of an end inside a step that has raised."""
        return False, False

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Step with the same action until the episode ends or has lasted as long as it may."""
        total: Any = 0.0
        terminated = truncated = False
        while not (terminated or truncated):
            self.horizon.open_step()
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
        # Another package's chooser has the protocol only: what it ran stands in info, and its resets go unseen.
        self._ours = chooser if isinstance(chooser, ChooserWrapper) else None
        self._keeps_path = on_exhausted == "cheapest"
        self._fallback: Literal["cheapest", "hold"] = "hold" if on_exhausted == "hold" else "cheapest"
        self.horizon = Horizon(env, chooser, horizon)
        _require_horizon(env, on_exhausted, self.horizon.most)
        self.begin()

    def _decision(self, steps_left: int | None) -> int:
        chooser = self._chooser
        return decision_flops(steps_left, chooser.durations[0], int(chooser.choice_flops[0]), chooser.selector_flops)

    def first_decision(self) -> int:
        """Return what one selector call and the cheapest choice cost, for the shortest duration."""
        return self._decision(self.horizon.most)

    @contextmanager
    def resetting(self) -> Iterator[None]:
        """Let no sub-policy run: a wrapper between that acts in ``reset`` would spend what no episode pays for."""
        self._expect("reset")
        try:
            yield
        finally:
            self._expect(None)

    def _expect(self, call: Literal["step", "reset"] | None) -> None:
        if self._ours is not None:
            self._ours.expected = call

    def begin(self) -> None:
        """Note where the chooser stands when the episode begins."""
        if self._ours is not None:
            if True in self._ours.ends:
                self._ours.start_episode()
            self._resets, self._ran, self._held = self._ours.resets, self._ours.steps_run, self._ours.steps_held

    def before(self, budget: EpisodeBudget, selector: int) -> None:
        """Check the selector's charge and tell the chooser what its choice may spend.

        Raises:
            CostError: the selector has cost more than it declares, so no promise about it can be kept.
            WrapperOrderError: the chooser was reset or stepped, and not through this limit.
        """
        chooser = self._chooser
        if self._ours is not None:
            self._require_untouched(self._ours)
        if selector > chooser.selector_flops:
            raise CostError(
                f"The selector was charged {selector} FLOPs for one choice and {chooser.selector_flops} are declared; "
                "a hard limit has to know them beforehand. Pass selector_flops= to the wrapper that chooses, or call "
                "its set_selector_flops: the most that one choice costs. Where the selector ran twice, as its first "
                "call or a wrapper outside has raised, call step() again: all of it is in the account now."
            )
        left = self.horizon.left(budget.steps)
        chooser.restrict(self._allowance(budget.remaining, left), left, self._fallback)
        self._open_step()

    def _open_step(self) -> None:
        self._expect("step")
        self.horizon.open_step()

    def _require_untouched(self, chooser: ChooserWrapper) -> None:
        stepped, self._ran = chooser.steps_run != self._ran, chooser.steps_run
        self._held = chooser.steps_held
        if chooser.resets != self._resets or stepped:
            did, call = ("reset", "reset()") if chooser.resets != self._resets else ("stepped", "step()")
            raise WrapperOrderError(
                f"{chooser.class_name()} was {did} since the last step, and not through the ComputeLimit outside of "
                f"it, whose account therefore belongs to no episode. Call {call} of the limit, or of a wrapper outside "
                "of it, only; after a reset that has failed call reset() again."
            )

    def _allowance(self, remaining: int, left: int | None) -> Left:
        chooser = self._chooser
        kept = left if self._keeps_path else None
        return Left(remaining, kept, chooser.durations[-1], int(chooser.choice_flops[0]), chooser.selector_flops)

    def masks(self, budget: EpisodeBudget) -> NDArray[np.bool_]:
        """Return the choices that the next step will run as they are, ``(K·D,)``, once its selector has been paid."""
        left = self.horizon.left(budget.steps)
        allowance = self._allowance(budget.remaining - self._chooser.selector_flops, left)
        return self._chooser.runnable(allowance, left)

    def settle(self, budget: EpisodeBudget) -> None:
        """Count the primitive steps that the chooser has made since it was asked last."""
        self._expect(None)
        chooser = self._ours
        if chooser is not None:
            ran, held = chooser.steps_run - self._ran, chooser.steps_held - self._held
            self._ran, self._held = chooser.steps_run, chooser.steps_held
            budget.steps += ran
            budget.held_steps += held

    def after(self, budget: EpisodeBudget, transition: Transition) -> Transition:
        """Count the primitive steps of a choice."""
        before = budget.steps
        if self._ours is None:
            info = transition[4]
            budget.steps += int(info.get("duration", 1))
            if info.get("option", 0) == HELD:
                budget.held_steps += budget.steps - before
        self.settle(budget)
        self.horizon.close_step(budget.steps - before)
        return checked(budget, transition, self.horizon)

    def exhausted(self, budget: EpisodeBudget) -> bool:
        """Return whether the next selector call and the cheapest choice after it can't be paid."""
        return budget.remaining < self._decision(self.horizon.left(budget.steps))

    def stuck(self, budget: EpisodeBudget, acted: int) -> bool:
        """Return whether no step is left, or not even the cheapest choice can be paid; its selector was already."""
        left = self.horizon.left(budget.steps)
        return (
            True in self.ends() or left == 0 or budget.remaining < self._decision(left) - self._chooser.selector_flops
        )

    def can_hold(self, budget: EpisodeBudget, asked: bool) -> bool:
        """Return whether a sub-policy has acted in this episode, and a step is left.

        Where the selector was asked again, another failure would let it be asked once more: that has to be paid for.
        """
        if True in self.ends() or self.horizon.left(budget.steps) == 0:
            return False
        if asked and budget.remaining < self._chooser.selector_flops:
            return False
        return getattr(self._chooser, "last_action", None) is not None

    def ends(self) -> tuple[bool, bool]:
        """Return whether the step that has raised had terminated and truncated the episode before."""
        return (False, False) if self._ours is None else self._ours.ends

    def hold(self, env: gym.Env, action: Any, budget: EpisodeBudget) -> Transition:
        """Let the chooser repeat its last primitive action; wrappers between see one more long step."""
        left = self.horizon.left(budget.steps) or 0
        self._chooser.restrict(Left(0), 1, "hold")  # should a wrapper between step the chooser more often than once
        self._chooser.hold_last_action(left)
        self._open_step()
        obs, reward, terminated, truncated, info = self.after(budget, env.step(action))
        return obs, reward, terminated, truncated or not terminated, info


def make_rule(env: gym.Env, meter: ComputeMeter, on_exhausted: OnExhausted, horizon: int | None) -> Rule:
    """Return how to limit ``env``: hard where a layer of it chooses.

    Raises:
        ConfigError: the limit cannot be kept like this.
        WrapperOrderError: the layer that chooses charges another meter, or a layer inside resets by itself.
    """
    if any(isinstance(layer, Autoreset) for layer in wrappers_of(env)):
        raise WrapperOrderError(
            f"Autoreset inside ComputeLimit would begin episodes that the limit does not know of, and go on with those "
            f"that it ends: {env}. Put it outside: Autoreset(ComputeLimit(env, …))."
        )
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


def _require_horizon(env: gym.Env, on_exhausted: OnExhausted, horizon: int | None) -> None:
    if horizon is None and on_exhausted in ("cheapest", "hold"):
        raise ConfigError(
            f"on_exhausted={on_exhausted!r} needs to know how many steps an episode can last, and {env} has no time "
            "limit. Pass horizon=, or make the environment with max_episode_steps=."
        )


__all__ = ["ChooserRule", "OpaqueRule", "make_rule"]
