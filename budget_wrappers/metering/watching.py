"""Forward hooks that charge a meter, and nothing more: no attribute, no patch, nothing left after they are removed."""

from collections.abc import Callable
from contextlib import nullcontext
from threading import get_ident
from typing import Any, Self

import numpy as np
from torch import Tensor, is_grad_enabled, nn
from torch.utils.hooks import RemovableHandle

from budget_wrappers.metering.calls import (
    call_key,
    hidden_batch,
    in_transform,
    is_mapped,
    is_one_tensor,
    is_traced,
    outside_transforms,
    recorded,
    rows_in_call,
)
from budget_wrappers.metering.checks import whole
from budget_wrappers.metering.counting import count_flops, original
from budget_wrappers.metering.hooks import After, End, Hook, Probe, Start
from budget_wrappers.metering.quiet import BY_GRADIENT, SILENT, counting
from budget_wrappers.metering.rows import UNKNOWN, checked_by_row
from budget_wrappers.metering.shares import count_each_row
from budget_wrappers.metering.state import MeterState
from budget_wrappers.metering.structure import Structure, is_static

REPORT = "flops_of_last_forward"
REPORT_BY_ROW = "flops_by_row_of_last_forward"

MOST_TRACES = 4096
"""Of a module, that are remembered to have been the same work for every row."""

Rows = int | Callable[..., int] | None
"""Observations in a call: a number, or a function of the call's arguments; ``None`` reads them off its tensors."""


def _nobody() -> None:
    """Stand for a module that is gone, or that was never this watch's: the copy of a watched module."""


