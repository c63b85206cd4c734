"""Kill and interrupt training, comparisons and searches, go on with them, and compare with ones never stopped.

``python -m benchmarks.kills`` stores what it found under ``results/kills``, one file for each part:

* ``train-<case>``: SIGKILL at random moments of configurations that ``benchmarks.resume`` does not have.
* ``tradeoff-<signal>`` and ``sweep-<signal>``: the commands themselves with two workers, stopped by one signal at
  random moments, every other time with their whole process group, as a terminal does it.
* ``worker-tradeoff``, ``worker-sweep``, and the same with ``-ray``: SIGKILL of one worker while the command goes on. It
  has to end with everything done, or to name the command that goes on, and in neither case shows a traceback.

Equal means: every row of metrics but clock fields, and every tensor and number of each checkpoint and result, bit for
bit. After each stop, processes that are still there are counted for 10 seconds.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from benchmarks.card import RESULTS, store
from benchmarks.resume import SMALL, Case, differences, study

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
LEFT_AFTER = 10.0
"""Seconds after the end of a command in which its other processes must have ended, too."""


class Reach(gym.Env):
    """Walk on a line to a goal, 20 steps at most: each reward is 0 at the goal and −1 elsewhere."""

    def __init__(self) -> None:
        box = spaces.Box(-20, 20, (1,), np.float32)
        self.observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start at 0 with a goal up to 5 away."""
        super().reset(seed=seed)
        self.place, self.goal = 0.0, float(self.np_random.uniform(-5, 5))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Walk by the action."""
        self.place += float(action[0])
        observation = self._observation()
        reward = float(self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {}))
        return observation, reward, False, False, {"is_success": reward == 0.0}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> Any:
        """Return the reward of one pair of goals or a batch."""
        return -(np.abs(achieved - desired)[..., 0] > 0.5).astype(np.float64)

    def _observation(self) -> dict[str, np.ndarray]:
        place, goal = np.array([self.place], np.float32), np.array([self.goal], np.float32)
        return {"observation": place, "achieved_goal": place, "desired_goal": goal}


gym.register("kills/Reach-v0", entry_point=Reach, max_episode_steps=20)

PENDULUM = {"env": "Pendulum-v1", "max_episode_steps": 50}
CASES = {
    "gail": Case("GAIL", PENDULUM, {**SMALL, "discriminator_net_arch": (8,)}, demonstrated=True),
    "sac-hindsight": Case("SAC", {"env": "kills/Reach-v0"}, {**SMALL, "hindsight": 4}),
    "bexa-sac-budget-input": Case(
        "BexaSAC", {**PENDULUM, "budget_input": True}, {**SMALL, "budget_from_observation": True}
    ),
    "bexa-dqn-vector": Case("BexaDQN", {"env": "CartPole-v1", "n_envs": 2}, {**SMALL, "train_freq": 2}),
    "bexa-discrete-cql": Case("BexaDiscreteCQL", {"env": "CartPole-v1"}, SMALL, offline=True),
}
SPACE = """
learning_rate = { q_log_uniform = [1e-3, 4e-3, 1e-3] }
net_arch = { value = [8, 8] }
batch_size = { value = 16 }
learning_starts = { value = 50 }
"""
WORDS = {
    "tradeoff": (
        "--env Pendulum-v1 --methods sac:8,8 bexa-sac:8,8 asymmetric:8,8@small_net_arch=4 fit coin --steps 300 "
        "--seeds 0 --budgets 0.3 --weights 0.03 --batch-size 16 --episodes 1 --eval-every 150 --workers 2"
    ),
    "sweep": (
        "bexa-sac --env Pendulum-v1 --steps 400 --configurations 2 --finalists 1 --seeds 0 --eval-every 200 "
        "--eval-episodes 1 --episodes 1 --workers 2"
    ),
}


# ---- commands -------------------------------------------------------------------------------------------------------


def start(verb: str, folder: Path, ray: bool = False) -> subprocess.Popen[bytes]:
    """Start ``budget verb`` with its results in ``folder``, in a session of its own; on Ray where ``ray``."""
    words = [sys.executable, "-m", "agents.cli", verb, *WORDS[verb].split(), "--folder", str(folder)]
    words += ["--ray", "local"] if ray else []
    if verb == "sweep":
        space = folder.with_suffix(".toml")
        space.write_text(SPACE)
        words += ["--space", str(space)]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True, preexec_fn=_hear_hangups)


def _hear_hangups() -> None:
    """Undo ``nohup`` for a command, which would rightly ignore its SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def session_of(leader: int) -> list[int]:
    """Return the processes of a session that run, without those that only wait to be reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue  # it has ended meanwhile
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def stop(verb: str, folder: Path, number: int, seconds: float, group: bool) -> dict[str, Any]:
    """Run, send one signal after ``seconds``, and return how the command ended and what was left of it."""
    process = start(verb, folder)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        (os.killpg if group else os.kill)(process.pid, number)
    sent = time.perf_counter()
    code = process.wait()
    ended = time.perf_counter()
    while (left := session_of(process.pid)) and time.perf_counter() - ended < LEFT_AFTER:
        time.sleep(0.1)
    gone = time.perf_counter()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return {
        "after_seconds": round(seconds, 3),
        "to": "process group" if group else "process",
        "exit_status": code,
        "seconds_to_end": round(ended - sent, 3),
        "seconds_until_alone": round(gone - ended, 3),
        "processes_left": len(left),
    }


def results(folder: Path) -> dict[str, Any]:
    """Return the numbers of every result file in ``folder``, by file."""
    found: dict[str, Any] = {}
    if (folder / "tradeoff.json").exists():
        points = json.loads((folder / "tradeoff.json").read_text())["points"]
        # Without what the clock says of them.
        kept = ("method", "label", "seed", "mean_return", "flops_per_step", "episodes", "curve")
        found["tradeoff.json"] = [{key: point[key] for key in kept} for point in points]
    if (folder / "sweep.json").exists():
        record = json.loads((folder / "sweep.json").read_text())
        found["sweep.json"] = {key: record[key] for key in ("winner", "all_configurations", "rows", "diverged")}
    return found


def whole(verb: str, folder: Path) -> tuple[Path, float]:
    """Return the folder of a command that nothing stopped, below ``folder``, and the seconds that it took."""
    path, begin = folder / f"whole-{verb}", time.perf_counter()
    if start(verb, path).wait() != 0:
        raise RuntimeError(path.with_suffix(".log").read_text())
    return path, time.perf_counter() - begin


def differing(reference: Path, stopped: Path) -> list[str]:
    """Return the names of everything in which the results and runs of two commands differ."""
    one, other = results(reference), results(stopped)
    found = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    for run in sorted(path.name for path in (reference / "runs").glob("*")):
        found += [f"{run}: {what}" for what in differences(reference / "runs" / run, stopped / "runs" / run)]
    return found


def command_study(
    verb: str, number: int, stops: int, seed: int, reference: Path, seconds: float, stopped: Path
) -> dict[str, Any]:
    """Stop one command by a signal and return what differs from one never stopped.

    Args:
        verb: of the command.
        number: of the signal.
        stops: how often.
        seed: of the moments.
        reference: folder of the command that was never stopped.
        seconds: that it took; its first third or so is the start of the process and its workers.
        stopped: what the folders of those that are begin with: once one has ended another is begun.
    """
    rng = np.random.default_rng([seed, int(number), len(verb)])
    hits: list[dict[str, Any]] = []
    different: list[str] = []
    rounds = 0
    while len(hits) < stops:
        folder, rounds = stopped.with_name(f"{stopped.name}-{rounds}"), rounds + 1
        while len(hits) < stops:
            hit = stop(verb, folder, number, float(rng.uniform(seconds / 5, seconds)), len(hits) % 2 == 1)
            if hit["exit_status"] == 0 and hit["seconds_to_end"] < 0.1:
                break  # it had ended before the signal: another round
            hits.append(hit)
            print(json.dumps(hit), flush=True)
        if start(verb, folder).wait() != 0:
            raise RuntimeError(folder.with_suffix(".log").read_text())
        different += differing(reference, folder)
    return {
        "budget": f"{verb} {WORDS[verb]}",
        "signal": signal.Signals(number).name,
        "seed": seed,
        "seconds_of_whole_command": round(seconds, 2),
        "stops": hits,
        "rounds": rounds,
        "files_compared": len(results(reference)),
        "runs_compared": len(list((reference / "runs").glob("*"))),
        "processes_left": sum(hit["processes_left"] for hit in hits),
        "differences": different,
        "equal": not different,
    }


# ---- workers --------------------------------------------------------------------------------------------------------


def workers_of(leader: int, ray: bool) -> list[int]:
    """Return the processes that train for a command: its own, or Ray's of this machine."""
    if not ray:
        return [pid for pid in session_of(leader) if b"spawn_main" in _words_of(pid)]
    return [
        int(path.name) for path in Path("/proc").glob("[0-9]*") if _words_of(int(path.name)).startswith(b"ray::_work")
    ]


