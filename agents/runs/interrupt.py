"""Interrupts that lose nothing: one handler of SIGINT, SIGTERM and SIGHUP for every command.

The first signal asks the work that listens (a training, a study) to stop where it can be resumed. Where nothing listens
(an evaluation, a table) the first signal stops at once, as the second one does everywhere. After that a command ends
the process without another word: every file is written whole or not at all, so no file is harmed.

Python hands signals to the main thread only: in another thread, and in a worker process whose parent handles them
(``leave_to_parent``), nothing is handled here. A SIGHUP that is ignored already (``nohup``) stays ignored.
"""

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, what schedulers send, and what a closed terminal sends (the last one not on Windows)."""
EPISODE = "Stopping at the end of the running episode, then saving"
"""What a training says at the first signal."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = int(number)


class Stoppable(Protocol):
    """Work that can be asked to stop, such as ``agents.loop.callbacks.StopWhen``."""

    def stop(self, reason: int) -> None:
        """Take the signal's number; called in the middle of anything, so it may only set flags."""


class Stop:
    """A request to stop, for loops that look at it now and then.

    Attributes:
        reason: number of the signal that asked, ``None`` before.
        obeyed: whether ``obey`` has raised.
    """

    reason: int | None = None
    obeyed = False

    def stop(self, reason: int) -> None:
        """Ask."""
        self.reason = reason

    def obey(self) -> None:
        """Raise ``Interrupted`` if a signal has asked."""
        if self.reason is not None:
            self.obeyed = True
            raise Interrupted(self.reason)


class _Signals:
    """What has come in, and who listens; one for the process, as signals are.

    Attributes:
        listening: innermost work last, with what to tell the user when it is asked.
        depth: of nested ``interruptible`` blocks.
        raised: whether ``Interrupted`` was raised since the outermost block began.
        asked: whether the listeners were asked since then.
        exits: whether the outermost block is a command's, which owns the process.
        left: whether the parent process handles signals.
    """

    def __init__(self) -> None:
        self.listening: list[tuple[Stoppable, str]] = []
        self.depth, self.raised, self.asked, self.exits, self.left = 0, False, False, False, False

    def handle(self, number: int, _: FrameType | None) -> None:
        if hasattr(signal, "SIGHUP") and number == signal.SIGHUP:
            silence_closed_terminal()
        if self.raised and self.exits:
            _end(number)
        if self.listening and not self.asked:
            self.asked = True
            for work, _ in self.listening:
                work.stop(number)
            write(f"\n{self.listening[0][1]}. Once more stops at once.\n")
            return
        self.raised = True
        raise Interrupted(number)


def _end(number: int, _: FrameType | None = None) -> None:
    """End the process without a traceback, whatever it is at."""
    os._exit(128 + number)


_signals = _Signals()


@contextlib.contextmanager
def interruptible(work: Stoppable | None = None, telling: str = EPISODE, command: bool = False) -> Iterator[None]:
    """Turn the first signal into ``work.stop(number)`` and the next one into ``Interrupted``, a ``KeyboardInterrupt``.

    Blocks may be nested: the first signal asks the work of all of them, and the handlers from before come back at the
    end of each. Only the main thread gets signals: elsewhere this does nothing.

    Args:
        work: asked to stop; without any in this block or around it the first signal raises.
        telling: what the user is told then, without a full stop.
        command: whether the process is this block's alone. Then a signal that follows ``Interrupted``, or the end of
            the block, ends the process with the exit status 128 + number.
    """
    if _signals.left or threading.current_thread() is not threading.main_thread():
        yield
        return
    if _signals.depth == 0:
        _signals.raised, _signals.asked, _signals.exits = False, False, command
    _signals.depth += 1
    if work is not None:
        _signals.listening.append((work, telling))
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ignored = signal.SIG_IGN
    # ``None`` is a handler that Python did not install and cannot put back.
    ours = [n for n, old in before.items() if old is not None and not (old is ignored and n != signal.SIGINT)]
    for number in ours:
        signal.signal(number, _signals.handle)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, _end if command else before[number])
        _signals.depth -= 1
        if work is not None:
            _signals.listening.remove((work, telling))


def leave_to_parent() -> None:
    """Ignore the signals from now on, in a worker: the parent gets them, too, and asks its workers to stop."""
    _signals.left = True
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def status(error: KeyboardInterrupt) -> int:
    """Return the exit status of a command that ``error`` ended: 128 + the signal's number.

    >>> status(Interrupted(15)), status(KeyboardInterrupt())
    (143, 130)
    """
    return 128 + getattr(error, "number", int(signal.SIGINT))


def write(text: str) -> None:
    """Write to standard error from a signal handler."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, RuntimeError):
        # The terminal or pipe is gone, or the signal came in the middle of another write there, which Python refuses.
        # What was asked for goes on without the words.
        return


def silence_closed_terminal() -> None:
    """Send standard output and error to nowhere where their terminal was closed, which any write would raise for."""
    for stream in (1, 2):
        try:
            closed = stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream)
        except OSError:
            continue  # the stream was closed already
        if closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
