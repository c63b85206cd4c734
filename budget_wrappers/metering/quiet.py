"""How meters charge at this moment, and how ``count_flops`` keeps all of them from charging what it runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

# Values of a meter's ``mode``, compared as numbers on every forward: gradients decide whether a forward is acting or
# learning; it is acting; nothing is charged.
BY_GRADIENT, ACTING, SILENT = 0, 1, 2

METERS: WeakSet[Any] = WeakSet()
"""Every meter in the process."""

_DEPTH: ContextVar[int] = ContextVar("runs for their FLOPs that are under way in this context", default=0)

UNDER_WAY = [0]
"""Runs for their FLOPs that are under way in the whole process: what is asked first, as it costs least."""
_LOCK = threading.Lock()


def counting() -> bool:
    """Tell whether this thread or task runs something for its FLOPs, so that no meter is charged by it."""
    return UNDER_WAY[0] > 0 and _DEPTH.get() > 0


@contextmanager
def all_quiet() -> Iterator[None]:
    """Charge no meter from this thread or task, as a forward that is run for its FLOPs has not acted.

    Other threads go on charging theirs.
    """
    # Set back by hand: a generator may be closed in another context, where a token is worth nothing.
    depth = _DEPTH.get()
    _DEPTH.set(depth + 1)
    with _LOCK:
        UNDER_WAY[0] += 1
    try:
        yield
    finally:
        with _LOCK:
            UNDER_WAY[0] -= 1
        _DEPTH.set(depth)
