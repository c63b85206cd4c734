"""Putting a watch on a module: what is refused, whether shapes decide its cost, and which modules lie inside others."""

import gc
from weakref import ref

from torch import nn

from budget_wrappers.errors import CostError, MeterError, UncountableError
from budget_wrappers.metering.checks import whole
from budget_wrappers.metering.counting import original
from budget_wrappers.metering.state import MeterState
from budget_wrappers.metering.structure import is_static
from budget_wrappers.metering.watching import REPORT, Rows, Watch


def install(
    meter: MeterState,
    watches: list[Watch],
    module: nn.Module,
    name: str,
    static: bool | None,
    shared: bool,
    rows: Rows,
    owner: object | None,
) -> Watch:
    """Return a watch of ``module`` that charges ``meter``: see ``ComputeMeter.watch``."""
    if not isinstance(module, nn.Module):
        raise MeterError(
            f"watch() got a {type(module).__name__}; expected a torch.nn.Module. Charge anything else where it runs: "
            "meter.add(flops)."
        )
    if rows is not None and not callable(rows):
        rows = whole(rows, "rows")
        if not rows:
            raise CostError("rows=0; expected at least one observation in a call, or a function of its arguments")
    source = original(module)
    for watch in [watch for watch in watches if watch.module is None]:
        watch.detach()
    for watch in watches:
        if watch.module is module:
            if rows is not None and rows != watch._rows:
                raise MeterError(
                    f"meter {meter.name!r} watches this {type(module).__name__} with rows={watch._rows!r} already, and "
                    f"got rows={rows!r}. Call unwatch(module) first."
                )
            watch._claims += 1
            return watch
    if not shared:
        _refuse_taken(meter, watches, module, name)
    watch = Watch()
    watch._reports = meter.convention == "matmul" and static is None and hasattr(module, REPORT)
    watch._decides, watch._rows, watch._owner = static is None, rows, owner
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
    if owner is None:  # an agent that says whose its actor is acts by engines of its own, which ask for plain layers
        watch.probe(module)
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
