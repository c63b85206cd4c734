"""Jobs for worker processes, in a module that is imported quickly."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from budget_wrappers.errors import ConfigError

Advance = Callable[[int], bool]


@dataclass(frozen=True)
class Job:
    """What Ray is given: a job with a name, and a folder that every machine sees."""

    name: str
    folder: str


def tell(job: Path, what: str) -> int:
    """Append a letter to a file beside ``job``, and return how many it has."""
    with job.with_suffix(f".{what}").open("a") as file:
        file.write("x")
    return len(job.with_suffix(f".{what}").read_text())


def count(job: Path, advance: Advance) -> str:
    """Take ten steps; ``die-…`` is killed in the middle the first time, ``lost-…`` each time, by what follows."""
    begun = tell(job, "begun")
    for step in range(10):
        advance(1)
        kind, _, how = job.name.partition("-")
        if step == 5 and (kind == "lost" or (kind == "die" and begun == 1)):
            if how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.Signals[how])
    return job.name


def until_told(job: Path, advance: Advance) -> str:
    """Take steps until told to stop, then save."""
    tell(job, "begun")
    while advance(1):
        time.sleep(0.01)
    tell(job, "saved")
    return job.name


def never_told(job: Path, advance: Advance) -> str:
    """Do what takes for ever and asks nobody, as an evaluation of an episode that does not end."""
    tell(job, "begun")
    while True:
        time.sleep(0.01)


def signalled(job: Path, advance: Advance) -> str:
    """Send the signal of ``<signal>-…`` to this process, then take steps until told to stop."""
    tell(job, "begun")
    signal.raise_signal(signal.Signals[job.name.partition("-")[0]])
    for _ in range(100):
        if not advance(1):
            tell(job, "saved")
            break
    return job.name


class UnsendableError(Exception):
    """An exception that cannot be made again from what it was made of."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def fail(job: Path, advance: Advance) -> str:
    """Raise what the job is named after."""
    if job.name == "unsendable":
        raise UnsendableError("one", "two")
    raise ValueError(f"{job.name} is refused")


def die_or_return(job: Job, advance: Advance) -> str:
    """End the process of ``dies`` each time; any other job returns."""
    if job.name == "dies":
        os._exit(1)
    return job.name


def fail_or_wait(job: Job, advance: Advance) -> str:
    """Raise in one job when the other has begun; there, go on until asked to stop."""
    begun = Path(job.folder) / "begun"
    if job.name == "waits":
        begun.touch()
        while advance(1):
            time.sleep(0.01)
        (Path(job.folder) / "stopped").touch()
    while not begun.exists():
        time.sleep(0.01)
    raise ConfigError(f"{job.name} is refused")
