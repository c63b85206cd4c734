"""One thread at a time: who is inside a meter's phase or forward, and what another thread or task that uses it gets."""

import sys
from contextvars import ContextVar
from threading import get_ident
from typing import Any

from budget_wrappers.errors import MeterError

_HELD: ContextVar[tuple[Any, ...]] = ContextVar("meters whose phases this thread or task has opened", default=())


class Inside:
    """What a meter inherits to know who is inside.

    Attributes:
        thread: the thread that is inside, 0 for none.
        depth: phases that are open.
    """

    __slots__ = ("depth", "thread")

    def __init__(self) -> None:
        self.thread = self.depth = 0

    def require_turn(self) -> None:
        """Check that nobody else is inside. Whoever calls it often looks at ``thread`` first.

        Raises:
            MeterError: another thread is inside, or another task of this one has a phase open.
        """
        if not self.thread:
            return
        same = self.thread == get_ident()
        if same and (not self.depth or any(held is self for held in _HELD.get())):
            return
        if not same and self.thread not in sys._current_frames():  # it has ended and left by no door
            self.thread = self.depth = 0
            return
        raise MeterError(
            f"meter {getattr(self, 'name', '')!r} was used from a second {'task' if same else 'thread'} while the "
            "first is inside one of its phases or in a forward of a module that it watches: whose FLOPs are acting, "
            "and whose learning, would be chance. Give each thread a meter of its own, ComputeMeter('name'), and its "
            "wrappers the same; or let one of them use it at a time."
        )

    def enter(self) -> None:
        """Go inside.

        Raises:
            MeterError: somebody else is.
        """
        self.require_turn()
        _HELD.set((*_HELD.get(), self))
        self.thread, self.depth = get_ident(), self.depth + 1

    def leave(self) -> None:
        """Come out again, in whatever order phases of several meters are closed."""
        held = list(_HELD.get())
        if self in held:  # not where a generator is closed in another context than it was opened in
            held.remove(self)
            _HELD.set(tuple(held))
        self.depth -= 1
        if self.depth <= 0:
            self.depth = 0
            self.release()

    def held_here(self) -> bool:
        """Tell whether this thread or task has opened a phase of this meter."""
        return self in _HELD.get()

    def release(self) -> None:
        """Note that forwards that were running are over."""
        if not self.depth and not self.running():
            self.thread = 0

    def running(self) -> bool:
        """Tell whether a forward is running that is counted, or that holds other watched modules."""
        return False


__all__ = ["Inside"]
