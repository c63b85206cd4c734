"""Many trainings: one after the other in this process, or in worker processes.

An error in a job, or the end of the loop over ``run_jobs``, asks running jobs to stop, and waits for them. So does the
first signal (``agents.runs.interrupt``); the second one kills the workers. A worker that was killed costs nothing but
what its job did since its last checkpoint: the job is tried again, then reported as ``Lost``, and the others go on.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, TypeVar

from agents.loop.callbacks import Callback
from agents.runs.interrupt import EPISODE, Interrupted, Stop, interruptible
from agents.runs.pool import Worker, WorkerTracebackError
from agents.runs.progress import progress_bar
from budget_wrappers.errors import WorkerLostError

__all__ = ["Advance", "Lost", "Told", "progress_bar", "require_none_lost", "run_jobs"]

REPORT_EVERY = 50
"""Environment steps between two signs of life of a training."""
TRIES = 3
"""How often a job is begun whose process is killed each time."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Advance = Callable[[int], bool]
"""Told how many steps were taken since the last call; returns whether to go on."""


@dataclass(frozen=True)
class Lost:
    """In place of a result: the job's process ended without one each time.

    Attributes:
        how: the last process ended, such as ``"killed by SIGKILL"``.
        tries: how often the job was begun.
    """

    how: str
    tries: int

    def __str__(self) -> str:
        return f"its process was {self.how}" if self.tries == 1 else f"its process was {self.how}, {self.tries} times"


def run_jobs(
    do: Callable[[Job, Advance], Result], jobs: Sequence[Job], advance: Callable[[int], Any], workers: int
) -> Iterator[tuple[Job, Result | Lost]]:
    """Yield each job with its result as it is finished, or with ``Lost``.

    Close the iterator (``contextlib.closing``) where the loop over it may end early.

    Args:
        do: does a job; with several workers a function of a module, or a ``functools.partial`` of one.
        jobs: hashable, plain data.
        advance: called here with the steps that any job took.
        workers: processes, one job each at a time; 1 stays in this process.

    Raises:
        Interrupted: a signal has asked to stop, and what ran has stopped.
    """
    yield from _in_this_process(do, jobs, advance) if workers == 1 else _in_workers(do, jobs, advance, workers)


def require_none_lost(lost: dict[Any, Lost], name: Callable[[Any], str], again: str) -> None:
    """Raise unless ``lost`` is empty.

    Args:
        lost: jobs without a result.
        name: returns what a user calls a job.
        again: what to do, once memory is free.

    Raises:
        WorkerLostError: with the name of each job and how its process ended.
    """
    if lost:
        named = "; ".join(f"{name(job)} ({how})" for job, how in lost.items())
        raise WorkerLostError(
            f"no result of {named}: expected processes that live until they return one; where memory ran out, give "
            f"fewer --workers or free some. {again}"
        )


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
    asked = Stop()

    def on(steps: int) -> bool:
        advance(steps)
        return asked.reason is None

    with interruptible(asked, EPISODE):
        for job in jobs:
            result = do(job, on)
            asked.obey()
            yield job, result


def _in_workers(do: Any, jobs: Sequence[Any], advance: Callable[[int], Any], workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield each job with its result as a worker finishes it; whatever ends this loop ends the workers."""
    waiting, tries, told = deque(jobs), dict.fromkeys(jobs, 0), dict.fromkeys(jobs, 0)
    staff: dict[Any, Worker] = {}
    asked = Stop()
    with interruptible(asked, EPISODE):
        try:
            while waiting or any(worker.job is not None for worker in staff.values()):
                asked.obey()
                _hand_out(do, waiting, tries, staff, workers)
                for ready in connection.wait(list(staff), timeout=0.2):
                    worker = staff[ready]
                    kind, content = worker.receive()
                    if kind == "begun":
                        continue
                    if kind == "steps":
                        told[worker.job] += content
                        advance(content)
                        continue
                    job, worker.job = worker.job, None
                    if kind == "died":
                        worker.end()
                        del staff[ready]
                        if job is None:
                            continue
                        advance(-told[job])  # the next try tells of its steps anew
                        told[job] = 0
                        if tries[job] < TRIES:
                            note(f"{name_of(job)}: its process was {content}; it is tried again")
                            waiting.append(job)
                        else:
                            yield job, Lost(content, tries[job])
                    elif kind == "failed":
                        error, where = content
                        raise error from WorkerTracebackError(where)
                    else:
                        yield job, content
        except Interrupted:
            if not asked.obeyed:
                _kill(staff)
            raise
        finally:
            _let_end(staff)


def _hand_out(do: Any, waiting: deque[Any], tries: dict[Any, int], staff: dict[Any, Worker], workers: int) -> None:
    """Give jobs to workers without one, new ones up to ``workers``, and end workers that are not needed any more."""
    for place, worker in list(staff.items()):
        if worker.job is None and not waiting:
            worker.end()
            del staff[place]
    while waiting:
        free = next((worker for worker in staff.values() if worker.job is None), None)
        if free is None:
            if len(staff) >= workers:
                return
            free = Worker()
            staff[free.connection] = free
        job = waiting.popleft()
        tries[job] += 1
        free.give(do, job)


def _let_end(staff: dict[Any, Worker]) -> None:
    """Ask all workers to stop, and wait until they have ended; a signal meanwhile kills them."""
    try:
        for worker in staff.values():
            worker.stop()
        while staff:
            for ready in connection.wait(list(staff)):
                if staff[ready].receive()[0] == "died":
                    staff.pop(ready).end()
    finally:
        _kill(staff)


def _kill(staff: dict[Any, Worker]) -> None:
    """End all workers at once."""
    while staff:
        staff.popitem()[1].kill()


def name_of(job: Any) -> str:
    """Return what messages call ``job``."""
    return str(getattr(job, "name", None) or getattr(job, "file", job)).removesuffix(".json")


def note(text: str) -> None:
    """Write a line to standard error, beside a bar that may stand there."""
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()
