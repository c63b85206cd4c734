"""The account: policies charge it, wrappers read it and close the step. Integers only, no clock."""

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NoReturn, Self
from weakref import finalize

import numpy as np
from torch import nn

from budget_wrappers.core import Convention, Phase, Spend
from budget_wrappers.errors import ConfigError, MeterError
from budget_wrappers.metering.checks import MOST_FLOPS, check_convention, check_name, whole
from budget_wrappers.metering.installing import install
from budget_wrappers.metering.phases import aside, in_mode, in_phase, uncharging
from budget_wrappers.metering.processes import check_home, refuse_pickling
from budget_wrappers.metering.quiet import METERS, SILENT, UNDER_WAY, counting
from budget_wrappers.metering.rows import ByRow, RowLedger, checked_parts
from budget_wrappers.metering.state import MeterState
from budget_wrappers.metering.totals import Totals, checked_state
from budget_wrappers.metering.watching import Rows, Watch


class ComputeMeter(MeterState):
    """Counts the FLOPs that acting and learning cost, and hands them to whoever closes the step.

    Watch the module that acts, or ``add`` what it costs; a wrapper takes what was spent since it last did. What
    runs inside ``phase("learn")`` goes to another account. A meter lives in one process: it can be neither pickled nor
    copied, and a copy of a watched module charges nothing. One thread uses it at a time: while one is inside a phase,
    or in a forward that is counted, any use from another thread or task raises MeterError.

    Args:
        name: its name in messages; ``get_meter(name)`` makes one that wrappers find by this name.
        convention: what one FLOP count holds, see ``count_flops``.

    Attributes:
        executed: acting FLOPs so far.
        uncharged: those of them that no budget pays for.
        unpaid: the same by name, since the last ``take`` or ``discard``.
        learned: learning FLOPs so far.
        pending_rows: observations acted on since the last ``take`` or ``discard``: the largest batch, as one step may
            charge several modules.
        last_rows: the same of what was taken last.
        row_ledger: which rows each pending charge was for, while somebody asked by ``keep_rows``, else ``None``.
        used: whether anything was ever watched or added.

    Example:
        >>> import torch
        >>> meter, actor = ComputeMeter(), torch.nn.Linear(4, 2)
        >>> with meter.watch(actor), torch.no_grad():
        ...     _ = actor(torch.zeros(1, 4))
        >>> meter.take().executed
        16
    """

    __slots__ = ("__weakref__", "_row_readers")

    def __init__(self, name: str = "policy", convention: Convention = "matmul") -> None:
        if not isinstance(name, str) or not name:
            raise MeterError(f"a meter's name is {name!r}; expected a string that is not empty")
        super().__init__(name, check_convention(convention))
        self._row_readers = 0
        METERS.add(self)

    # ---- charging ---------------------------------------------------------------------------------------------------

    def watch(
        self,
        module: nn.Module,
        name: str | None = None,
        static: bool | None = None,
        shared: bool = False,
        rows: Rows = None,
        owner: object | None = None,
    ) -> Watch:
        """Charge every forward of ``module`` from now on.

        A module whose FLOPs follow from the shapes of its inputs is measured once for each and then only added up, at
        about a microsecond a forward: torch's own layers and ``nn.Sequential`` of them, classes with a class attribute
        ``static_flops = True``, and whatever is watched with ``static=True``. Any other module is counted by what
        really ran, forward by forward, at several microseconds an operator. One that knows says so itself: where the
        module has ``flops_of_last_forward`` (an ``int`` attribute or a method without arguments, over all rows, in the
        ``"matmul"`` convention), that is what is charged, to each row what an optional
        ``flops_by_row_of_last_forward`` says.

        Without a phase, a forward with gradients off is acting, whatever the training flag, and so is one that autograd
        records nothing of. A forward that it records is learning, and its backward pass is charged as twice the forward
        when a gradient arrives; ``phase("learn")`` counts both exactly.

        Args:
            module: what acts; not the whole policy, whose critics are no part of acting. Its ``__call__`` must be what
                runs. A compiled module is measured through its original and must be static.
            name: of its share in ``by_name``; the meter's name by default.
            static: whether FLOPs follow from input shapes alone (and arguments that are no tensors). Decided from the
                module by default. After a change of its layers' sizes call ``recount`` on the handle.
            shared: allow other modules under the same name.
            rows: observations in a call, where they are not the first dimension of its first tensor: a number (1 for a
                planner that scores 64 candidates of one observation, for a graph of many nodes, for a sequence without
                a batch), or a function of the call's arguments (``lambda x: x.shape[1]`` where time is first).
            owner: any object that stands for the policy that the module is part of. Charges of two owners in one step,
                while two environments that read this meter are within an episode, are refused. It is kept.

        Returns:
            A handle: a context manager that stops watching at its end, with ``remove()`` and ``recount()``. Watching a
            module a second time returns its handle again, under the name it has.

        Raises:
            MeterError: the name belongs to another module that is still alive, and ``shared`` is False; the module is
                watched already with other ``rows``; another thread is inside this meter.
            CostError: ``rows`` is no number of at least 1 and no function.
            UncountableError: a scripted module, or a compiled one that is not static.
        """
        self.require_turn()
        name = self.name if name is None else check_name(name, "name")
        if not isinstance(shared, bool) or not isinstance(static, bool | None):
            raise ConfigError(f"static={static!r}, shared={shared!r}; expected True or False, static also None")
        watch = install(self, self._watches, module, name, static, shared, rows, owner)
        self.used, self._foreign = True, False
        return watch

    def unwatch(self, module: nn.Module | None = None) -> None:
        """Stop charging ``module``, or every watched module, and leave nothing on it.

        Raises:
            MeterError: ``module`` is not watched.
        """
        gone = [watch for watch in self._watches if module is None or watch.module is module]
        if module is not None and not gone:
            names = ", ".join(repr(watch.name) for watch in self._watches) or "none"
            raise MeterError(
                f"meter {self.name!r} does not watch this {type(module).__name__}; watched: {names}. "
                "Pass the very module that watch() was given."
            )
        for watch in gone:
            watch.detach()

    def watches(self) -> list[Watch]:
        """Return the handles of the modules that are watched and alive."""
        return [watch for watch in self._watches if watch.module is not None]

    def watched(self) -> dict[str, list[nn.Module]]:
        """Return the modules that are watched, by name."""
        found: dict[str, list[nn.Module]] = {}
        for watch in self._watches:
            if watch.module is not None:
                found.setdefault(watch.name, []).append(watch.module)
        return found

    def add(
        self,
        flops: int,
        name: str | None = None,
        rows: int = 1,
        charged: int | None = None,
        by_row: ByRow = None,
    ) -> None:
        """Charge ``flops`` by hand: for an engine that torch does not run, or a cost known beforehand.

        Args:
            flops: executed FLOPs, over all rows.
            name: of its share in ``by_name``; the meter's name by default.
            rows: observations that they were spent on.
            charged: what the budget pays, at most ``flops``; all of it by default.
            by_row: FLOPs of each row, ``(rows,)``, that sum to ``flops``; needed where rows cost differently and the
                rows are the environments of a vector one, in their order. ``charged`` is then all or 0.

        Raises:
            MeterError: another thread is inside this meter.
            CostError: a number that is negative, NaN, infinite or no integer, ``charged`` above ``flops``, or a
                ``by_row`` that does not fit.
        """
        if type(flops) is not int or not 0 <= flops <= MOST_FLOPS:
            flops = whole(flops, "flops")
        if type(rows) is not int or not 0 <= rows <= MOST_FLOPS:
            rows = whole(rows, "rows")
        if self.thread:
            self.require_turn()
        self.used, self._foreign = True, False
        if self.mode == SILENT or (UNDER_WAY[0] and counting()):
            if self.learn_counter is not None and self.learn_counter.enabled and not counting():
                self.learn_counter.flops += flops
            return
        if charged is not None or by_row is not None:
            charged, by_row = checked_parts(flops, rows, charged, by_row)
        if name is None:
            name = self.name
        elif type(name) is not str or not name:
            name = check_name(name, "name")
        if charged is not None:
            self.uncharged += flops - charged
            self.unpaid = {**self.unpaid, name: self.unpaid.get(name, 0) + flops - charged}
        self.charge(name, flops, rows, charged, by_row)

    # ---- phases -----------------------------------------------------------------------------------------------------

    def phase(self, phase: Phase, key: Hashable | None = None) -> AbstractContextManager[None]:
        """Say what the code inside does, whatever the gradient mode.

        Args:
            phase: ``"act"``: watched modules are charged to acting. ``"learn"``: every product that runs inside,
                forward and backward, watched or not, is charged to learning; an ``"act"`` phase within it is left out.
            key: for ``"learn"``: count the first time with each key and add the same number from then on, without
                counting again. It must tell apart whatever changes the FLOPs: the kind of update and its batch size.

        Raises:
            MeterError: another phase, or a key for acting.
            UncountableError: an operator in a learning phase that nothing is known about.
        """
        return in_phase(self, phase, key)

    def paused(self) -> AbstractContextManager[None]:
        """Charge nothing inside: for runs that somebody else charges, and for runs that must not count."""
        return in_mode(self, SILENT)

    def aside(self) -> AbstractContextManager[Self]:
        """Charge as usual inside, then put every account back: for an action that is run to be looked at."""
        return aside(self)

    def uncharging(self) -> AbstractContextManager[Self]:
        """Count acting inside in ``totals`` and bill it to no step: for evaluations in an environment that is bare."""
        return uncharging(self)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def take(self) -> Spend:
        """Return what was spent since the last ``take`` or ``discard``, and start anew.

        Raises:
            MeterError: in a process forked from the one that charges this meter.
        """
        executed, learned, names = self._taken
        charged = self.take_flops()
        self.frames.abandon()
        self.release()
        self._taken, self.unpaid = (self.executed, self.learned, dict(self.names)), {}
        by_name = {name: flops - names.get(name, 0) for name, flops in self.names.items()}
        by_name = {name: flops for name, flops in by_name.items() if flops}
        return Spend(self.executed - executed, charged, self.learned - learned, self.last_rows, by_name)

    def take_flops(self) -> int:
        """Close the step as ``take`` does and return only the FLOPs that the budget pays, as fast as can be.

        ``last_rows`` says how many observations they were spent on. ``by_name`` and ``totals`` go on adding up, and the
        other fields of the next ``take`` reach back to the ``take`` or ``discard`` before.
        """
        if self._foreign:
            check_home(self)
        if self.thread:
            self.require_turn()
        self.last_calls, self.closed_calls, self.acting = self.calls - self.closed_calls, self.calls, None
        paid = self.executed - self.uncharged
        charged, self._paid = paid - self._paid, paid
        rows, self.pending_rows = self.pending_rows, 0
        self.last_rows = rows
        self._rows += rows
        if self.row_ledger is not None:
            self.row_ledger.charges.clear()
        return charged

    def keep_rows(self, reader: object) -> finalize:
        """Note from now on which rows each charge is for, as ``take_by_row`` needs it, while ``reader`` is alive.

        Returns:
            What ends it earlier, when called.
        """
        if self.row_ledger is None:
            self.row_ledger = RowLedger(self.name)
        self._row_readers += 1
        release = finalize(reader, self._release_rows)
        release.atexit = False
        return release

    def _release_rows(self) -> None:
        self._row_readers -= 1
        if not self._row_readers:
            self.row_ledger = None

    def take_by_row(self, n: int, pays: np.ndarray | None = None) -> np.ndarray:
        """Close the step as ``take_flops`` does and return what the budget pays for each of ``n`` environments.

        Args:
            n: environments; see ``RowLedger`` for which rows are whose. ``row_ledger.by_name`` has their shares.
            pays: ``(n,)`` booleans; what ran where it is False was executed and is not charged. ``None``: all pay.

        Returns:
            FLOPs, ``(n,)`` int64.

        Raises:
            MeterError: rows or FLOPs that belong to no environment, or nobody has called ``keep_rows``.
        """
        if self.row_ledger is None:
            raise MeterError(f"meter {self.name!r} keeps no rows; call keep_rows(reader) before the policy acts")
        shares = self.row_ledger.deal(n)
        if pays is not None:
            self.uncharged += int(shares[~pays].sum())
            shares = np.where(pays, shares, 0)
        self.take_flops()
        return shares

    @property
    def by_name(self) -> Mapping[str, int]:
        """Acting FLOPs executed under each name so far, pending ones included: a live, read-only view."""
        return MappingProxyType(self.names)

    @property
    def totals(self) -> Totals:
        """Everything so far, pending charges included: ``act`` is what was executed."""
        return Totals(
            {
                "act": self.executed,
                "charged": self.executed - self.uncharged,
                "learn": self.learned,
                "rows": self._rows + self.pending_rows,
            },
            self.names,
        )

    def reset_totals(self) -> None:
        """Set every account to zero; what is watched stays watched."""
        self._clear(watch.name for watch in self._watches)
        self._foreign = False

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the accounts as plain integers, for a checkpoint: pending charges are closed into the totals."""
        totals = self.totals
        return {**totals, "by_name": dict(totals.by_name)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``, with nothing pending.

        Raises:
            CheckpointError: missing or unknown keys, or values that are no counts.
        """
        counts, by_name = checked_state(state)
        self._clear(watch.name for watch in self._watches)
        self.executed, self.uncharged = counts["act"], counts["act"] - counts["charged"]
        self.learned, self._rows, self._paid = counts["learn"], counts["rows"], counts["charged"]
        self.names.update(by_name)
        self._taken = self.executed, self.learned, dict(self.names)

    def __repr__(self) -> str:
        totals, names = self.totals, sorted({watch.name for watch in self._watches})
        return (
            f"{type(self).__name__}({self.name!r}, {self.convention!r}: act {totals['act']:,}, "
            f"learn {totals['learn']:,} FLOPs; watching {', '.join(names) or 'nothing'})"
        )

    # ---- one process, one object ------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse_pickling(self)
