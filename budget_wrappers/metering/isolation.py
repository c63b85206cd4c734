"""What stands around a run for its FLOPs: one at a time, by Python and torch's plain kernels, seen by nobody else."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch._C._dynamo import eval_frame
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack


class _Eagerly:
    """How many are running compiled functions as Python at this moment: torch has one setting for all threads.

    The first sets it and the last puts it back. Meanwhile other threads' compiled functions run as Python, too: they
    are slower, and their results are the same.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0
        self._stance: Any = None

    def enter(self) -> None:
        with self._lock:
            self._depth += 1
            if self._stance is None:
                self._stance = torch.compiler.set_stance("force_eager")

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                stance, self._stance = self._stance, None
                stance.__exit__(None, None, None)


_EAGERLY = _Eagerly()


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled functions as the Python they were made from, as a compiled kernel shows no operators."""
    # Nothing can be compiled before this module is loaded, and loading it takes a second.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    _EAGERLY.enter()
    try:
        yield
    finally:
        _EAGERLY.leave()


class SlowAttention(TorchFunctionMode):
    """Keeps attention of this thread off its fast path, which torch takes or leaves by the gradient mode of the caller.

    Its products are the same, but over a padded batch it drops the padding, and the answer would change with the mode.
    Torch's layers leave the path wherever somebody overrides functions, as this mode claims to do.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` as it is."""
        return func(*args, **(kwargs or {}))


@contextmanager
def alone() -> Iterator[None]:
    """Hide what runs from the modes of others, so that their counts and traces stay theirs."""
    # Only where there are any: the first call loads torch's compiler, which takes seconds.
    if not _get_current_dispatch_mode_stack():
        yield
        return
    with _disable_current_modes():
        yield


_SKIPPED = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)


def never_compile(function: Any) -> None:
    """Keep torch's compiler out of ``function`` and of what it calls, without loading it, which takes seconds."""
    eval_frame.set_code_exec_strategy(function.__code__, _SKIPPED)


_COUNTS = threading.RLock()


def one_at_a_time() -> AbstractContextManager[Any]:
    """Let no other thread run a module for its FLOPs: its buffers and attributes are copies meanwhile."""
    return _COUNTS


def _renew_locks() -> None:
    """Take new locks in a forked process: a thread that held one is not in it."""
    global _COUNTS
    _COUNTS, _EAGERLY._lock = threading.RLock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


__all__ = ["SlowAttention", "alone", "eagerly", "never_compile", "one_at_a_time"]
