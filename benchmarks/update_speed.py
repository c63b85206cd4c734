"""Updates a second of plain agents with two versions of the code, in turns.

``python -m benchmarks.update_speed OLD NEW`` takes two commits, or ``WORKTREE``. Each version has one worker process;
they take turns of ``--updates`` gradient steps (``agent.train``), and change who begins. Reported are the medians, and
the median of the ratios of neighbouring turns, for which the machine was the same.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.card import RESULTS, store
from benchmarks.unmoved import describe, export, short

AGENTS = {"SAC": "Pendulum-v1", "TD3": "Pendulum-v1", "DQN": "CartPole-v1"}
WIDTHS = (64, 256)


def worker(tree: str) -> None:
    """Answer each line ``agent width updates`` on standard input with the seconds that the updates took."""
    import gymnasium as gym

    import agents

    if hasattr(os, "sched_setaffinity"):  # both on one core, as they never run at once: cores are not alike
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if Path(tree).resolve() not in Path(agents.__file__).resolve().parents:
        sys.exit(f"agents was imported from {agents.__file__}, not from {tree}")
    made: dict[tuple[str, int], Any] = {}
    for line in sys.stdin:
        name, width, updates = line.split()
        key = name, int(width)
        if key not in made:
            settings = {"net_arch": (key[1], key[1]), "learning_starts": 300, "buffer_size": 1_000}
            made[key] = getattr(agents, name)(gym.make(AGENTS[name]), **settings).learn(310)
        start = time.perf_counter()
        made[key].train(int(updates))
        print(time.perf_counter() - start, flush=True)


def asked(process: subprocess.Popen, question: str) -> float:
    """Return what a worker answers."""
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def compare(processes: list[subprocess.Popen], name: str, width: int, updates: int, rounds: int) -> dict[str, Any]:
    """Return seconds of each turn of both versions, and medians of updates a second and of their ratio."""
    question = f"{name} {width} {updates}"
    for process in processes:
        asked(process, question)
    seconds: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            seconds[which].append(asked(processes[which], question))
    ratios = [old / new for old, new in zip(*seconds, strict=True)]
    return {
        "agent": name,
        "width": width,
        "updates_per_second": [updates / statistics.median(own) for own in seconds],
        "ratio": statistics.median(ratios),
        "ratio_of_the_fastest": min(seconds[0]) / min(seconds[1]),
        "seconds": seconds,
    }


def main() -> None:
    """Run the benchmark as the command line says."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--updates", type=int, default=100, help="of one turn")
    parser.add_argument("--rounds", type=int, default=61, help="turns of each version")
    parser.add_argument("--output", type=Path, help="by default results/update_speed/<old>-<new>.json")
    arguments = parser.parse_args()
    versions = [describe(revision) for revision in (arguments.old, arguments.new)]
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for number, version in enumerate(versions):
            tree = export(version, Path(folder) / str(number))
            command = [sys.executable, "-P", __file__, "--worker", str(tree)]
            environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parents[1]}"}
            environment["OMP_NUM_THREADS"] = "1"
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=environment, cwd=tree, **pipes))
        rows = []
        for name in AGENTS:
            for width in WIDTHS:
                rows.append(compare(processes, name, width, arguments.updates, arguments.rounds))
                old, new = rows[-1]["updates_per_second"]
                fastest = rows[-1]["ratio_of_the_fastest"]
                print(
                    f"{name} 2×{width}: {old:7.1f} and {new:7.1f} updates a second, {rows[-1]['ratio']:.3f} times as "
                    f"fast (fastest turns {fastest:.3f})",
                    flush=True,
                )
        for process in processes:
            process.stdin.close()
            process.wait()
    named = f"{short(versions[0])}-{short(versions[1])}.json"
    store(arguments.output or RESULTS / "update_speed" / named, {"versions": versions, "rows": rows})


if __name__ == "__main__":
    main()