def _words_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


def kill_a_worker(verb: str, folder: Path, ray: bool, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
    """Run, kill one worker once ``seconds`` have passed and there is one, and return how the command ended."""
    process = start(verb, folder, ray)
    time.sleep(seconds)
    killed = None
    while process.poll() is None and killed is None:
        if found := workers_of(process.pid, ray):
            killed = int(rng.choice(found))
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    code = process.wait()
    said = folder.with_suffix(".log").read_text()
    return {
        "after_seconds": round(seconds, 3),
        "killed": killed is not None,
        "exit_status": code,
        "tracebacks": said.count("Traceback"),
        "says_how_to_go_on": "Go on with" in said,
    }


def worker_study(
    verb: str, ray: bool, kills: int, seed: int, reference: Path, seconds: float, folder: Path
) -> dict[str, Any]:
    """Kill a worker in each of ``kills`` commands, and return what differs from one whose workers lived.

    Args:
        verb: of the command.
        ray: whether the workers are Ray's.
        kills: how many.
        seed: of the moments.
        reference: folder of the command whose workers lived.
        seconds: that it took.
        folder: what the folders of the others begin with.
    """
    rng = np.random.default_rng([seed, ray, len(verb)])
    hits: list[dict[str, Any]] = []
    different: list[str] = []
    while len(hits) < kills:
        path = folder.with_name(f"{folder.name}-{len(hits)}")
        hit = kill_a_worker(verb, path, ray, float(rng.uniform(seconds / 5, seconds / 2)), rng)
        if not hit["killed"]:
            raise RuntimeError(f"no worker of {verb} was seen: {path.with_suffix('.log').read_text()}")
        hits.append(hit)
        print(json.dumps(hit), flush=True)
        if hit["exit_status"] != 0:
            if not hit["says_how_to_go_on"]:
                different.append(f"{path.name}: ended with {hit['exit_status']} and did not say how to go on")
            if start(verb, path, ray).wait() != 0:
                raise RuntimeError(path.with_suffix(".log").read_text())
        different += differing(reference, path) + ["a traceback"] * hit["tracebacks"]
    return {
        "budget": f"{verb} {WORDS[verb]}" + (" --ray local" if ray else ""),
        "signal": "SIGKILL of one worker",
        "seed": seed,
        "kills": hits,
        "differences": different,
        "equal": not different,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [f"train-{case}" for case in CASES]
    parts += [f"{verb}-{number.name}" for number in SIGNALS for verb in WORDS]
    parts += [f"worker-{verb}{where}" for where in ("", "-ray") for verb in WORDS]
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; by default all")
    parser.add_argument("--kills", type=int, default=8, help="of each configuration of train")
    parser.add_argument("--stops", type=int, default=10, help="of each command by each signal")
    parser.add_argument("--steps", type=int, default=1_000, help="of a training that is killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        references: dict[str, tuple[Path, float]] = {}
        for part in options.parts or parts:
            kind, name = part.split("-", 1)
            if kind == "train":
                result = study(CASES[name], options.steps, options.kills, options.seed, tell=lambda line: None)
            elif kind == "worker":
                verb, ray = name.removesuffix("-ray"), name.endswith("-ray")
                if verb not in references:
                    references[verb] = whole(verb, Path(temporary))
                result = worker_study(verb, ray, options.stops, options.seed, *references[verb], Path(temporary) / part)
            else:
                if kind not in references:
                    references[kind] = whole(kind, Path(temporary))
                number, stopped = signal.Signals[name], Path(temporary) / part
                result = command_study(kind, number, options.stops, options.seed, *references[kind], stopped)
            path = store(RESULTS / "kills" / f"{part}.json", result)
            left = f", {result['processes_left']} processes left" if "processes_left" in result else ""
            print(f"{part}: equal: {result['equal']} {result['differences'][:5]}{left} -> {path}", flush=True)


if __name__ == "__main__":
    main()
