"""A meter counts in the process where the policy acts: what refuses to let it be read, or taken, elsewhere."""

import os
from threading import get_ident
from typing import NoReturn

from budget_wrappers.errors import MeterError
from budget_wrappers.metering.quiet import METERS
from budget_wrappers.metering.state import MeterState


def refuse_pickling(meter: MeterState) -> NoReturn:
    """Raise MeterError with the ways to do without."""
    raise MeterError(
        f"meter {meter.name!r} was about to be pickled, into another process or a file; it counts in the process "
        "where the policy acts. Give wrappers the meter's name instead of the object; with environments in worker "
        "processes leave the wrapper out of them and wrap the vector environment, in the main process, with the one "
        "of the same name in budget_wrappers.wrappers.vector. To save its numbers use state_dict()."
    )


def check_home(meter: MeterState) -> None:
    """Accept a forked process once something has been charged in it.

    Raises:
        MeterError: nothing has.
    """
    executed, learned, _ = meter._taken
    if (meter.executed, meter.learned) != (executed, learned):
        meter._foreign = False
        return
    raise MeterError(
        f"meter {meter.name!r} was read in a worker process that was forked from the one it counts in, and nothing "
        "has charged it here: every cost would be 0. Leave the wrapper out of the workers' environments and wrap the "
        "vector environment, in the main process, with the one of the same name in budget_wrappers.wrappers.vector; a "
        "policy that lives in this process needs watch() or add() here."
    )


def _mark_foreign() -> None:
    """Mark every meter as another process's, with nothing pending: runs in the child after a fork."""
    for meter in list(METERS):
        if meter.thread != get_ident():  # whoever was inside is not in this process
            meter.thread = meter.depth = 0
        meter.discard()
        meter._foreign = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_foreign)

__all__ = ["check_home", "refuse_pickling"]
