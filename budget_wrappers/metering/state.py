"""The numbers of a meter and its mode, in a class that phases, watches and processes import without the meter."""

from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakSet

import numpy as np

from budget_wrappers.core import Convention
from budget_wrappers.metering.counting import CountingMode
from budget_wrappers.metering.frames import Frames
from budget_wrappers.metering.inside import Inside
from budget_wrappers.metering.quiet import BY_GRADIENT, SILENT, counting
from budget_wrappers.metering.rows import RowLedger


class MeterState(Inside):
    """The numbers that a ``ComputeMeter`` inherits; its docstring explains the public ones.

    Args:
        name: the meter's name.
        convention: what one FLOP count holds.

    Attributes:
        mode: how a forward is charged now: a constant of ``quiet``.
        openings: the modes of the phases that are open, of which the last one holds.
        frames: forwards of watched modules that are running.
        learn_counter: counts the learning phase that is running; ``None`` outside of one.
        learn_costs: FLOPs of learning phases by their key.
        names: acting FLOPs executed under each name.
        calls: charges to acting so far, those of 0 FLOPs included: a policy has acted, or has said that none had to.
        closed_calls: those of them that are closed; ``last_calls``: those that the last ``take`` or ``take_flops`` has.
        free_calls: those of them that said that an action cost nothing.
        graded: forwards booked as learning as autograd recorded them, by name and rows.
        acting: whose policy was charged since the last ``take``; ``None`` for nobody's in particular.
        mixed: whether policies of several owners were.
        accounts: those of wrappers that read this meter and are alive; see ``wrappers.turns``.
        shared: whether there are several of them.
        payer: the one that has paid last.
        explained: whether an episode without any charge has been explained once.
    """

    __slots__ = (
        "_foreign",
        "_paid",
        "_rows",
        "_taken",
        "_watches",
        "accounts",
        "acting",
        "calls",
        "closed_calls",
        "convention",
        "executed",
        "explained",
        "frames",
        "free_calls",
        "graded",
        "last_calls",
        "last_rows",
        "learn_costs",
        "learn_counter",
        "learned",
        "mixed",
        "mode",
        "name",
        "names",
        "openings",
        "payer",
        "pending_rows",
        "row_ledger",
        "shared",
        "uncharged",
        "unpaid",
        "used",
    )

    def __init__(self, name: str, convention: Convention) -> None:
        super().__init__()
        self.name = name
        self.convention = convention
        self.used = False
        self._foreign = False  # True in a forked process until something is charged there
        self.mode = BY_GRADIENT
        self.openings: list[list[int]] = []
        self.frames = Frames(convention)
        self.learn_counter: CountingMode | None = None
        self.learn_costs: dict[Hashable, int] = {}
        self.row_ledger: RowLedger | None = None
        self.names: dict[str, int] = {}
        self._watches: list[Any] = []
        self.calls = self.closed_calls = self.last_calls = self.free_calls = 0
        self.graded: dict[tuple[str, int], int] = {}
        self.acting: object | None = None
        self.mixed = self.shared = self.explained = False
        self.payer: Any = None
        self.accounts: WeakSet[Any] = WeakSet()
        self._clear()

    def _clear(self, names: Iterable[str] = ()) -> None:
        """Set every number to 0; ``names`` stay listed, each at 0 FLOPs."""
        # All of these only grow; what is pending is the difference to where the last take left them.
        self.executed = self.uncharged = self.learned = self._rows = 0
        self.names.clear()
        self.names.update(dict.fromkeys(names, 0))
        self.pending_rows = self.last_rows = 0
        self._taken: tuple[int, int, dict[str, int]] = (0, 0, {})
        self.unpaid: dict[str, int] = {}
        self._paid = 0
        if self.row_ledger is not None:
            self.row_ledger.charges.clear()

    def charge(
        self,
        name: str,
        flops: int,
        rows: int,
        charged: int | None = None,
        by_row: np.ndarray | None = None,
        owner: object | None = None,
    ) -> None:
        """Add acting FLOPs without checking them: what ``add`` and the hooks end in."""
        if owner is not None:
            self.acts_for(owner)
        if self.row_ledger is not None:
            self.row_ledger.note(name, flops, rows, charged, by_row)
        self.executed += flops
        self.calls += 1
        if rows > self.pending_rows:
            self.pending_rows = rows
        self.names[name] = self.names.get(name, 0) + flops

    def running(self) -> bool:
        """Tell whether a forward is running that is counted, or that holds other watched modules."""
        return bool(self.frames.stack)

    def acts_for(self, owner: object) -> None:
        """Note that a policy of ``owner`` acts: any object that stands for it, see ``watch(owner=…)``."""
        if self.acting is not owner and self.mode != SILENT and not counting():
            self.mixed = self.mixed or self.acting is not None
            self.acting = owner

    def acted_for_free(self) -> None:
        """Note that an action was chosen that costs nothing: at random, by a rule, or one that is held."""
        if self.mode != SILENT and not counting():
            self.calls += 1
            self.free_calls += 1

    def discard(self) -> None:
        """Drop what is pending, as a reset does: it did run and stays in ``totals``, but no budget pays for it."""
        if self.thread:
            self.require_turn()
        self.frames.abandon()
        self.release()
        self.closed_calls, self.acting, self.mixed = self.calls, None, False
        self.uncharged = self.executed - self._paid
        self._rows += self.pending_rows
        self.pending_rows = self.last_rows = 0
        self._taken, self.unpaid = (self.executed, self.learned, dict(self.names)), {}
        if self.row_ledger is not None:
            self.row_ledger.charges.clear()

    @property
    def pending_flops(self) -> int:
        """FLOPs that the budget has to pay for since the last ``take`` or ``discard``."""
        return self.executed - self.uncharged - self._paid
