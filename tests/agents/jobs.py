"""Jobs for worker processes, in a module that is imported quickly."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

Advance = Callable[[int], bool]


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
