"""What a meter's phases do: choose how forwards are charged, and count everything that runs while learning."""

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from budget_wrappers.core import Phase
from budget_wrappers.errors import MeterError
from budget_wrappers.metering.counting import CountingMode, eagerly
from budget_wrappers.metering.quiet import ACTING, BY_GRADIENT, SILENT
from budget_wrappers.metering.state import MeterState

AnyMeter = TypeVar("AnyMeter", bound=MeterState)

_SPENT = ("executed", "uncharged", "unpaid", "learned", "_paid", "_taken")
_ROWS = ("pending_rows", "last_rows", "_rows")
_ACTED = ("calls", "closed_calls", "last_calls", "acting", "mixed", "payer")


def _open(meter: MeterState, mode: int) -> list[int]:
    """Have ``meter`` charge by ``mode`` from now on; return what ``_close`` needs."""
    opening = [mode]
    meter.openings.append(opening)
    meter.mode = mode
    return opening


def _close(meter: MeterState, opening: list[int]) -> None:
    """End a mode, whether or not others were opened since: generators need not end in the order of their beginning."""
    meter.openings[:] = [other for other in meter.openings if other is not opening]
    meter.mode = meter.openings[-1][0] if meter.openings else BY_GRADIENT


@contextmanager
def in_mode(meter: MeterState, mode: int) -> Iterator[None]:
    """Charge forwards by ``mode`` inside, and count none of them as learning."""
    meter.enter()
    opening = _open(meter, mode)
    # A learning phase around this one; when pausing, also the count of a forward that this is inside of.
    counters = [meter.learn_counter, meter.frames.counter if mode == SILENT else None]
    stopped = [counter for counter in counters if counter is not None and counter.enabled]
    for counter in stopped:
        counter.enabled = False
    try:
        yield
    finally:
        _close(meter, opening)
        for counter in stopped:
            counter.enabled = True
        meter.leave()


@contextmanager
def learning(meter: MeterState, key: Hashable | None) -> Iterator[None]:
    """Charge every product inside to learning: counted, or added where ``key`` has been counted before."""
    meter.require_turn()
    if meter.learn_counter is not None or meter.mode == SILENT:
        yield  # already inside a learning phase, or paused
        return
    meter.enter()
    opening = _open(meter, SILENT)
    known = None if key is None else meter.learn_costs.get(key)
    counter = meter.learn_counter = CountingMode(meter.convention, where=meter.held_here)
    try:
        if known is None:
            with eagerly(), counter:
                yield
        else:
            counter.enabled = False
            yield
    finally:
        _close(meter, opening)
        meter.learn_counter = None
        # Cut short, it is charged for what ran.
        meter.learned += counter.flops
        meter.leave()
    if known is not None:
        meter.learned += known
    elif counter.refused is not None:
        raise counter.refused
    elif key is not None:
        meter.learn_costs[key] = counter.flops


def in_phase(meter: MeterState, phase: Phase, key: Hashable | None) -> AbstractContextManager[None]:
    """Return the phase: see ``ComputeMeter.phase``."""
    if phase == "learn":
        return learning(meter, key)
    if phase != "act":
        raise MeterError(f"phase={phase!r}; expected 'act' or 'learn'")
    if key is not None:
        raise MeterError(f"phase('act', key={key!r}): only learning is measured once a key; watch the module that acts")
    return in_mode(meter, ACTING)


@contextmanager
def aside(meter: AnyMeter) -> Iterator[AnyMeter]:
    """Charge as usual inside, then put every account back: see ``ComputeMeter.aside``."""
    meter.enter()
    numbers = {name: getattr(meter, name) for name in (*_SPENT, *_ROWS, *_ACTED, "used")}
    names, ledger, graded = dict(meter.names), meter.row_ledger, dict(meter.graded)
    charges = [] if ledger is None else list(ledger.charges)
    try:
        yield meter
    finally:
        meter.leave()
        if ledger is not None:
            ledger.charges.clear()
            ledger.charges.extend(charges)
        for name, value in numbers.items():
            setattr(meter, name, value)
        meter.graded = graded
        # What was watched inside for the first time stays watched, and keeps its name.
        meter.used = meter.used or bool(meter._watches)
        named = {**names, **{watch.name: names.get(watch.name, 0) for watch in meter._watches}}
        meter.names.clear()
        meter.names.update(named)


@contextmanager
def uncharging(meter: AnyMeter) -> Iterator[AnyMeter]:
    """Count what acts inside as executed, and let no budget pay for it: see ``ComputeMeter.uncharging``."""
    meter.enter()
    pending, rows, ledger = meter.pending_flops, meter.pending_rows, meter.row_ledger
    earlier = [] if ledger is None else list(ledger.charges)
    names, closed = dict(meter.names), (meter._taken, meter._paid)
    try:
        yield meter
    finally:
        meter.leave()
        left = meter.pending_flops - pending
        if left > 0:  # an environment inside that closes its steps leaves nothing, or drops what was pending before
            since = names if meter._taken is closed[0] else meter._taken[2]
            for name, flops in meter.names.items():
                if flops > since.get(name, 0):
                    meter.unpaid = {**meter.unpaid, name: meter.unpaid.get(name, 0) + flops - since.get(name, 0)}
            meter.uncharged += left
            meter._rows += max(meter.pending_rows - rows, 0)
            meter.pending_rows = rows
            if ledger is not None:
                ledger.charges.clear()
                if meter._taken is closed[0] and meter._paid == closed[1]:
                    ledger.charges.extend(earlier)