class Watch:
    """A module that a meter watches: what ``ComputeMeter.watch`` returns.

    Attributes:
        name: its name in ``by_name``.
        parts_ran: forwards of its parts while its own has never run: it acts by another method then.
        static: whether it is measured once for each shape of its inputs.
    """

    __slots__ = (
        "_claims",
        "_costs",
        "_decides",
        "_even",
        "_framed",
        "_handles",
        "_meter",
        "_owner",
        "_probes",
        "_reports",
        "_rows",
        "_siblings",
        "_target",
        "name",
        "parts_ran",
        "static",
    )

    def __init__(self) -> None:
        # Inert until ``install`` fills it in: its hooks recognise no module. A copied module carries such a watch.
        self._target: Callable[[], nn.Module | None] = _nobody
        self._meter: MeterState | None = None
        self._siblings: list[Watch] = []
        self._costs: dict[Any, tuple[int, int]] = {}
        self._handles: list[RemovableHandle] = []
        # On the parts, until the module's own forward runs for the first time.
        self._probes: list[RemovableHandle] = []
        self.parts_ran: dict[str, int] = {}
        # What has run for so many rows before and was the same work for each.
        self._even: set[tuple[int, int]] = set()
        self._owner: object | None = None
        self._rows: Rows = None
        self._claims = 0
        # Whether the module itself says if shapes decide its cost, and not the caller.
        self._decides = False
        self._framed = self._reports = self.static = False
        self.name = ""

    @property
    def module(self) -> nn.Module | None:
        """The module, or None once it is no longer watched or no longer alive."""
        return self._target()

    def recount(self) -> None:
        """Measure anew from the next forward on.

        It is needed where FLOPs follow from something that is neither a layer, a weight's shape, a hook nor a setting
        of a convolution, as those are looked at on every forward.
        """
        self._costs.clear()

    def remove(self) -> None:
        """Undo one ``watch``: after as many as there were of this module, nothing is left on it."""
        self._claims -= 1
        if self._claims <= 0:
            self.detach()

    def detach(self) -> None:
        """Stop watching, however often the module was watched."""
        self._unhook()
        self._target, self._claims = _nobody, 0
        if self in self._siblings:
            self._siblings.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Watch":
        return Watch()

    @classmethod
    def inert(cls) -> "Watch":
        """Return a watch that recognises no module, for the hooks of a copy."""
        return cls()

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def _hook(self, module: nn.Module, framed: bool) -> None:
        self._unhook()
        self._framed = framed
        if framed:
            self._handles = [
                module.register_forward_pre_hook(Start(self), with_kwargs=True),
                module.register_forward_hook(End(self), with_kwargs=True, always_call=True),
            ]
        else:
            self._handles = [module.register_forward_hook(After(self), with_kwargs=True)]

    def _unhook(self) -> None:
        for handle in (*self._handles, *self._probes):
            handle.remove()
        self._handles, self._probes = [], []

    def probe(self, module: nn.Module) -> None:
        """Look whether parts of ``module`` run without it, until its own forward does."""
        for name, part in module.named_children():
            self._probes.append(part.register_forward_hook(Probe(self, name), with_kwargs=True))

    def forget_parts(self) -> None:
        """Take the probes off: the module's own forward runs."""
        for handle in self._probes:
            handle.remove()
        self._probes, self.parts_ran = [], {}

    def hooked(self) -> bool:
        """Tell whether its hooks are still on the module, which somebody may have cleared."""
        module = self._target()
        return module is None or any(handle.id in module._forward_hooks for handle in self._handles)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start a forward that is counted while it runs, or that holds other watched modules."""
        meter = self._meter
        if self._target() is not module or counting():
            return
        if self._probes:
            self.forget_parts()
        if meter.thread:
            meter.require_turn()
        if meter.mode == SILENT or is_traced(args, kwargs):
            return
        counted = not (self.static or self._reports)
        meter.thread = get_ident()
        meter.frames.enter(self, counted=counted, traced=meter.row_ledger is not None)

    def after(
        self, hook: "Hook", module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """End it, and charge what it cost beside the watched modules inside."""
        meter = self._meter
        if self._target() is not module or counting():
            return
        left = None if meter.thread != get_ident() else meter.frames.leave(self)
        if left is None:
            return
        frame, seen, counter = left
        stack = meter.frames.stack
        if not stack:
            meter.release()
        if self.static or self._reports:
            # Without an end nobody knows how far it came.
            total = 0 if frame.failed else self._cost(hook, module, args, kwargs, output)[0]
        else:
            total = seen or 0
        # What watched modules inside were charged for is theirs.
        own = max(0, total - frame.inner)
        if stack:
            stack[-1].inner += total if seen is None else seen
            stack[-1].spent += own + frame.spent
        # A forward cut short has no output to tell by.
        learning = is_grad_enabled() if frame.failed else next(recorded(output), None) is not None
        rows = 0 if stack else self._rows_of(module, args, kwargs, output)
        if learning and meter.mode == BY_GRADIENT:
            self._learn(own, rows, output, 0 if stack else own + frame.spent)
            return
        by_row = None
        if meter.row_ledger is not None and rows > 1 and not frame.failed:
            if self._reports:
                # With a share for modules inside, what remains of each row is not known.
                by_row = None if frame.inner else self._reported_by_row(module, own, rows)
            elif counter is not None and frame.inner:
                by_row = None if counter.shared_evenly(rows) else UNKNOWN
            elif counter is not None and (rows, counter.trace) not in self._even:
                by_row = count_each_row(module, args, kwargs, rows, own, meter.convention, counter.random)
                if by_row is None and len(self._even) < MOST_TRACES:
                    self._even.add((rows, counter.trace))
        meter.charge(self.name, own, rows, None, by_row, self._owner)

    # ---- what one forward costs -------------------------------------------------------------------------------------

    def _cost(
        self, hook: "Hook", module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> tuple[int, int]:
        """Return FLOPs and rows of a forward that has just run: reported, known from before, or measured now."""
        rows = self._rows_of(module, args, kwargs, output)
        if self._reports:
            report = getattr(module, REPORT)
            flops = whole(report() if callable(report) else report, f"{type(module).__name__}.{REPORT}")
            return flops, rows
        if not hook.holds(module):
            self._look_again(hook, module)
        convention = self._meter.convention
        if is_mapped():
            # The batch is out of sight, and weights may have one as well: nothing to remember it by.
            return count_flops(module, *args, convention=convention, example_kwargs=kwargs), rows
        key: Any = args[0].shape if is_one_tensor(args, kwargs) else call_key(args, kwargs)
        if convention == "all":
            # Dropout and batch normalisation cost something else in training; only the slow path looks here.
            key = (key, module.training)
        if key not in self._costs:
            with outside_transforms(args, kwargs) if in_transform() else nullcontext((args, kwargs)) as (like, named):
                self._costs[key] = count_flops(module, *like, convention=convention, example_kwargs=named), rows
        return self._costs[key][0], rows

    def _look_again(self, hook: "Hook", module: nn.Module) -> None:
        """Forget what a module cost that has other layers, weights or hooks now, and whether shapes decide its cost."""
        self._costs.clear()
        source = original(module)
        if self._decides and self.static and not is_static(source):
            self.static = False
            self._hook(module, framed=True)
        else:
            hook.structure = Structure(source)

    def _rows_of(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
        if self._rows is None:
            rows = rows_in_call(module, args, kwargs, output)
            return rows * hidden_batch(args, kwargs) if in_transform() else rows
        if not callable(self._rows):
            return self._rows
        return whole(self._rows(*args, **kwargs), f"rows(...) of the watched {type(module).__name__}")

    def _reported_by_row(self, module: nn.Module, flops: int, rows: int) -> np.ndarray | None:
        """Return FLOPs of each row of a forward that has just run, where the module reports them."""
        report = getattr(module, REPORT_BY_ROW, None) if self._reports else None
        if report is None or self._meter.row_ledger is None:
            return None
        given = report() if callable(report) else report
        return checked_by_row(given, flops, rows, None, f"{type(module).__name__}.{REPORT_BY_ROW}")

    def _learn(self, flops: int, rows: int, output: Any, forward: int) -> None:
        """Charge ``flops`` to learning, and twice ``forward`` when a gradient reaches what the module returned."""
        meter = self._meter
        meter.learned += flops
        meter.graded[self.name, rows] = meter.graded.get((self.name, rows), 0) + 1
        if not forward:
            return
        arrived: list[bool] = []

        def charge_backward(gradient: Tensor) -> None:
            # In a learning phase the products themselves are counted.
            if not arrived and meter.mode != SILENT and not counting():
                arrived.append(True)
                meter.learned += 2 * forward

        for tensor in recorded(output):
            tensor.register_hook(charge_backward)
