"""Updates a second of plain agents with two versions of the code, in turns.

``python -m benchmarks.update_speed OLD NEW`` takes two commits, or ``WORKTREE``. Each version has one worker process;
they take turns of ``--updates`` gradient steps (``agent.train``), and change who begins. Reported are the medians, and
the median of the ratios of neighbouring turns, for which the machine was the same.
"""

import statistics
import sys
import time
from typing import Any

from benchmarks.card import RESULTS, store
from benchmarks.in_turns import arguments_of, settle, take_turns, workers
from benchmarks.unmoved import short

AGENTS = {"SAC": "Pendulum-v1", "TD3": "Pendulum-v1", "DQN": "CartPole-v1"}
WIDTHS = (64, 256)


def worker(tree: str) -> None:
    """Answer each line ``agent width updates`` on standard input with the seconds that the updates took."""
    import gymnasium as gym

    import agents

    settle(tree)
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


def main() -> None:
    """Run the benchmark as the command line says."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
        return
    arguments = arguments_of(__doc__, "update_speed", "updates", 100)
    rows = []
    with workers(__file__, (arguments.old, arguments.new)) as (versions, processes):
        for name in AGENTS:
            for width in WIDTHS:
                timed = take_turns(processes, f"{name} {width} {arguments.updates}", arguments.rounds)
                speeds = [arguments.updates / statistics.median(own) for own in timed["seconds"]]
                rows.append({"agent": name, "width": width, "updates_per_second": speeds, **timed})
                print(
                    f"{name} 2×{width}: {speeds[0]:7.1f} and {speeds[1]:7.1f} updates a second, {timed['ratio']:.3f} "
                    f"times as fast (fastest turns {timed['ratio_of_the_fastest']:.3f})",
                    flush=True,
                )
    named = f"{short(versions[0])}-{short(versions[1])}.json"
    store(arguments.output or RESULTS / "update_speed" / named, {"versions": versions, "rows": rows})


if __name__ == "__main__":
    main()
