"""Interrupts that lose nothing: the first asks training to stop where it can be resumed, the second stops it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from agents.loop.callbacks import StopWhen

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible(stop: StopWhen) -> Iterator[None]:
    """Turn the first Ctrl-C (or SIGTERM, which schedulers send) into ``stop.stop()``, the next into an interrupt.

    Only the main thread gets signals: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.stop(number)
        sys.stderr.write("\nStopping at the end of this episode, then saving. Once more stops at once.\n")

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
