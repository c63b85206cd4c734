"""What is running right now under one meter: watched modules inside watched modules, and the counter they share."""

import sys
from dataclasses import dataclass
from typing import Any

from budget_wrappers.core import Convention
from budget_wrappers.metering.counting import CountingMode


@dataclass(slots=True)
class Frame:
    """One forward of a watched module, from its start to its end.

    Attributes:
        owner: the watch whose module runs.
        start: the shared counter at the start.
        error: the exception that was being handled at the start, to tell one that the forward raised.
        inner: FLOPs that watched modules inside account for, as this frame's own count sees them.
        spent: FLOPs that watched modules inside were charged for.
    """

    owner: Any
    start: int
    error: BaseException | None
    inner: int = 0
    spent: int = 0

    @property
    def failed(self) -> bool:
        """Whether the forward is ending in an exception of its own."""
        return sys.exc_info()[1] is not self.error


class Frames:
    """A stack of frames and the counting mode that the outermost counted one entered.

    Args:
        convention: of the counter.

    Attributes:
        stack: running frames, innermost last.
        counter: the mode that is counting, or None.
    """

    __slots__ = ("_entered_by", "convention", "counter", "stack")

    def __init__(self, convention: Convention) -> None:
        self.convention = convention
        self.stack: list[Frame] = []
        self.counter: CountingMode | None = None
        self._entered_by: Frame | None = None

    def enter(self, owner: Any, counted: bool, traced: bool = False) -> None:
        """Start a frame; a counted one makes sure that a counter runs, which notes what rows cost if ``traced``."""
        frame = Frame(owner, 0, sys.exc_info()[1])
        if self.counter is not None:
            frame.start = self.counter.flops
        elif counted:
            self.counter, self._entered_by = CountingMode(self.convention), frame
            self.counter.traced = traced
            self.counter.__enter__()
        self.stack.append(frame)

    def leave(self, owner: Any) -> tuple[Frame, int | None, CountingMode | None] | None:
        """End the innermost frame if it is ``owner``'s; return it, what the counter saw, and the counter, if any.

        Raises:
            UncountableError: an operator could not be counted and the module caught the error.
        """
        # A forward pre-hook of somebody else may raise before ours has run: then there is no frame to end.
        if not self.stack or self.stack[-1].owner is not owner:
            return None
        frame = self.stack.pop()
        if self.counter is None:
            return frame, None, None
        counter, seen = self.counter, self.counter.flops - frame.start
        if self._entered_by is frame:
            self._stop()
            if counter.refused is not None and not frame.failed:
                raise counter.refused
        return frame, seen, counter

    def abandon(self) -> None:
        """Forget frames that an interrupt left open: torch runs no hook after a KeyboardInterrupt."""
        self.stack.clear()
        if self.counter is not None:
            self._stop()

    def _stop(self) -> None:
        counter, self.counter, self._entered_by = self.counter, None, None
        if counter is not None:
            counter.__exit__(None, None, None)
