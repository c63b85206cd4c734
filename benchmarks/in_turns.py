"""Two versions of the code that are timed in turns, each in a worker process of its own, both on one core."""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.unmoved import describe, export


def arguments_of(doc: str, folder: str, unit: str, default: int) -> argparse.Namespace:
    """Read ``OLD NEW`` from the command line, and how many of ``unit`` make a turn."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument(f"--{unit}", type=int, default=default, help="of one turn")
    parser.add_argument("--rounds", type=int, default=61, help="turns of each version")
    parser.add_argument("--output", type=Path, help=f"by default results/{folder}/<old>-<new>.json")
    return parser.parse_args()


def settle(tree: str) -> None:
    """Stay on one core, which both workers share as they never run at once, and check whose code this is."""
    import budget_wrappers

    if hasattr(os, "sched_setaffinity"):  # cores are not alike
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if Path(tree).resolve() not in Path(budget_wrappers.__file__).resolve().parents:
        sys.exit(f"budget_wrappers was imported from {budget_wrappers.__file__}, not from {tree}")


@contextmanager
def workers(file: str, revisions: tuple[str, str]) -> Iterator[tuple[list[dict[str, Any]], list[subprocess.Popen]]]:
    """Start ``file --worker TREE`` for each of two commits, or ``WORKTREE``; yield what they are and the processes."""
    versions = [describe(revision) for revision in revisions]
    with TemporaryDirectory() as folder:
        processes = []
        for number, version in enumerate(versions):
            tree = export(version, Path(folder) / str(number))
            environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parents[1]}"}
            environment["OMP_NUM_THREADS"] = "1"
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            command = [sys.executable, "-P", file, "--worker", str(tree)]
            processes.append(subprocess.Popen(command, env=environment, cwd=tree, **pipes))
        yield versions, processes
        for process in processes:
            process.stdin.close()
            process.wait()


def asked(process: subprocess.Popen, question: str) -> float:
    """Return the seconds that a worker answers a line with."""
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def take_turns(processes: list[subprocess.Popen], question: str, rounds: int) -> dict[str, Any]:
    """Return seconds of each turn of both versions, and how many times as fast the new one is.

    The median is of the ratios of neighbouring turns, for which the machine was the same.
    """
    for process in processes:
        asked(process, question)
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            seconds[which].append(asked(processes[which], question))
    ratios = [old / new for old, new in zip(*seconds, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratio_of_the_fastest": min(seconds[0]) / min(seconds[1]),
        "seconds": seconds,
    }
