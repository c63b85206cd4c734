"""The numbers of a meter and its mode, in a class that phases, watches and processes import without the meter."""

from collections.abc import Hashable, Iterable

import numpy as np

from budget_wrappers.core import Convention
from budget_wrappers.metering.counting import CountingMode
from budget_wrappers.metering.frames import Frames
from budget_wrappers.metering.quiet import BY_GRADIENT
from budget_wrappers.metering.rows import RowLedger


class MeterState:
    """The numbers that a ``ComputeMeter`` inherits; its docstring explains the public ones.

    Args:
        name: the meter's name.
        convention: what one FLOP count holds.

    Attributes:
        mode: how a forward is charged now: a constant of ``quiet``.
        frames: forwards of watched modules that are running.
        learn_counter: counts the learning phase that is running; ``None`` outside of one.
        learn_costs: FLOPs of learning phases by their key.
        names: acting FLOPs executed under each name.
    """

    __slots__ = (
        "_foreign",
        "_paid",
        "_rows",
        "_taken",
        "convention",
        "executed",
        "frames",
        "last_rows",
        "learn_costs",
        "learn_counter",
        "learned",
        "mode",
        "name",
        "names",
        "pending_rows",
        "row_ledger",
        "uncharged",
        "unpaid",
        "used",
    )

    def __init__(self, name: str, convention: Convention) -> None:
        self.name = name
        self.convention = convention
        self.used = False
        self._foreign = False  # True in a forked process until something is charged there
        self.mode = BY_GRADIENT
        self.frames = Frames(convention)
        self.learn_counter: CountingMode | None = None
        self.learn_costs: dict[Hashable, int] = {}
        self.row_ledger: RowLedger | None = None
        self.names: dict[str, int] = {}
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
        self, name: str, flops: int, rows: int, charged: int | None = None, by_row: np.ndarray | None = None
    ) -> None:
        """Add acting FLOPs without checking them: what ``add`` and the hooks end in."""
        if self.row_ledger is not None:
            self.row_ledger.note(name, flops, rows, charged, by_row)
        self.executed += flops
        if rows > self.pending_rows:
            self.pending_rows = rows
        self.names[name] = self.names.get(name, 0) + flops

    def discard(self) -> None:
        """Drop what is pending, as a reset does: it did run and stays in ``totals``, but no budget pays for it."""
        self.frames.abandon()
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
