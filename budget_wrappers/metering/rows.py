"""For which environment of a batch each charge was: kept only while a vector wrapper reads it."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from budget_wrappers.errors import CostError, MeterError
from budget_wrappers.metering.checks import whole

Shares = NDArray[np.int64]
ByRow = Sequence[int] | NDArray[np.integer] | None
UNKNOWN: Shares = np.empty(0, np.int64)
"""Stands for the FLOPs of each row where rows cost differently and nobody knows how."""
MOST_CHARGES = 2**16
"""What is kept of one step; far above what acting row by row on any batch charges."""


class Charge(NamedTuple):
    """One charge.

    Attributes:
        name: what was charged.
        flops: executed, over all rows.
        rows: observations acted on; 0 for a module inside of another one, which is charged next and has the rows.
        charged: what the budget pays of it, ``None`` for all.
        by_row: of each row, ``(rows,)``; ``None`` where rows cost the same.
    """

    name: str
    flops: int
    rows: int
    charged: int | None = None
    by_row: Shares | None = None


class RowLedger:
    """The charges of one step of a vector environment, and who they are for.

    Rows are in the order of the environments. A name that was charged for ``n`` rows, in one batch or row by row, was
    charged once for each environment, for ``2n`` rows twice; where several names were charged row by row, ``n`` rows
    together (each took one of several ways), every row is the next environment. Batches of some rows under several
    names say by ``by_row`` whose they are.

    Args:
        meter: name of the meter, for messages.

    Attributes:
        charges: since the last step was closed; of ``MOST_CHARGES`` and more the latest only, and none are dealt out.
        by_name: what the budget pays of it, as dealt out last under each name, ``(n,)`` each.
    """

    __slots__ = ("_even", "_meter", "by_name", "charges")

    def __init__(self, meter: str) -> None:
        self._meter = meter
        self.charges: deque[Charge | tuple] = deque(maxlen=MOST_CHARGES)
        self.by_name: dict[str, Shares] = {}
        self._even = 0, _even(0, 1)  # the last FLOPs that were divided, as most policies cost the same at every step

    def note(self, name: str, flops: int, rows: int, charged: int | None = None, by_row: Shares | None = None) -> None:
        """Keep one charge, see ``Charge``: as a plain tuple, which costs a tenth."""
        self.charges.append((name, flops, rows, charged, by_row))

    def deal(self, n: int) -> Shares:
        """Return what the budget pays for each of ``n`` environments, ``(n,)``; ``by_name`` has each name's part.

        Raises:
            MeterError: rows that belong to no environment, FLOPs that belong to no row, or too many charges to keep.
        """
        if len(self.charges) == 1:
            name, flops, rows, charged, by_row = self.charges[0]
            if rows == n and charged is None:  # nearly always
                if by_row is None:
                    seen, by_row = self._even
                    if flops != seen or len(by_row) != n:
                        by_row = self._of_rows(Charge(name, flops, rows), flops, n)
                elif by_row is UNKNOWN:
                    by_row = self._of_rows(Charge(name, flops, rows, None, by_row), flops, n)
                self.by_name = {name: by_row}
                return by_row
        charges = list(map(Charge._make, self.charges))
        if len(charges) == MOST_CHARGES:  # those before them may be gone
            raise MeterError(
                f"meter {self._meter!r} was charged {MOST_CHARGES} times or more since the last step of {n} "
                "environments, which is more than one step keeps. Run what is no acting on their observations (an "
                "evaluation, a planner's simulations) inside meter.paused(), or drop it with meter.discard() before "
                "the next action; act on all observations in one batch."
            )
        if (total := sum(charge.flops for charge in charges)) >= 2**63:
            raise MeterError(
                f"meter {self._meter!r} was charged {total} FLOPs since the last step of {n} environments; expected "
                "less than 2**63, as their accounts are int64. Look for an overflow where the charge is made."
            )
        together = self._order(charges, n)
        paid, self.by_name = np.zeros(n, np.int64), {}
        starts: Counter[str] = Counter()
        enclosed: list[Charge] = []
        for charge in charges:
            if not charge.rows:
                enclosed.append(charge)
                continue
            key = "" if together else charge.name
            environments = np.arange(starts[key], starts[key] + charge.rows) % n
            starts[key] += charge.rows
            for part in (*enclosed, charge):
                share = self._paid(part, self._of_rows(part, part.flops, charge.rows), charge.rows)
                own = self.by_name.setdefault(part.name, np.zeros(n, np.int64))
                np.add.at(own, environments, share)
                np.add.at(paid, environments, share)
            enclosed.clear()
        if any(charge.flops for charge in enclosed):
            self._refuse(enclosed[-1], "and names no rows that it was spent on", "rows=len(observations)")
        return paid

    def _order(self, charges: list[Charge], n: int) -> bool:
        """Return whether the names share one order of rows, and do not have one each."""
        rows: Counter[str] = Counter()
        for charge in charges:
            rows[charge.name] += charge.rows
        odd = [name for name, count in rows.items() if count % n]
        if not odd:
            return False
        # Row by row in their order; of two batches nobody knows which rows went which way.
        if rows.total() == n and all(charge.rows <= 1 or charge.by_row is not None for charge in charges):
            return True
        raise MeterError(
            f"meter {self._meter!r} was charged for {rows[odd[0]]} rows under the name {odd[0]!r} since the last step "
            f"(all of them: {dict(rows)}), and {n} environments stepped: nobody knows which of them they are for. Act "
            "on all observations in one batch, and charge what only some rows ran with meter.add(flops, name, "
            f"rows={n}, by_row=[...]), 0 for the others; run what is no acting inside meter.paused(). If several rows "
            "that a watched module gets are one observation (a planner's candidates, nodes of a graph, a sequence), "
            "say how many observations there are: meter.watch(module, rows=...)."
        )

    def _of_rows(self, charge: Charge, flops: int, rows: int) -> Shares:
        if charge.by_row is UNKNOWN:
            self._refuse(charge, f"for {rows} rows that cost differently", "by_row=[...], FLOPs of each row")
        if charge.by_row is not None:
            return charge.by_row
        if flops == self._even[0] and rows == len(self._even[1]):
            return self._even[1]
        each, rest = divmod(flops, rows)
        if rest:
            self._refuse(charge, f"for {rows} rows, which do not divide it", "by_row=[...], FLOPs of each row")
        self._even = flops, _even(each, rows)
        return self._even[1]

    def _paid(self, charge: Charge, executed: Shares, rows: int) -> Shares:
        if charge.charged is None:
            return executed
        if not charge.charged:
            return np.zeros(rows, np.int64)
        return self._of_rows(charge, charge.charged, rows)

    def _refuse(self, charge: Charge, problem: str, remedy: str) -> NoReturn:
        paid = "" if charge.charged is None else f" ({charge.charged} of them to be paid)"
        raise MeterError(
            f"meter {self._meter!r} was charged {charge.flops} FLOPs{paid} under the name {charge.name!r} {problem}, "
            f"so no environment's share is known. Pass {remedy} to meter.add(); a module whose rows cost differently "
            "says so in flops_by_row_of_last_forward, beside flops_of_last_forward."
        )


def _even(each: int, rows: int) -> Shares:
    shares = np.full(rows, each, np.int64)
    shares.flags.writeable = False
    return shares


def checked_parts(flops: int, rows: int, charged: Any, by_row: Any) -> tuple[int | None, Shares | None]:
    """Return ``charged`` and ``by_row`` of a charge of ``flops`` for ``rows``, each ``None`` where it was not given.

    Raises:
        CostError: one of them does not fit.
    """
    if charged is not None:
        charged = whole(charged, "charged")
        if charged > flops:
            raise CostError(f"charged={charged} is above flops={flops}; a budget pays for what was executed at most")
    return charged, None if by_row is None else checked_by_row(by_row, flops, rows, charged, "by_row")


def checked_by_row(by_row: Any, flops: int, rows: int, charged: int | None, what: str) -> Shares:
    """Return the FLOPs of each row as a new ``(rows,)`` int64 array.

    Args:
        by_row: what was given.
        flops: what it has to sum to.
        rows: its length.
        charged: what the budget pays: with rows of their own all of it, or nothing.
        what: its name in messages.

    Raises:
        CostError: another length, shape, type or sum, a negative number, or ``charged`` in between.
    """
    given = np.asarray(by_row)
    if given.shape != (rows,) or (rows and given.dtype.kind not in "iu"):
        raise CostError(
            f"{what} has shape {given.shape} and type {given.dtype}; expected {rows} whole numbers, one a row"
        )
    if rows and int(given.min()) < 0:
        raise CostError(f"{what} holds {int(given.min())}; expected at least 0")
    # Sums of NumPy's integers wrap around without a word; Python's do not.
    exact = not rows or int(given.max()) * rows < 2**63
    total = int(given.sum()) if exact else sum(given.tolist())
    if total != flops:
        raise CostError(f"{what} sums to {total} and flops={flops}; expected the FLOPs of each row of it")
    if charged not in (None, 0, flops):
        raise CostError(
            f"charged={charged} of flops={flops} with {what}; expected all or 0, as nobody knows whose rows are not "
            "paid. Make two charges of it."
        )
    return given.astype(np.int64)


__all__ = ["MOST_CHARGES", "UNKNOWN", "ByRow", "Charge", "RowLedger", "checked_by_row", "checked_parts"]
