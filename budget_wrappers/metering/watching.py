"""Forward hooks that charge a meter, and nothing more: no attribute, no patch, nothing left after they are removed."""

import gc
from collections.abc import Callable, Iterator
from typing import Any, Self
from weakref import ref

import numpy as np
from torch import Tensor, is_grad_enabled, nn
from torch.utils.hooks import RemovableHandle

from budget_wrappers.errors import MeterError, UncountableError
from budget_wrappers.metering.calls import call_key, is_one_tensor, recorded, rows_in_call
from budget_wrappers.metering.checks import whole
from budget_wrappers.metering.counting import count_flops, original
from budget_wrappers.metering.quiet import BY_GRADIENT, SILENT
from budget_wrappers.metering.rows import checked_by_row
from budget_wrappers.metering.state import MeterState

REPORT = "flops_of_last_forward"
REPORT_BY_ROW = "flops_by_row_of_last_forward"

# Layers of torch whose FLOPs depend on more than shapes: padding that attention may drop, clusters of targets.
_DATA_DEPENDENT = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.AdaptiveLogSoftmaxWithLoss,
)


def _nobody() -> None:
    """Stand for a module that is gone, or that was never this watch's: the copy of a watched module."""


class Watch:
    """A module that a meter watches: what ``ComputeMeter.watch`` returns.

    Attributes:
        name: its name in ``by_name``.
        static: whether it is measured once for each shape of its inputs.
    """

    __slots__ = (
        "_claims",
        "_costs",
        "_framed",
        "_handles",
        "_meter",
        "_reports",
        "_siblings",
        "_target",
        "name",
        "static",
    )

    def __init__(self) -> None:
        # Inert until ``install`` fills it in: its hooks recognise no module. A copied module carries such a watch.
        self._target: Callable[[], nn.Module | None] = _nobody
        self._meter: MeterState | None = None
        self._siblings: list[Watch] = []
        self._costs: dict[Any, tuple[int, int]] = {}
        self._handles: list[RemovableHandle] = []
        self._claims = 0
        self._framed = self._reports = self.static = False
        self.name = ""

    @property
    def module(self) -> nn.Module | None:
        """The module, or None once it is no longer watched or no longer alive."""
        return self._target()

    def recount(self) -> None:
        """Measure anew from the next forward on: call it after the module's layers have changed size."""
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

    def __reduce__(self) -> tuple[type["Watch"], tuple[()]]:
        return Watch, ()

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def _hook(self, module: nn.Module, framed: bool) -> None:
        self._unhook()
        self._framed = framed
        if framed:
            self._handles = [
                module.register_forward_pre_hook(self._before_framed, with_kwargs=True),
                module.register_forward_hook(self._after_framed, with_kwargs=True, always_call=True),
            ]
        else:
            self._handles = [module.register_forward_hook(self._after, with_kwargs=True)]

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Charge one forward whose cost is known or reported: every line here is paid on every step."""
        # A copy of the module shares this hook or holds an inert watch's, and charges nothing.
        if self._target() is not module:
            return
        meter = self._meter
        mode = meter.mode
        if mode == SILENT:
            return
        try:
            (x,) = args
            flops, rows = self._costs[x.shape if not kwargs else call_key(args, kwargs)]
        except (KeyError, ValueError, AttributeError, RuntimeError, TypeError):
            flops, rows = self._cost(module, args, kwargs)
        try:
            learning = output.requires_grad
        except AttributeError:
            learning = next(recorded(output), None) is not None
        if learning and mode == BY_GRADIENT:
            self._learn(flops, output, flops)
            return
        # meter.charge() written out.
        if meter.row_ledger is not None:
            meter.row_ledger.note(self.name, flops, rows, None, self._by_row(module, flops, rows))
        meter.executed += flops
        if rows > meter.pending_rows:
            meter.pending_rows = rows
        meter.names[self.name] += flops

    def _before_framed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        meter = self._meter
        if self._target() is not module or meter.mode == SILENT:
            return
        meter.frames.enter(self, counted=not (self.static or self._reports))

    def _after_framed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        meter = self._meter
        if self._target() is not module or meter.mode == SILENT:
            return
        left = meter.frames.leave(self)
        if left is None:
            return
        frame, seen = left
        if self.static or self._reports:
            # Without an end nobody knows how far it came.
            total = 0 if frame.failed else self._cost(module, args, kwargs)[0]
        else:
            total = seen or 0
        # What watched modules inside were charged for is theirs.
        own = max(0, total - frame.inner)
        stack = meter.frames.stack
        if stack:
            stack[-1].inner += total if seen is None else seen
            stack[-1].spent += own + frame.spent
        # A forward cut short has no output to tell by.
        learning = is_grad_enabled() if frame.failed else next(recorded(output), None) is not None
        if learning and meter.mode == BY_GRADIENT:
            self._learn(own, output, 0 if stack else own + frame.spent)
        else:
            rows = 0 if stack else rows_in_call(module, args, kwargs)
            # With a share for modules inside, what remains of each row is not known.
            by_row = None if frame.inner or not rows else self._by_row(module, own, rows)
            meter.charge(self.name, own, rows, None, by_row)

    # ---- what one forward costs -------------------------------------------------------------------------------------

    def _cost(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        """Return FLOPs and rows of a forward that has just run: reported, known from before, or measured now."""
        if self._reports:
            report = getattr(module, REPORT)
            flops = whole(report() if callable(report) else report, f"{type(module).__name__}.{REPORT}")
            return flops, rows_in_call(module, args, kwargs)
        convention = self._meter.convention
        key: Any = args[0].shape if is_one_tensor(args, kwargs) else call_key(args, kwargs)
        if convention == "all":
            # Dropout and batch normalisation cost something else in training; only the slow path looks here.
            key = (key, module.training)
        if key not in self._costs:
            flops = count_flops(module, *args, convention=convention, example_kwargs=kwargs)
            self._costs[key] = flops, rows_in_call(module, args, kwargs)
        return self._costs[key]

    def _by_row(self, module: nn.Module, flops: int, rows: int) -> np.ndarray | None:
        """Return FLOPs of each row of a forward that has just run, where the module reports them."""
        report = getattr(module, REPORT_BY_ROW, None) if self._reports else None
        if report is None or self._meter.row_ledger is None:
            return None
        given = report() if callable(report) else report
        return checked_by_row(given, flops, rows, None, f"{type(module).__name__}.{REPORT_BY_ROW}")

    def _learn(self, flops: int, output: Any, forward: int) -> None:
        """Charge ``flops`` to learning, and twice ``forward`` when a gradient reaches what the module returned."""
        meter = self._meter
        meter.learned += flops
        if not forward:
            return
        arrived: list[bool] = []

        def charge_backward(gradient: Tensor) -> None:
            # In a learning phase the products themselves are counted.
            if not arrived and meter.mode != SILENT:
                arrived.append(True)
                meter.learned += 2 * forward

        for tensor in recorded(output):
            tensor.register_hook(charge_backward)


def install(
    meter: MeterState, watches: list[Watch], module: nn.Module, name: str, static: bool | None, shared: bool
) -> Watch:
    """Return a watch of ``module`` that charges ``meter``: see ``ComputeMeter.watch``."""
    if not isinstance(module, nn.Module):
        raise MeterError(
            f"watch() got a {type(module).__name__}; expected a torch.nn.Module. Charge anything else where it runs: "
            "meter.add(flops)."
        )
    source = original(module)
    for watch in [watch for watch in watches if watch.module is None]:
        watch.detach()
    for watch in watches:
        if watch.module is module:
            watch._claims += 1
            return watch
    if not shared:
        _refuse_taken(meter, watches, module, name)
    watch = Watch()
    watch._reports = meter.convention == "matmul" and static is None and hasattr(module, REPORT)
    watch.static = static if static is not None else not watch._reports and is_static(source)
    if source is not module and not (watch.static or watch._reports):
        raise UncountableError(
            f"{type(source).__name__} is compiled, and its FLOPs may depend on more than the shapes of its inputs: a "
            "compiled kernel shows no operators to count. If shapes decide, watch it with static=True; else watch the "
            "module that was compiled and call that."
        )
    watch.name, watch._claims = name, 1
    watch._meter, watch._siblings, watch._target = meter, watches, ref(module)
    meter.names.setdefault(name, 0)
    related = [other for other in watches if _related(other.module, module)]
    for other in related:
        if not other._framed:
            other._hook(other.module, framed=True)
    watch._hook(module, framed=bool(related) or not (watch.static or watch._reports))
    watches.append(watch)
    return watch


def _refuse_taken(meter: MeterState, watches: list[Watch], module: nn.Module, name: str) -> None:
    def holder() -> nn.Module | None:
        return next((watch.module for watch in watches if watch.name == name and watch.module is not None), None)

    if holder() is not None:
        gc.collect()  # an agent that is gone may live on in a cycle, and its name with it
    taken = holder()
    if taken is not None:
        raise MeterError(
            f"meter {meter.name!r} watches a {type(taken).__name__} under the name {name!r} already, and got another "
            f"{type(module).__name__}. Give this one a name of its own, unwatch() the other one, or pass shared=True "
            "to add both up under one name."
        )


def _related(one: nn.Module | None, other: nn.Module) -> bool:
    """Tell whether one module is, or is inside, the other."""
    if one is None:
        return False
    one, other = original(one), original(other)
    return any(part is other for part in one.modules()) or any(part is one for part in other.modules())


def is_static(module: nn.Module) -> bool:
    """Tell whether the FLOPs of ``module`` are known to follow from the shapes of its inputs."""
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        ours = all(isinstance(getattr(hook, "__self__", None), Watch) for hook in _hooks(module))
        if "forward" in vars(module) or not ours:
            return False
    declared = getattr(type(module), "static_flops", None)
    if declared is not None:
        return bool(declared)
    if not type(module).__module__.startswith("torch.nn.modules.") or isinstance(module, _DATA_DEPENDENT):
        return False
    return all(map(is_static, module.children()))


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield from module._forward_hooks.values()
    yield from module._forward_pre_hooks.values()
