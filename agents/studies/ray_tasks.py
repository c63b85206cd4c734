"""Trainings as Ray tasks, on this machine or on a cluster: the same trainings in the same run folders.

A task is told plain data and saves in its run folder; no agent is sent.

Tasks end with the process that waits for them, as Ray sees to. Where that process is killed (SIGKILL) and had started
Ray itself, two small helpers of Ray (``DashboardAgent``, ``RuntimeEnvAgent``) may stay behind.
"""

import dataclasses
import importlib
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from agents.runs.interrupt import Interrupted, Stop, interruptible
from agents.runs.workers import TRIES, Advance, Lost, Result, note
from budget_wrappers.errors import ConfigError, MissingExtraError

LOCAL = "local"
"""The address that starts Ray on this machine."""


def run_on_ray(
    do: Callable[[Any, Advance], Result],
    jobs: Sequence[Any],
    advance: Callable[[int], Any],
    workers: int,
    address: str = LOCAL,
) -> Iterator[tuple[Any, Result | Lost]]:
    """Yield each training with its result as it is finished, as ``agents.runs.workers.run_jobs`` does.

    Whatever ends the loop (a task that failed, a first signal) asks running tasks to stop, and waits for them; a second
    signal ends them. A task whose process is killed, for want of memory or otherwise, is tried again, then ``Lost``.

    Args:
        do: does a training; a function of a module that every machine of the cluster has.
        jobs: the trainings, frozen dataclasses with a ``name`` and a ``folder``, which every machine sees at the same
            path.
        advance: called here with the steps that any of them took.
        workers: tasks at a time, one CPU each.
        address: ``local``, ``auto``, or of a cluster; unused where this process is connected already, and the
            connection is left open.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster at the address, or a machine that does not see the folder.
    """
    if not jobs:
        return
    ray = connected_ray(address, workers)
    link = ray.remote(num_cpus=0)(_Link).remote()
    # Tried again here and not by Ray, which has no bound for tasks that ran out of memory.
    task = ray.remote(num_cpus=1, max_retries=0)(_work)
    waiting, running, tries = deque(jobs), {}, dict.fromkeys(jobs, 0)
    asked = Stop()
    with interruptible(asked):  # Ray has put its own handler of SIGTERM there
        try:
            while waiting or running:
                asked.obey()
                while waiting and len(running) < workers:
                    job = waiting.popleft()
                    tries[job] += 1
                    Path(job.folder).mkdir(parents=True, exist_ok=True)
                    # A worker's working directory is another one.
                    there = dataclasses.replace(job, folder=str(Path(job.folder).absolute()))
                    running[task.remote(do, there, link)] = job
                done, _ = ray.wait(list(running), timeout=0.2)
                advance(ray.get(link.taken.remote()))
                for one in done:
                    job = running.pop(one)
                    result = _result(ray, one, tries[job])
                    if isinstance(result, Lost) and tries[job] < TRIES:
                        note(f"{job.name}: {result}; it is tried again")
                        waiting.append(job)
                    else:
                        yield job, result
        except Interrupted:
            if not asked.obeyed:
                _cancel(ray, running)
            raise
        finally:
            link.stop.remote()
            _wait_for(ray, running)


def _wait_for(ray: ModuleType, running: dict[Any, Any]) -> None:
    """Wait until the tasks have ended; a signal meanwhile ends them."""
    try:
        if running:
            ray.wait(list(running), num_returns=len(running))
    except Interrupted:
        _cancel(ray, running)
        raise


def _cancel(ray: ModuleType, running: dict[Any, Any]) -> None:
    """End tasks at once."""
    while running:
        ray.cancel(running.popitem()[0], force=True)


def connected_ray(address: str, workers: int) -> ModuleType:
    """Return Ray, connected to ``address``; ``local`` gets a CPU for each worker.

    Raises:
        MissingExtraError: it is not installed.
        ConfigError: no cluster at the address.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(
            f"ray={address!r} needs Ray, which cannot be imported ({error}): expected `import ray` to work; "
            "pip install 'budget-wrappers[ray]', or leave the option out for processes of this machine"
        ) from error
    if not ray.is_initialized():
        alone = {"num_cpus": workers, "include_dashboard": False} if address == LOCAL else {}
        try:
            ray.init(address, logging_level="WARNING", **alone)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"ray={address!r}: cannot connect ({error}); expected {LOCAL!r}, 'auto' or HOST:PORT of a cluster; "
                "start one with `ray start --head`"
            ) from error
    return ray


class _Link:
    """An actor between the tasks and who waits for them."""

    def __init__(self) -> None:
        self.steps, self.going_on = 0, True

    def tell(self, steps: int) -> bool:
        """Take what a task did; return whether to go on."""
        self.steps += steps
        return self.going_on

    def taken(self) -> int:
        """Return the steps since the last call."""
        steps, self.steps = self.steps, 0
        return steps

    def stop(self) -> None:
        self.going_on = False


class _Teller:
    """Tells the link what a task did, one call at a time, while the task goes on.

    Args:
        tell: takes steps, returns whether to go on, and may take its time.
        thread: where it is called. A task that waited in its own would hand its CPU to the next task.
    """

    def __init__(self, tell: Advance, thread: ThreadPoolExecutor) -> None:
        self.tell, self.thread, self.untold, self.going_on = tell, thread, 0, True
        self.answer = thread.submit(tell, 0)

    def __call__(self, steps: int) -> bool:
        """Take steps; return whether to go on, as of the last answer."""
        self.untold += steps
        if self.answer.done():
            self.going_on &= self.answer.result()
            self.ask()
        return self.going_on

    def ask(self) -> None:
        """Tell what was not told yet."""
        self.answer, self.untold = self.thread.submit(self.tell, self.untold), 0


def _work(do: Any, training: Any, link: Any) -> Any:
    """Do one training in a task."""
    import ray

    if not Path(training.folder).is_dir():
        raise ConfigError(
            f"folder={training.folder!r} is not on {platform.node()}: expected one that every machine of the cluster "
            "sees at this path; put it on a shared disk"
        )
    with ThreadPoolExecutor(1) as thread:
        teller = _Teller(lambda steps: ray.get(link.tell.remote(steps)), thread)
        result = do(training, teller)
        teller.ask()
    return result


def _result(ray: ModuleType, one: Any, tries: int) -> Any:
    """Return what a task returned, or ``Lost``, or raise what it raised, without Ray's text around it."""
    killed = ray.exceptions
    try:
        return ray.get(one)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (killed.WorkerCrashedError, killed.OutOfMemoryError, killed.NodeDiedError) as error:
        how = "killed for want of memory" if isinstance(error, killed.OutOfMemoryError) else "killed"
        return Lost(how, tries)
