"""One episode under a limit, step by step: ``EpisodeLimit``, the base of the wrapper that limits what it may spend."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budget_wrappers.errors import MeterError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.choosing import HELD
from budget_wrappers.wrappers.exhaustion import EpisodeBudget, OnExhausted, Transition, merge_infos
from budget_wrappers.wrappers.limit_rules import ChooserRule, make_rule
from budget_wrappers.wrappers.reading import CostReader, reward_space_of


class EpisodeLimit(CostReader):
    """Runs episodes under a limit, and keeps their account whatever is raised inside.

    Attributes:
        max_flops: limit of the episodes to come.
        episode: the running one.
    """

    max_flops: int
    episode: EpisodeBudget

    def open_limit(self, meter: str | ComputeMeter, on_exhausted: OnExhausted, horizon: int | None) -> None:
        """Find out how the limit can be kept; raises ConfigError and WrapperOrderError."""
        self.open_account(meter)
        self._rule = make_rule(self.env, self.meter, on_exhausted, horizon)
        self._ends_as = {"truncate": (False, True), "terminate": (True, False)}.get(on_exhausted)
        self._summed = ("duration", self.env.get_wrapper_attr("cost_key")) if self._amends else ("duration",)
        self._observation: Any = None

    @property
    def remaining(self) -> int:
        """FLOPs of the running episode's limit that are left."""
        return max(self.episode.limit - self.episode.spent, 0)

    @property
    def overshoot(self) -> int:
        """FLOPs by which the running episode has passed its limit; 0 over a wrapper that chooses."""
        return max(self.episode.spent - self.episode.limit, 0)

    @property
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """A method that returns the choices which the next ``step`` runs as they are, ``(K·D,)`` booleans.

        It counts on the most that the selector's call may cost. Around an opaque policy there is none: what the
        environment says of its actions goes on as it is.
        """
        if not isinstance(self._rule, ChooserRule):
            raise AttributeError("action_masks")
        return partial(self._rule.masks, self.episode)

    def begin(self, limit: int, spent: int = 0) -> None:
        """Begin an episode that has spent FLOPs already: what a wrapper inside ran in its reset is not free."""
        self.episode, self._over = EpisodeBudget(limit, spent), False
        self._told = spent
        self._rule.begin()

    def limited_step(self, action: Any) -> Transition:
        """Make a step within the limit, see ``ComputeLimit.step``."""
        if self._over:
            self._begin_after_end()
        self._account.begin_step()
        episode, rule = self.episode, self._rule
        failed, episode.failed = episode.failed, True
        selector = self._spend(early=True)
        rule.before(episode, selector)
        try:
            if failed and rule.stuck(episode, selector):
                hold = self._ends_as is None and rule.can_hold(episode, asked=selector > 0)
                transition = self._hold(action) if hold else self._end_here()
            else:
                transition = self._run(action)
        except BaseException as error:
            self._account_for(error)
            raise
        episode.failed, self._observation, self._told = False, transition[0], episode.spent
        self._over = ended = transition[2] or transition[3]
        if ended:
            self._account.require_use()
        return *transition[:4], self.amend(transition[4], ended)

    def _run(self, action: Any) -> Transition:
        """Step, and hold or end the episode where the limit is exhausted."""
        episode, rule = self.episode, self._rule
        transition = rule.after(episode, self.env.step(action))
        self._spend()
        if transition[2] or transition[3] or not rule.exhausted(episode):
            return transition
        if self._ends_as is None:
            return merge(transition, self._hold(action), self._summed)
        return *transition[:2], *self._ends_as, transition[4]

    def _hold(self, action: Any) -> Transition:
        transition = self._rule.hold(self.env, action, self.episode)
        self._spend()
        return transition

    def _end_here(self) -> Transition:
        """Return an end at the last observation: nothing more can run, or the step that has raised was the last."""
        ends = self._rule.ends()
        self.episode.ended_inside = True in ends
        space = reward_space_of(self.env)
        reward = 0.0 if space is None else np.zeros(space.shape, space.dtype)
        spent = (0, self.episode.spent - self._told)  # in no step, and since the last one that was handed out
        info = dict(zip(self._summed, map(np.float64, spent), strict=False)) | {"option": np.float64(HELD)}
        return self._observation, reward, *(ends if True in ends else self._ends_as or (False, True)), info

    def _spend(self, early: bool = False) -> int:
        """Return what has run since the last call, which the episode pays for; ``early``: the step is not over yet."""
        account = self._account
        total = account.collect(early)
        if account.episode != self._episode:  # a wrapper inside has begun the account anew
            self._seen, self._episode = 0, account.episode
        cost, self._seen = total - self._seen, total
        self.episode.spent += cost
        return cost

    def _account_for(self, error: BaseException) -> None:
        """Book what ran until ``error``, and tell whoever catches it where nothing is left for another choice."""
        episode, rule = self.episode, self._rule
        rule.settle(episode)
        try:
            self._spend(early=True)
        except MeterError as second:  # as the other one is on its way already
            error.add_note(str(second))
        if rule.exhausted(episode):
            error.add_note(
                f"ComputeLimit: {self.remaining} of {episode.limit} FLOPs are left, too few for another choice. Call "
                "step() again without asking the policy or selector again, which ends the episode, or reset()."
            )

    def _begin_after_end(self) -> None:
        if not self.episode.ended_inside:
            raise WrapperOrderError(
                "The limit has ended this episode and step() was called without a reset(): the environment inside "
                "would go on with it. Call reset(); a wrapper that resets by itself belongs outside of ComputeLimit."
            )
        self.begin(self.max_flops)

    def limit_report(self) -> dict[str, np.float64]:
        """Return what ``info["compute"]`` says about the limit."""
        numbers = {"limit": self.episode.limit, "overshoot": self.overshoot, "held_steps": self.episode.held_steps}
        return {key: np.float64(number) for key, number in numbers.items()}

    report = limit_report


def merge(first: Transition, held: Transition, summed: tuple[str, ...]) -> Transition:
    """Return two successive transitions as one: rewards are added, and the counts in ``info`` called ``summed``."""
    return held[0], first[1] + held[1], held[2], held[3], merge_infos(first[4], held[4], summed)


__all__ = ["EpisodeLimit"]
