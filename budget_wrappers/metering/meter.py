"""The account: policies charge it, wrappers read it and close the step. Integers only, no clock."""

import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, NoReturn, Self

from torch import nn

from budget_wrappers.core import Convention, Phase, Spend
from budget_wrappers.errors import CheckpointError, CostError, MeterError
from budget_wrappers.metering.checks import check_convention, whole
from budget_wrappers.metering.counting import CountingMode
from budget_wrappers.metering.frames import Frames
from budget_wrappers.metering.phases import in_mode, learning
from budget_wrappers.metering.quiet import ACTING, BY_GRADIENT, METERS, SILENT
from budget_wrappers.metering.totals import Totals
from budget_wrappers.metering.watching import Watch, install

_ACCOUNTS = ("executed", "uncharged", "learned", "pending_rows", "last_rows", "used", "_paid", "_rows", "_taken")


class ComputeMeter:
    """Counts the FLOPs that acting and learning cost, and hands them to whoever closes the step.

    Watch the module that acts, or ``add`` what it costs; a wrapper takes what was spent since it last did. What
    runs inside ``phase("learn")`` goes to another account. A meter lives in one process and one thread: it can be
    neither pickled nor copied, and a copy of a watched module charges nothing.

    Args:
        name: its name in messages; ``get_meter(name)`` makes one that wrappers find by this name.
        convention: what one FLOP count holds, see ``count_flops``.

    Attributes:
        executed: acting FLOPs so far.
        uncharged: those of them that no budget pays for.
        learned: learning FLOPs so far.
        pending_rows: observations acted on since the last ``take`` or ``discard``: the largest batch, as one step may
            charge several modules.
        last_rows: the same of what was taken last.
        used: whether anything was ever watched or added.

    Example:
        >>> import torch
        >>> meter, actor = ComputeMeter(), torch.nn.Linear(4, 2)
        >>> with meter.watch(actor), torch.no_grad():
        ...     _ = actor(torch.zeros(1, 4))
        >>> meter.take().executed
        16
    """

    __slots__ = (
        "__weakref__",
        "_foreign",
        "_paid",
        "_rows",
        "_taken",
        "_watches",
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
        "uncharged",
        "used",
    )

    def __init__(self, name: str = "policy", convention: Convention = "matmul") -> None:
        if not isinstance(name, str) or not name:
            raise MeterError(f"a meter's name is {name!r}; expected a string that is not empty")
        self.name = name
        self.convention = check_convention(convention)
        self.used = False
        self._foreign = False
        self.mode = BY_GRADIENT
        self.frames = Frames(self.convention)
        self.learn_counter: CountingMode | None = None
        self.learn_costs: dict[Hashable, int] = {}
        self._watches: list[Watch] = []
        self.names: dict[str, int] = {}
        self._clear()
        METERS.add(self)

    def _clear(self) -> None:
        # All of these only grow; what is pending is the difference to where the last take left them.
        self.executed = self.uncharged = self.learned = self._rows = 0
        self.names.clear()
        self.names.update((watch.name, 0) for watch in self._watches)
        self.pending_rows = self.last_rows = 0
        self._taken = (0, 0, {})
        self._paid = 0

    # ---- charging ---------------------------------------------------------------------------------------------------

    def watch(
        self, module: nn.Module, name: str | None = None, static: bool | None = None, shared: bool = False
    ) -> Watch:
        """Charge every forward of ``module`` from now on.

        A module whose FLOPs follow from the shapes of its inputs is measured once for each and then only added up, at
        about a microsecond a forward: torch's own layers and ``nn.Sequential`` of them, classes with a class attribute
        ``static_flops = True``, and whatever is watched with ``static=True``. Any other module is counted by what
        really ran, forward by forward, at several microseconds an operator. One that knows says so itself: where the
        module has ``flops_of_last_forward`` (an ``int`` attribute or a method without arguments, over all rows, in the
        ``"matmul"`` convention), that is what is charged.

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

        Returns:
            A handle: a context manager that stops watching at its end, with ``remove()`` and ``recount()``. Watching a
            module a second time returns its handle again, under the name it has.

        Raises:
            MeterError: the name belongs to another module that is still alive, and ``shared`` is False.
            UncountableError: a scripted module, or a compiled one that is not static.
        """
        watch = install(self, self._watches, module, self.name if name is None else name, static, shared)
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

    def watched(self) -> dict[str, list[nn.Module]]:
        """Return the modules that are watched, by name."""
        found: dict[str, list[nn.Module]] = {}
        for watch in self._watches:
            if watch.module is not None:
                found.setdefault(watch.name, []).append(watch.module)
        return found

    def add(self, flops: int, name: str | None = None, rows: int = 1, charged: int | None = None) -> None:
        """Charge ``flops`` by hand: for an engine that torch does not run, or a cost known beforehand.

        Args:
            flops: executed FLOPs, over all rows.
            name: of its share in ``by_name``; the meter's name by default.
            rows: observations that they were spent on.
            charged: what the budget pays, at most ``flops``; all of it by default.

        Raises:
            CostError: a number that is negative, NaN, infinite or no integer, or ``charged`` above ``flops``.
        """
        if type(flops) is not int or flops < 0:
            flops = whole(flops, "flops")
        if type(rows) is not int or rows < 0:
            rows = whole(rows, "rows")
        self.used, self._foreign = True, False
        if self.mode == SILENT:
            if self.learn_counter is not None and self.learn_counter.enabled:
                self.learn_counter.flops += flops
            return
        if charged is not None:
            charged = whole(charged, "charged")
            if charged > flops:
                raise CostError(
                    f"charged={charged} is above flops={flops}; a budget pays for what was executed at most"
                )
            self.uncharged += flops - charged
        self.charge(self.name if name is None else name, flops, rows)

    def charge(self, name: str, flops: int, rows: int) -> None:
        """Add acting FLOPs without checking them: what ``add`` and the hooks end in."""
        self.executed += flops
        if rows > self.pending_rows:
            self.pending_rows = rows
        self.names[name] = self.names.get(name, 0) + flops

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
        if phase == "learn":
            return learning(self, key)
        if phase != "act":
            raise MeterError(f"phase={phase!r}; expected 'act' or 'learn'")
        if key is not None:
            raise MeterError(
                f"phase('act', key={key!r}): only learning is measured once a key; watch the module that acts"
            )
        return in_mode(self, ACTING)

    def paused(self) -> AbstractContextManager[None]:
        """Charge nothing inside: for runs that somebody else charges, and for runs that must not count."""
        return in_mode(self, SILENT)

    @contextmanager
    def aside(self) -> Iterator[Self]:
        """Charge as usual inside, then put every account back: for an action that is run to be looked at."""
        numbers = {name: getattr(self, name) for name in _ACCOUNTS}
        names = dict(self.names)
        try:
            yield self
        finally:
            for name, value in numbers.items():
                setattr(self, name, value)
            self.names.clear()
            self.names.update(names)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def take(self) -> Spend:
        """Return what was spent since the last ``take`` or ``discard``, and start anew.

        Raises:
            MeterError: in a process forked from the one that charges this meter.
        """
        executed, learned, names = self._taken
        charged = self.take_flops()
        self.frames.abandon()
        self._taken = self.executed, self.learned, dict(self.names)
        by_name = {name: flops - names.get(name, 0) for name, flops in self.names.items()}
        by_name = {name: flops for name, flops in by_name.items() if flops}
        return Spend(self.executed - executed, charged, self.learned - learned, self.last_rows, by_name)

    def take_flops(self) -> int:
        """Close the step as ``take`` does and return only the FLOPs that the budget pays, as fast as can be.

        ``last_rows`` says how many observations they were spent on. ``by_name`` and ``totals`` go on adding up, and the
        other fields of the next ``take`` reach back to the ``take`` or ``discard`` before.
        """
        if self._foreign:
            self._check_home()
        paid = self.executed - self.uncharged
        charged, self._paid = paid - self._paid, paid
        rows, self.pending_rows = self.pending_rows, 0
        self.last_rows = rows
        self._rows += rows
        return charged

    def discard(self) -> None:
        """Drop what is pending, as a reset does: it did run and stays in ``totals``, but no budget pays for it."""
        self.frames.abandon()
        self.uncharged = self.executed - self._paid
        self._rows += self.pending_rows
        self.pending_rows = self.last_rows = 0
        self._taken = self.executed, self.learned, dict(self.names)

    @property
    def pending_flops(self) -> int:
        """FLOPs that the budget has to pay for since the last ``take`` or ``discard``."""
        return self.executed - self.uncharged - self._paid

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
        self._clear()
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
        expected = {"act", "charged", "learn", "rows", "by_name"}
        if set(state) != expected or not isinstance(state["by_name"], Mapping):
            raise CheckpointError(
                f"a meter's state has the keys {sorted(state)}; expected {sorted(expected)}, as state_dict() gives them"
            )
        try:
            counts = {key: whole(state[key], key) for key in expected - {"by_name"}}
            by_name = {str(key): whole(value, str(key)) for key, value in state["by_name"].items()}
        except CostError as error:
            raise CheckpointError(f"a meter's state holds a value that is no count: {error}") from error
        self._clear()
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
        raise MeterError(
            f"meter {self.name!r} was about to be pickled, into another process or a file; it counts in the process "
            "where the policy acts. Give wrappers the meter's name instead of the object; with environments in worker "
            "processes leave the wrapper out of them and call meter.take() in the main process, once a vector step. To "
            "save its numbers use state_dict()."
        )

    def _check_home(self) -> None:
        """Accept a forked process once something has been charged in it."""
        executed, learned, _ = self._taken
        if (self.executed, self.learned) != (executed, learned):
            self._foreign = False
            return
        raise MeterError(
            f"meter {self.name!r} was read in a worker process that was forked from the one it counts in, and nothing "
            "has charged it here: every cost would be 0. Leave the wrapper out of the workers' environments and call "
            "meter.take() in the main process, once a vector step; a policy that lives in this process needs watch() "
            "or add() here."
        )


def _mark_foreign() -> None:
    """Mark every meter as another process's, with nothing pending: runs in the child after a fork."""
    for meter in list(METERS):
        meter.discard()
        meter._foreign = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_foreign)
