"""What stands on a watched module: hooks that charge its forwards, and nothing more."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from budget_wrappers.metering.calls import is_traced, recorded
from budget_wrappers.metering.counting import original
from budget_wrappers.metering.isolation import never_compile
from budget_wrappers.metering.quiet import BY_GRADIENT, SILENT, UNDER_WAY, counting
from budget_wrappers.metering.structure import OURS, Structure

# in_transform() written out where every forward asks.
_transform, _tracer, _traces = torch._C._functorch.peek_interpreter_stack, torch._C._get_tracing_state, torch.jit._trace


class Hook:
    """What stands on a watched module: it knows what the module was when it was measured.

    The module holds it, and a meter does not, so that it keeps no module alive.
    """

    __slots__ = ("_watch", "structure")

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self.structure: Structure | None = None

    def holds(self, module: nn.Module) -> bool:
        """Tell whether the module is what it was."""
        if self.structure is None:
            self.structure = Structure(original(module))
            return True
        return self.structure.holds()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)(self._watch.inert())

    def __reduce__(self) -> Any:
        """Return what a hook is pickled as: a function of Python's own that takes anything and returns None.

        So a module that was saved while watched is loaded where this library is not installed.
        """
        return getattr, (nullcontext(), "__exit__")


class After(Hook):
    """The hook of a module whose cost is known once its forward has run."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Charge one forward whose cost is known or reported: every line here is paid on every step."""
        # A copy of the module shares this hook or holds an inert watch's, and charges nothing.
        watch = self._watch
        if watch._target() is not module or (UNDER_WAY[0] and counting()):
            return
        meter = watch._meter
        if watch._probes:
            watch.forget_parts()
        if meter.thread:
            meter.require_turn()
        mode = meter.mode
        if mode == SILENT:
            return
        cost = None
        if (
            len(args) == 1
            and not kwargs
            and args[0].__class__ is Tensor
            and not watch._reports
            and _transform() is None
            and _tracer() is None
            and _traces._trace_module_map is None
        ):
            try:
                cost = watch._costs.get(args[0].shape) if self.holds(module) else None
            except RuntimeError:  # a nested tensor has no shape
                cost = None
        if cost is None or watch._rows is not None:
            if is_traced(args, kwargs):
                return
            cost = watch._cost(self, module, args, kwargs, output)
        flops, rows = cost
        try:
            learning = output.requires_grad
        except AttributeError:
            learning = next(recorded(output), None) is not None
        if learning and mode == BY_GRADIENT:
            watch._learn(flops, rows, output, flops)
            return
        # meter.charge() written out.
        if watch._owner is not None:
            meter.acts_for(watch._owner)
        if meter.row_ledger is not None:
            meter.row_ledger.note(watch.name, flops, rows, None, watch._reported_by_row(module, flops, rows))
        meter.executed += flops
        meter.calls += 1
        if rows > meter.pending_rows:
            meter.pending_rows = rows
        meter.names[watch.name] += flops


class Start(Hook):
    """The hook before a forward that is framed."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._watch.before(module, args, kwargs)


class End(Hook):
    """The hook after it."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> None:
        self._watch.after(self, module, args, kwargs, output)


class Probe(Hook):
    """The hook of a part of a module whose own forward has never run."""

    __slots__ = ("_name",)

    def __init__(self, watch: Any, name: str = "") -> None:
        super().__init__(watch)
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        watch = self._watch
        meter = watch._meter
        if meter is None or counting() or meter.mode == SILENT or is_traced(args, kwargs):
            return
        if meter.mode == BY_GRADIENT and next(recorded(output), None) is not None:
            return
        watch.parts_ran[self._name] = watch.parts_ran.get(self._name, 0) + 1


for _each in (After, Start, End, Probe):
    setattr(_each, OURS, True)
    # A compiled function around a watched module leaves its graph here, as with torch.compiler.disable, which would
    # load torch's compiler (seconds) wherever this module is imported.
    _each.__call__._torchdynamo_disable = True
    _each.__call__._torchdynamo_disable_msg = (
        "a meter of budget_wrappers charges this forward where it runs: with fullgraph=True or torch.export take the "
        "watch off (meter.unwatch), and watch what torch.compile returned"
    )
    never_compile(_each.__call__)


__all__ = ["After", "End", "Hook", "Probe", "Start"]
