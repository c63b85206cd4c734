"""What each episode of a batch may spend: ``EpisodeLimits``, the base of the vector wrapper that limits it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from budget_wrappers.errors import MeterError, WrapperOrderError
from budget_wrappers.wrappers.limit import feasible_limit
from budget_wrappers.wrappers.vector.ending import EpisodeEnder, Transition
from budget_wrappers.wrappers.vector.modes import NEXT_STEP, SAME_STEP
from budget_wrappers.wrappers.vector.observation import for_each
from budget_wrappers.wrappers.vector.reading import VectorCostReader


class EpisodeLimits(VectorCostReader):
    """Holds the limits of ``n`` environments' episodes. All numbers are FLOPs of the meter's convention, ``(n,)``.

    In ``SAME_STEP`` mode one step ends an episode and begins the next, so there are two limits: that of the episode
    which the step belongs to, and that of the one which the observation belongs to. Elsewhere these are the same.

    Attributes:
        max_flops: limits of the episodes that the next resets begin.
        limits: of the episodes that the last observations belong to.
        last_limits: of those that the last step belongs to.
    """

    max_flops: np.ndarray
    limits: np.ndarray
    last_limits: np.ndarray
    _ender: EpisodeEnder
    _lost: np.ndarray | int = 0  # what ran in a step that has raised, and will be part of the next
    _failed = False  # whether the last step has raised, so that nobody has checked what it spent

    @property
    def remaining(self) -> np.ndarray:
        """FLOPs that are left of the limit of each episode that an observation belongs to, ``(n,)``."""
        ended = self._account.ended
        return self.last_remaining if ended is None or self._mode != SAME_STEP else np.where(
            ended, np.maximum(self.limits - self._lost, 0), self.last_remaining
        )  # fmt: skip

    @property
    def last_remaining(self) -> np.ndarray:
        """The same of the episode that the last step belongs to, ``(n,)``: of the ended one where it ended one."""
        return np.maximum(self.last_limits - self._last_spent, 0)

    @property
    def overshoot(self) -> np.ndarray:
        """FLOPs by which each episode that the last step belongs to has passed its limit, ``(n,)``."""
        return np.maximum(self._last_spent - self.last_limits, 0)

    @property
    def _last_spent(self) -> np.ndarray:
        ended = self._account.ended
        if ended is None or self._mode != SAME_STEP:
            return self._account.total + self._lost
        return self._account.total + np.where(ended, 0, self._lost)  # the step that has raised was the next episode's

    def set_budget(self, flops: int | Sequence[int] | np.ndarray, mask: np.ndarray | None = None) -> None:
        """Set the limit of all episodes, or ``(n,)`` of each environment's, from the next reset on.

        Args:
            flops: one for all, or ``(n,)``.
            mask: the environments whose limit is meant, ``(n,)`` booleans; None for all.

        Raises:
            ConfigError: one is not a positive whole number, or there are not ``n``.
        """
        limits = np.array([feasible_limit(limit, 0) for limit in for_each(flops, self._n)], np.int64)
        self.max_flops = limits if mask is None else np.where(mask, limits, self.max_flops)

    def begin(self, mask: np.ndarray | None) -> None:
        """Begin episodes where ``mask`` is, ``(n,)`` booleans, everywhere for ``None``."""
        self.limits = self.max_flops.copy() if mask is None else np.where(mask, self.max_flops, self.limits)
        self.last_limits = self.limits
        if mask is None:
            self._lost, self._failed = 0, False
        else:
            self._lost = np.where(mask, 0, self._lost)

    def lose(self, error: BaseException) -> None:
        """Note what has run in a step that raises ``error``: the step after it will pay."""
        try:
            self._lost = self._account.collect()
        except MeterError as second:  # as the other one is on its way already
            error.add_note(str(second))

    def step_within(self, actions: Any) -> Transition:
        """Step and close the account of it, with nothing run where a step after one that has raised has nothing left.

        Whoever calls it sets ``_failed`` back once the whole step is done.
        """
        total = None if self._closes else self._account.total.copy()
        failed, self._failed = self._failed, True
        stopped = self.spent_already() if failed else None
        with nullcontext() if stopped is None else self.stopping(stopped):
            try:
                transition = self._ender.step(actions, stopped)
            except BaseException as error:
                self.lose(error)
                raise
            self.read_cost(transition[2], transition[3])
        self.follow()
        if total is not None:
            self.require_no_reset(total)
        return transition

    def spent_already(self) -> np.ndarray | None:
        """Return where the running episode has spent its limit before this step, ``(n,)``, ``None`` for nowhere.

        What was charged since the last step, for the one that has raised and for this one, counts.

        Raises:
            MeterError: what was charged cannot be told apart by environment.
        """
        account = self._account
        pending, total = account.collect(), account.total
        if account.ended is not None and self._mode == SAME_STEP:  # this step is the first of an episode there
            total = np.where(account.ended, 0, total)
        spent = total + pending >= self.limits
        if account.resetting is not None:
            spent &= ~account.resetting
        return spent if spent.any() else None

    @contextmanager
    def stopping(self, rows: np.ndarray | None) -> Iterator[None]:
        """While this lasts, nothing runs for ``rows``, ``(n,)`` booleans, and no step is counted there."""
        for account in self.compute_accounts:
            account.idle = rows
        try:
            yield
        finally:
            for account in self.compute_accounts:
                account.idle = None

    def require_nothing_ran(self, executed: int) -> None:
        """Check that nothing was charged within a reset; raises WrapperOrderError.

        Args:
            executed: FLOPs that were.
        """
        if executed:
            raise WrapperOrderError(
                f"{executed} FLOPs were charged to meter {self.meter.name!r} within the reset of {self.env}, for which "
                "no environment's limit pays. A wrapper that acts in its reset belongs outside of ComputeLimit."
            )

    def require_no_reset(self, total: np.ndarray) -> None:
        """Check that the accounts have gone on in the step just closed; raises WrapperOrderError.

        Args:
            total: FLOPs of each episode before it, ``(n,)``.
        """
        fresh = self._account.fresh
        lost = self._account.total < (total if fresh is None else np.where(fresh, 0, total))
        if lost.any():
            raise WrapperOrderError(
                f"A wrapper inside ComputeLimit has reset environments {np.flatnonzero(lost).tolist()} within its "
                "step(), which begins accounts anew that the limit goes on with. Put it outside of ComputeLimit."
            )

    def follow(self) -> None:
        """Note that a step was made, which has begun episodes in ``NEXT_STEP`` mode where the one before ended some."""
        self._lost = 0
        self.last_limits, fresh = self.limits, self._account.fresh
        if fresh is not None and self._mode == NEXT_STEP:
            self.begin(fresh)

    def begin_next(self, over: np.ndarray) -> None:
        """Begin the episodes that follow those which this step has ended, ``(n,)``, where it does both."""
        if self._mode == SAME_STEP:
            self.limits = np.where(over, self.max_flops, self.limits)

    def limit_report(self) -> dict[str, np.ndarray]:
        """Return what ``infos["compute"]`` says about the limits, ``(n,)`` each."""
        numbers = {"limit": self.last_limits, "overshoot": self.overshoot, "held_steps": np.zeros(self._n)}
        return {key: number.astype(np.float64) for key, number in numbers.items()}

    report = limit_report


__all__ = ["EpisodeLimits"]
