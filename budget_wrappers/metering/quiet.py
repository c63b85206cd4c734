"""How meters charge at this moment, and how ``count_flops`` keeps all of them from charging what it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

# Values of a meter's ``mode``, compared as numbers on every forward: gradients decide whether a forward is acting or
# learning; it is acting; nothing is charged.
BY_GRADIENT, ACTING, SILENT = 0, 1, 2

METERS: WeakSet[Any] = WeakSet()
"""Every meter in the process."""


@contextmanager
def all_quiet() -> Iterator[None]:
    """Silence every meter, as a forward that is run for its FLOPs has not acted."""
    before = [(meter, meter.mode) for meter in list(METERS)]
    for meter, _ in before:
        meter.mode = SILENT
    try:
        yield
    finally:
        for meter, mode in before:
            meter.mode = mode
