"""How meters charge at this moment, and how ``count_flops`` keeps all of them from charging what it runs."""

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

counting = _DEPTH.get
"""Tells how many runs for their FLOPs are under way here: above 0 no meter is charged by this thread or task."""


@contextmanager
def all_quiet() -> Iterator[None]:
    """Charge no meter from this thread or task, as a forward that is run for its FLOPs has not acted.

    Other threads go on charging theirs.
    """
    # Set back by hand: a generator may be closed in another context, where a token is worth nothing.
    depth = _DEPTH.get()
    _DEPTH.set(depth + 1)
    try:
        yield
    finally:
        _DEPTH.set(depth)
