"""What metering adds to a step, with two versions of the code, in turns.

``python -m benchmarks.metering_speed OLD NEW`` takes two commits, or ``WORKTREE``. Each version has one worker process;
they take turns of ``--steps`` steps, and change who begins. Reported are microseconds of one step, medians, and how
many times as long the new version takes: the median over neighbouring turns. ``bare`` is what the rest of a step takes.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.card import RESULTS, store
from benchmarks.in_turns import arguments_of, settle, take_turns, workers
from benchmarks.unmoved import short

CASES = ("bare", "recorder", "penalty", "unwatched", "watched", "counted", "bare8", "recorder8")


def steps_of(case: str) -> Callable[[], Any]:
    """Return what one step of a case runs."""
    import gymnasium as gym
    import numpy as np
    import torch
    from gymnasium.vector import AutoresetMode, VectorEnv
    from torch import nn

    from budget_wrappers.metering import ComputeMeter
    from budget_wrappers.wrappers import ComputePenaltyReward, RecordComputeStatistics
    from budget_wrappers.wrappers.vector import RecordComputeStatistics as RecordVector

    meter = ComputeMeter(case)

    class Null(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
        seen = np.zeros(3, np.float32)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return self.seen, {}

        def step(self, action: Any) -> Any:
            meter.add(640)
            return self.seen, 1.0, False, False, {}

    class Null8(VectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
        num_envs = 8
        single_observation_space, single_action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
        observation_space = gym.vector.utils.batch_space(single_observation_space, 8)
        action_space = gym.vector.utils.batch_space(single_action_space, 8)
        seen, rewards, no = np.zeros((8, 3), np.float32), np.ones(8), np.zeros(8, bool)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return self.seen, {}

        def step(self, actions: Any) -> Any:
            meter.add(640, rows=8)
            return self.seen, self.rewards, self.no, self.no, {}

    class Custom(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    def layers() -> list[nn.Module]:
        return [nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)]

    if case.endswith("8"):
        vector: Any = RecordVector(Null8(), meter) if case == "recorder8" else Null8()
        vector.reset()
        actions = np.zeros(8, np.int64)
        return lambda: vector.step(actions)
    if case in ("unwatched", "watched", "counted"):
        net = Custom(*layers()) if case == "counted" else nn.Sequential(*layers())
        if case != "unwatched":
            meter.watch(net)
        x = torch.zeros(1, 8)
        torch.set_grad_enabled(False)
        return lambda: (net(x), meter.take_flops())
    wraps = {
        "recorder": RecordComputeStatistics,
        "penalty": lambda env, meter: ComputePenaltyReward(env, 1, meter=meter),
    }
    env = wraps[case](Null(), meter) if case in wraps else Null()
    env.reset()
    return lambda: env.step(0)


def worker(tree: str) -> None:
    """Answer each line ``case steps`` on standard input with the seconds that the steps took."""
    settle(tree)
    made: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        case, steps = line.split()
        if case not in made:
            made[case] = steps_of(case)
        step = made[case]
        times = range(int(steps))
        start = time.perf_counter()
        for _ in times:
            step()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    """Run the benchmark as the command line says."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2])
        return
    arguments = arguments_of(__doc__, "metering_speed", "steps", 2_000)
    rows = []
    with workers(__file__, (arguments.old, arguments.new)) as (versions, processes):
        for case in CASES:
            timed = take_turns(processes, f"{case} {arguments.steps}", arguments.rounds)
            took = [1e6 * statistics.median(own) / arguments.steps for own in timed["seconds"]]
            rows.append({"case": case, "microseconds": took, "times_as_long": 1 / timed["ratio"], **timed})
            print(f"{case:10} {took[0]:7.2f} and {took[1]:7.2f} µs, {1 / timed['ratio']:.3f} times as long", flush=True)
    named = f"{short(versions[0])}-{short(versions[1])}.json"
    store(arguments.output or RESULTS / "metering_speed" / named, {"versions": versions, "rows": rows})


if __name__ == "__main__":
    main()
