"""Many trainings: one after the other in this process, or in worker processes, with one bar over all.

Whatever ends the loop over ``run_jobs`` (an error, an interrupt) asks running jobs to stop, and waits for them.
"""

import multiprocessing
import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from agents.loop.callbacks import Callback

REPORT_EVERY = 50
"""Environment steps between two signs of life of a training."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Advance = Callable[[int], bool]
"""Told how many steps were taken since the last call; returns whether to go on."""


def run_jobs(
    do: Callable[[Job, Advance], Result], jobs: Sequence[Job], advance: Callable[[int], Any], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with its result as it is finished.

    Args:
        do: does a job; with several workers a function of a module, or a ``functools.partial`` of one.
        jobs: hashable, plain data.
        advance: called here with the steps that any job took.
        workers: processes, one job each at a time; 1 stays in this process.
    """
    yield from _in_this_process(do, jobs, advance) if workers == 1 else _in_workers(do, jobs, advance, workers)


@contextmanager
def progress_bar(total: int, label: str, shown: bool | None = None) -> Iterator[Callable[[int], Any]]:
    """Show one bar over all jobs; yield what advances it by environment steps.

    Args:
        total: environment steps of all.
        label: in front of it.
        shown: by default where standard error is a terminal.
    """
    from tqdm import tqdm

    shown = sys.stderr.isatty() if shown is None else shown
    with tqdm(total=total, unit="step", unit_scale=True, dynamic_ncols=True, disable=not shown, desc=label) as bar:
        yield bar.update


class Told(Callback):
    """Tells how many steps were taken, now and then, and stops when the answer is ``False``.

    Args:
        advance: whom it tells.
    """

    def __init__(self, advance: Advance) -> None:
        self.advance, self.told, self.stopped = advance, 0, False

    def on_step(self, agent: Any) -> bool:
        if agent.num_timesteps - self.told >= REPORT_EVERY:
            self._tell(agent)
        return not self.stopped

    def on_training_end(self, agent: Any) -> None:
        self._tell(agent)

    def _tell(self, agent: Any) -> None:
        self.stopped |= not self.advance(agent.num_timesteps - self.told)
        self.told = agent.num_timesteps


def _in_this_process(do: Any, jobs: Iterable[Any], advance: Callable[[int], Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each job with its result."""

    def on(steps: int) -> bool:
        advance(steps)
        return True

    for job in jobs:
        yield job, do(job, on)


def _in_workers(do: Any, jobs: Sequence[Any], advance: Callable[[int], Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield each job with its result as a worker finishes it; whatever ends this loop ends the workers."""
    if not jobs:
        return
    # Spawned, as a forked process would share torch's threads and generators.
    context = multiprocessing.get_context("spawn")
    steps, stop = context.Queue(), context.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (steps, stop))
    try:
        running = {pool.submit(_work, do, job): job for job in jobs}
        while running:
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for count in _drained(steps):
                advance(count)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _drained(steps: Any) -> Iterator[int]:
    while True:
        try:
            yield steps.get_nowait()
        except queue.Empty:
            return


_link: tuple[Any, Any] | None = None
"""In a worker: the queue that takes steps, and the event that stops it."""


def _start_worker(steps: Any, stop: Any) -> None:
    """Prepare a worker: one thread, and interrupts are the parent's business."""
    import signal

    global _link
    _link = steps, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _work(do: Any, job: Any) -> Any:
    """Do one job in a worker; nobody waits for the result of one that was stopped."""
    steps, stop = _link
    parent = multiprocessing.parent_process()

    def advance(count: int) -> bool:
        steps.put(count)
        return parent.is_alive() and not stop.is_set()

    return do(job, advance)
