"""What the integrations share that attach a meter to live objects: a class for one object, and its acting charged."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from budget_wrappers.errors import MeterError, UncountableError
from budget_wrappers.metering import ComputeMeter, Watch, count_flops
from budget_wrappers.metering.quiet import BY_GRADIENT, counting
from budget_wrappers.metering.structure import is_static
from budget_wrappers.metering.watching import REPORT


def attach(target: Any, meter: ComputeMeter, members: dict[str, Any]) -> None:
    """Give ``target`` a class of its own: what it was, with ``members`` and an attribute ``meter``.

    A class for this one object, and not attributes on it, so that saving it stores nothing of the meter. Copies and
    pickles of it are of the class that it was.
    """
    base = type(target)

    def reduced(self: Any, protocol: Any) -> Any:
        _, (_, *given), *state = base.__reduce_ex__(self, max(int(protocol), 2))
        return _blank, (base, *given), *state

    own = {"__doc__": base.__doc__, "__module__": base.__module__, "__qualname__": base.__qualname__}
    shared = {"meter": meter, "_attached": True, "__reduce_ex__": reduced}
    target.__class__ = type(base.__name__, (base,), {**own, **shared, **members})


def _blank(base: type, *given: Any) -> Any:
    """Make what is about to be copied or unpickled: pickle itself insists on the class that the original has."""
    return base.__new__(base, *given)


def is_attached(target: Any) -> bool:
    """Tell whether ``target`` has a class of its own."""
    return "_attached" in vars(type(target))


def detach(target: Any) -> None:
    """Undo ``attach``."""
    target.__class__ = type(target).__base__


def refuse_attached(target: Any) -> None:
    """Check that nothing is attached to ``target``.

    Raises:
        MeterError: something is.
    """
    if is_attached(target):
        raise MeterError(
            f"this {type(target).__name__} is metered already, by {target.meter!r}; call unmeter() on what was metered"
        )


def require_attached(target: Any) -> None:
    """Check that ``metered`` has been called on ``target``.

    Raises:
        MeterError: it has not.
    """
    if not is_attached(target):
        raise MeterError(f"this {type(target).__name__} is not metered; pass what metered() returned")


class ActingLayers:
    """Charges to acting what the layers of the modules that act run, whether gradients are on or off.

    The layers are watched and not the modules around them, which foreign libraries call with arrays and records: a
    layer gets a tensor, whose shape says what its forward costs and how many observations that was for.
    """

    def __init__(self, meter: ComputeMeter, modules: dict[str, nn.Module]) -> None:
        """Watch the layers of ``modules``, by the names that their shares get; or none of them, when that fails."""
        self._meter, self._names = meter, ", ".join(modules)
        self._checked = False
        self._watches: list[Watch] = []
        try:
            for name, module in modules.items():
                # Shared: a module has several layers, and an agent that was made again takes its place beside the old.
                for layer in layers_of(module):
                    self._watches.append(meter.watch(layer, name, shared=True, owner=self._watches))
        except UncountableError:
            self.detach()
            raise

    def run(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return ``forward(*args, **kwargs)``, as acting where nobody has said what it is.

        Raises:
            UncountableError: the first time, when products run outside of the layers that are watched.
        """
        meter = self._meter
        if meter.mode != BY_GRADIENT or counting():  # in an update, in a phase, paused, or run for its FLOPs
            return forward(*args, **kwargs)
        expected, before = None, meter.executed
        if not self._checked:
            expected = count_flops(functools.partial(forward, *args, **kwargs), convention=meter.convention)
        with meter.phase("act"):
            result = forward(*args, **kwargs)
        if expected is not None:
            self._require_all(expected, meter.executed - before)
        return result

    def _require_all(self, expected: int, seen: int) -> None:
        if seen != expected:
            raise UncountableError(
                f"acting runs {expected} FLOPs ({self._meter.convention!r}), {seen} of them in the layers of "
                f"{self._names}: expected all of them there, so that nothing is silently 0. Call unmeter() and charge "
                "it by hand: meter.add(flops, rows=…) where it acts. A meter of convention 'matmul' counts products "
                "only."
            )
        self._checked = True

    def detach(self) -> None:
        """Leave nothing on the layers."""
        for watch in self._watches:
            watch.remove()


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """Return the largest parts of ``module`` that are called with tensors: torch's own, and leaves of other libraries.

    Without the parts that own no parameters and report no FLOPs: activations, and layers that only reshape.
    """
    torchs = type(module).__module__.startswith("torch.nn.modules.") or is_static(module) or hasattr(module, REPORT)
    children = list(module.children())
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or (children and not torchs):
        for child in children:
            yield from layers_of(child)
    elif hasattr(module, REPORT) or next(module.parameters(), None) is not None:
        yield module


def shapes_decide(module: nn.Module, library: str) -> bool:
    """Tell whether FLOPs of ``module`` follow from input shapes alone: it is made of ``library``'s parts and torch's.

    Args:
        module: with all that is inside of it.
        library: the name of a package whose modules do not branch on data.
    """
    for part in module.modules():
        own = type(part).__module__.startswith(f"{library}.")
        if not own and not (type(part).__module__.startswith("torch.nn.modules.") and is_static(part)):
            return False
    return True


__all__ = [
    "ActingLayers",
    "attach",
    "detach",
    "is_attached",
    "layers_of",
    "refuse_attached",
    "require_attached",
    "shapes_decide",
]
