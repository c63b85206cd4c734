"""What vector wrappers that run sub-policies inside ``step`` share: what can be chosen, and how often each one was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from budget_wrappers.core import Selector
from budget_wrappers.errors import SpaceError, WrapperOrderError
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.wrappers.choosing import HELD
from budget_wrappers.wrappers.selecting import NAME, InnerSelector
from budget_wrappers.wrappers.vector.acting import RowActing
from budget_wrappers.wrappers.vector.infos import require_free
from budget_wrappers.wrappers.vector.reading import VectorCostReader

AT_RESET = {"duration": 0.0, "option": float(HELD)}
RENAME = "Rename them in the environments."


class VectorChooser(VectorCostReader):
    """Base of the vector wrappers whose actions are sub-policies.

    It has the account of its meter, as it takes what the outside selector has charged before its sub-policies are.

    Attributes:
        choice_names: of the sub-policies, ``K``.
        choice_flops: ``(K,)`` int64, FLOPs of one step of each sub-policy, ascending.
    """

    choice_names: tuple[str, ...]
    choice_flops: NDArray[np.int64]
    _selector: InnerSelector

    def open_choices(
        self,
        names: tuple[str, ...],
        flops: NDArray[np.int64],
        meter: str | ComputeMeter,
        selector: Selector | str | None,
    ) -> None:
        """Set what can be chosen.

        Raises:
            WrapperOrderError: a wrapper inside reads costs or chooses itself.
            ConfigError: ``selector`` is none, keeps a memory that several environments would share, or declares another
                convention than the meter counts.
        """
        refuse_inside(self)
        self.open_account(meter)
        self.choice_names, self.choice_flops = names, flops
        self._selector = InnerSelector(selector, names, (1,), self._n)
        self._selector.require_convention(self.meter)
        self.single_action_space = gym.spaces.Discrete(len(names))
        self.action_space = batch_space(self.single_action_space, self._n)
        self._counts = np.zeros((self._n, len(names)), np.int64)  # steps of each in each episode
        # FLOPs of each in steps that have raised, once one has: of each episode, and since the last step
        self._failed: np.ndarray | None = None
        self._failed_since: np.ndarray | None = None

    def start_choices(self, infos: dict[str, Any], mask: np.ndarray | None) -> dict[str, Any]:
        """Begin episodes where a reset's ``mask`` is; return its ``infos`` with what they say of choices."""
        self._account.clear(self._counts, mask)
        self._selector.begin()
        for sums in (self._failed, self._failed_since):
            if sums is not None:
                self._account.clear(sums, mask)
        require_free(infos, tuple(AT_RESET), self.env, RENAME)
        return self.tell_reset(infos, AT_RESET, mask)

    @property
    def selector(self) -> Selector | None:
        """What ``step(None)`` asks, None for nothing."""
        return self._selector.selector

    def choices_of(self, actions: Any, observations: Any) -> np.ndarray:
        """Return the sub-policy of each environment, ``(n,)`` int64, ``HELD`` where the step only resets or ends.

        Args:
            actions: indices of sub-policies, ``(n,)``; None for those of the selector, which are charged.
            observations: of all environments, for the selector.

        Raises:
            SpaceError: an action is no index of a sub-policy, or there is not one for each environment; see also
                ``InnerSelector.ask``.
        """
        if actions is None:
            self._account.collect()  # what is pending was charged by row in an order of its own
            return self._selected(observations)
        choices, names = np.asarray(actions), self.choice_names
        if choices.shape != (self._n,) or choices.dtype.kind not in "iu":
            raise SpaceError(
                f"Actions {actions!r} have shape {choices.shape} and type {choices.dtype}; expected {self._n} whole "
                "numbers, the index of a sub-policy for each environment."
            )
        if choices.min() < 0 or choices.max() >= len(names):
            raise SpaceError(f"Actions {actions!r} are no sub-policies; expected 0 … {len(names) - 1}.")
        choices = choices.astype(np.int64)
        passed_by = self._passed_by()
        return choices if passed_by is None else np.where(passed_by, HELD, choices)

    def _passed_by(self) -> NDArray[np.bool_] | None:
        """Return where no sub-policy runs in the next step, ``(n,)``, ``None`` for nowhere.

        The step only resets there, or a limit ends the episode.
        """
        resetting, idle = self._account.resetting, self._account.idle
        if resetting is None or idle is None:
            return resetting if idle is None else idle
        return resetting | idle

    def _selected(self, observations: Any) -> np.ndarray:
        """Return what the selector picks for each environment, asked row after row, each charged for its own choice."""
        choices, spent = np.full(self._n, HELD, np.int64), np.zeros(self._n, np.int64)
        passed_by, singles = self._passed_by(), list(iterate(self.env.observation_space, observations))
        try:
            for row in range(self._n) if passed_by is None else np.flatnonzero(~passed_by):
                try:
                    choices[row], _ = self._selector.ask(singles[row], self.meter)
                finally:
                    spent[row] = self._selector.spent
        finally:
            if total := int(spent.sum()):
                self.meter.add(total, NAME, self._n, by_row=spent)
        return choices

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the choices that each environment may run, ``(n, K)`` booleans: all, as nothing here restricts them.

        The environments' own masks are of primitive actions, which the sub-policies choose.
        """
        return np.ones((self._n, len(self.choice_names)), bool)

    @contextmanager
    def noting_failure(self, acting: RowActing) -> Iterator[None]:
        """Note what sub-policies ran for which rows, where the step inside raises."""
        try:
            yield
        except BaseException:
            if self._failed is None:
                self._failed, self._failed_since = np.zeros_like(self._counts), np.zeros_like(self._counts)
            for index, rows in acting.called:
                self._failed_since[rows, index] += self.choice_flops[index]
            raise

    def write_choices(self, infos: dict[str, Any], choices: np.ndarray) -> dict[str, Any]:
        """Count what ran in the step just closed, ``(n,)``; return its ``infos`` with that.

        Raises:
            InfoKeyError: the environments have put something else under one of the keys.
        """
        self._account.add(self._counts, choices[:, None] == np.arange(len(self.choice_names)))
        if self._account.ended is not None:
            self._selector.begin()
        if self._failed is not None:
            self._account.add(self._failed, self._failed_since)
            self._failed_since[:] = 0
        require_free(infos, tuple(AT_RESET), self.env, RENAME)
        return self.tell(infos, {"duration": (choices != HELD).astype(float), "option": choices}, AT_RESET)

    def option_report(self, total: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return FLOPs by name and steps by name of each episode, ``(n,)`` each.

        Args:
            total: FLOPs of the episodes, ``(n,)``; what no sub-policy has spent is the selector's.
        """
        steps = dict(zip(self.choice_names, self._counts.T.copy(), strict=True))
        spent = self._counts * self.choice_flops
        if self._failed is not None:
            spent = spent + self._failed
        flops, selector = dict(zip(self.choice_names, spent.T, strict=True)), total - spent.sum(1)
        return {**flops, NAME: selector}, {**steps, "hold": np.zeros(self._n, np.int64)}


def refuse_inside(wrapper: VectorWrapper) -> None:
    """Check that nothing inside ``wrapper`` has to be outside of it.

    Raises:
        WrapperOrderError: a wrapper inside reads costs or chooses itself.
    """
    layer = wrapper.env
    while isinstance(layer, VectorWrapper):
        if isinstance(layer, VectorChooser):
            raise WrapperOrderError(f"{wrapper.env} chooses sub-policies already. Merge the two sets.")
        if isinstance(layer, VectorCostReader) and not hasattr(layer, "delay_of"):  # a delay has to know beforehand
            raise WrapperOrderError(
                f"{wrapper.env} reads costs inside {type(wrapper).__name__}, whose sub-policies it would not see: put "
                "wrappers that record, penalise or limit outside."
            )
        layer = layer.env


__all__ = ["AT_RESET", "VectorChooser", "refuse_inside"]
