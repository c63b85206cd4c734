"""Kill a training run with SIGKILL at random moments, resume it each time, and compare it with one never killed.

``python -m benchmarks.resume`` does so 20 times for each agent and stores what it found under ``results/resume``;
``python -m benchmarks.resume sac --methods exits polyprune`` for an agent that holds these budget methods. Equal means:
every row of ``metrics.jsonl`` but its clock fields, and every tensor and number of the last checkpoint
(networks, targets, optimizers, generators, replay, meter), bit for bit.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
import unittest.mock
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.cql import CQL, DiscreteCQL
from agents.dqn import DQN
from agents.gail import GAIL
from agents.loop.checkpoint import read, read_header
from agents.loop.known_methods import METHODS, method_named, records_of
from agents.loop.method import Method
from agents.methods.asymmetric import Asymmetric
from agents.methods.bexa import BexaDiscreteCQL, BexaDQN, BexaSAC
from agents.methods.eaude import EauDeDQN, EauDeSAC, PolyPruneDQN
from agents.replay.dataset import write_dataset
from agents.runs.log import CHECKPOINT, read_rows
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.sac import SAC
from agents.td3 import TD3
from benchmarks.card import RESULTS, store

# Forked, so that a resumed process does not import torch anew: the moments of the kills lie in the run itself.
FORK = multiprocessing.get_context("fork")
DATASET = "random/actions-v0"
SMALL = {"net_arch": (16, 16), "batch_size": 32, "buffer_size": 2_000}
SETTINGS_OF: dict[str, dict[str, Any]] = {
    "exits": {"budget": 0.3, "budget_feedback": 1e-3},
    "polyprune": {"final": 0.9, "start": 0.1, "end": 0.9, "every": 20, "actor_final": 0.5},
    "population": {"growth_cap": 0.1, "max_growth": 30.0},
    "units": {"max_parameters": 150, "prune_every": 20, "learn_from": 0.1, "fix_from": 0.9},
}
"""Of budget methods: those with the most state. A method that is not listed has its defaults."""


@dataclass(frozen=True)
class Case:
    """One agent on one task, small, with the options that have the most state.

    Attributes:
        agent: class name.
        run: keys of ``RunConfig``.
        settings: of the agent.
        offline: whether it learns from a data set, which random actions make.
        methods: names of the budget methods that it holds; of an agent made of sub-policies, that each of them holds.
        demonstrated: whether it imitates a data set, which random actions make.
    """

    agent: str
    run: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    offline: bool = False
    methods: tuple[str, ...] = ()
    demonstrated: bool = False

    def parts(self) -> dict[str, list[Method]]:
        """Return new methods, by the argument of the agent that takes them."""
        arguments = CLASSES[self.agent].method_arguments if self.methods else ()
        return {
            argument: [method_named(name)(**SETTINGS_OF.get(name, {})) for name in self.methods]
            for argument in arguments
        }

    def given_again(self, folder: Path) -> dict[str, str]:
        """Return what a run in ``folder`` is given when it starts and each time it is resumed."""
        return {"demonstrations": str(folder.parent / DATASET)} if self.demonstrated else {}

    def config(self, steps: int, folder: Path) -> RunConfig:
        """Return the run's configuration; a checkpoint falls on almost every episode.

        Args:
            steps: of the run.
            folder: whose parent holds the data set of an offline agent.
        """
        every = {"log_every": 70, "eval_every": 250, "eval_episodes": 1, "checkpoint_every": 60, "tensorboard": False}
        dataset = str(folder.parent / DATASET) if self.offline else None
        return RunConfig(**{**every, **self.run, "steps": steps, "dataset": dataset})

    def prepare(self, folder: Path) -> None:
        """Put what the run reads into ``folder``."""
        if self.offline or self.demonstrated:
            env = self.config(1, folder / "run").make_env()
            with unittest.mock.patch.dict(os.environ, MINARI_DATASETS_PATH=str(folder)):
                write_dataset(DATASET, RandomPolicy(env.action_space), env, 600)


class RandomPolicy:
    """Draws actions from ``space``, seeded."""

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        space.seed(0)

    def predict(self, observation: Any, **_: Any) -> tuple[Any, None]:
        """Return an action."""
        return self.space.sample(), None


class Diverging(EauDeDQN):
    """A population one of whose members becomes NaN at each 150th update, until members are selected next."""

    def update(self, batch: Any) -> dict[str, torch.Tensor]:
        """Lose a member, and take the gradient steps."""
        if self.num_updates % 150 == 149:
            lost = (self.populations[0].crowned + 1) % self.config.members
            for name, stack in self.method("population").members[0].named_buffers():
                if name.startswith("online"):
                    stack[lost].fill_(float("nan"))
        return super().update(batch)


CLASSES = {
    agent.__name__: agent
    for agent in (
        *(SAC, TD3, DQN, CQL, DiscreteCQL, GAIL, Asymmetric, BexaSAC, BexaDQN, BexaDiscreteCQL),
        *(EauDeDQN, EauDeSAC, PolyPruneDQN, Diverging),
    )
}
GROWING = {"growth_cap": 0.1, "max_growth": 30.0}
"""Of populations: sparsities that grow within a short run."""
CASES = {
    "sac": Case("SAC", {"env": "Pendulum-v1", "max_episode_steps": 50}, SMALL),
    "td3": Case("TD3", {"env": "Pendulum-v1", "max_episode_steps": 50}, {**SMALL, "n_step": 3}),
    "dqn": Case(
        "DQN",
        {"env": "CartPole-v1"},
        {**SMALL, "prioritized": True, "double": True, "dueling": True, "n_step": 3, "train_freq": 4},
    ),
    "cql": Case("CQL", {"env": "Pendulum-v1", "max_episode_steps": 50}, {**SMALL, "action_samples": 4}, offline=True),
    "discrete-cql": Case("DiscreteCQL", {"env": "CartPole-v1"}, SMALL, offline=True),
    "asymmetric": Case(
        "Asymmetric",
        {"env": "Pendulum-v1", "max_episode_steps": 50},
        {**SMALL, "small_net_arch": (4, 4), "master_learning_starts": 100, "master_prioritized": True},
    ),
    "sac-vector": Case("SAC", {"env": "Pendulum-v1", "n_envs": 3, "max_episode_steps": 50}, SMALL),
    "sac-vector-penalty": Case(
        "SAC", {"env": "Pendulum-v1", "n_envs": 3, "max_episode_steps": 50, "penalty": 1e-3}, SMALL
    ),
    "eaude-dqn": Case("EauDeDQN", {"env": "CartPole-v1"}, {**SMALL, **GROWING, "target_update_interval": 50}),
    "eaude-dqn-diverging": Case(
        "Diverging", {"env": "CartPole-v1"}, {**SMALL, **GROWING, "target_update_interval": 100, "train_freq": 1}
    ),
    "eaude-sac": Case(
        "EauDeSAC", {"env": "Pendulum-v1", "max_episode_steps": 50}, {**SMALL, **GROWING, "generation_every": 50}
    ),
    "polyprune-dqn": Case("PolyPruneDQN", {"env": "CartPole-v1"}, {**SMALL, "final": 0.5, "every": 10}),
    # Costs of 0 while it explores and of one forward then: below the budget and above, so the weight moves both ways.
    "dqn-multiplier": Case("DQN", {"env": "CartPole-v1", "penalty_budget": 600.0}, {**SMALL, "train_freq": 4}),
    "dqn-multiplier-vector": Case(
        "DQN", {"env": "CartPole-v1", "n_envs": 2, "penalty_budget": 600.0}, {**SMALL, "train_freq": 4}
    ),
}
HOLDERS = ("sac", "td3", "asymmetric")
"""Cases that hold budget methods by default; the others have settings that a method refuses."""


def work(case: Case, steps: int, folder: Path, training: Any = None) -> None:
    """Start the run of ``folder``, or resume it, and train to the end: what runs in a process that is killed.

    Args:
        case: which.
        steps: of the run.
        folder: of the run.
        training: an event to set when training begins.
    """
    torch.set_num_threads(1)
    agent_class, given = CLASSES[case.agent], case.given_again(folder)
    if (folder / "config.json").exists():
        run = Run.resume(agent_class, folder, **given)
    else:
        run = Run.start(agent_class, case.settings, case.config(steps, folder), folder, **case.parts(), **given)
    if training is not None:
        training.set()
    with run:
        run.train()


def finish(case: Case, steps: int, folder: Path) -> float:
    """Let the run end, and return the seconds that took."""
    start = time.perf_counter()
    process = FORK.Process(target=work, args=(case, steps, folder))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run in {folder} ended with exit code {process.exitcode}: its error stands above")
    return time.perf_counter() - start


def kill(case: Case, steps: int, folder: Path, seconds: float, from_start: bool) -> dict[str, Any]:
    """Run, kill after ``seconds``, and return where that hit.

    Args:
        case: which.
        steps: of the run.
        folder: of the run.
        seconds: of training; with ``from_start`` of the process, which may hit while it makes or restores the run.
        from_start: see ``seconds``.
    """
    training = FORK.Event()
    process = FORK.Process(target=work, args=(case, steps, folder, training))
    process.start()
    if not from_start:
        training.wait()
    process.join(timeout=seconds)
    finished = process.exitcode is not None
    process.kill()
    process.join()
    rows = [row["step"] for row in read_rows(folder)] if (folder / "metrics.jsonl").exists() else []
    saved = folder / CHECKPOINT
    return {
        "after_seconds": round(seconds, 4),
        "of": "the process" if from_start else "training",
        "last_row": rows[-1] if rows else 0,
        "checkpoint": read_header(saved)["counters"]["num_timesteps"] if saved.exists() else 0,
        "while_writing_a_file": bool(list(folder.glob("*.partial"))),
        "finished": finished,
    }


def state(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what the last checkpoint holds, without what depends on the clock."""
    header, tensors = read(folder / CHECKPOINT)
    # The metrics' length in bytes depends on how many digits the clock fields have.
    header["extra"].pop("metrics_bytes")
    header["extra"].pop("run", None)  # the configuration: a run that is trained for longer asked for other steps
    return header, tensors


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of everything in which two runs differ, clock fields aside."""
    rows = [[{k: v for k, v in row.items() if k != "clock"} for row in read_rows(folder)] for folder in (one, other)]
    found = [f"metrics row {i}" for i, pair in enumerate(zip(*rows, strict=False)) if pair[0] != pair[1]]
    if len(rows[0]) != len(rows[1]):
        found.append(f"number of rows: {len(rows[0])} and {len(rows[1])}")
    (header, tensors), (other_header, other_tensors) = state(one), state(other)
    found += [key for key in header if header[key] != other_header[key]]
    found += sorted(tensors.keys() ^ other_tensors.keys())
    return found + [
        name for name in tensors.keys() & other_tensors if not torch.equal(tensors[name], other_tensors[name])
    ]


def warm_up(case: Case) -> None:
    """Import here what the first agent of a process imports, so that the forked ones need no time for it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case.prepare(Path(folder))
        work(case, 150, Path(folder) / "run")


def study(case: Case, steps: int, kills: int, seed: int, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Kill one run ``kills`` times and return where the kills hit and what differs from a run never killed."""
    rng = np.random.default_rng(seed)
    warm_up(case)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        case.prepare(Path(folder))
        seconds = finish(case, steps, whole)
        hits: list[dict[str, Any]] = []
        # All kills together take about as long as the run, and each loses what followed a checkpoint: they fall on
        # its whole length, and rarely past its end. Every fifth falls on the start of a process.
        while len(hits) < kills:
            delay = float(rng.uniform(0, 2 * seconds / kills))
            hits.append(kill(case, steps, killed, delay, from_start=len(hits) % 5 == 4))
            tell(json.dumps(hits[-1]))
        finish(case, steps, killed)
        different = differences(whole, killed)
        rows = sum(1 for _ in read_rows(whole))
        tensors = len(state(whole)[1])
    return {
        "agent": case.agent,
        "run": case.run,
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in case.settings.items()},
        **records_of(CLASSES[case.agent], case.parts()),
        "steps": steps,
        "seed": seed,
        "seconds_of_whole_run": round(seconds, 2),
        "kills": hits,
        "rows_compared": rows,
        "tensors_compared": tensors,
        "differences": different,
        "equal": not different,
    }


def main() -> None:
    """Run the study for the agents that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", help=f"of {', '.join(CASES)}; by default all, with --methods {', '.join(HOLDERS)}"
    )
    parser.add_argument("--methods", nargs="+", default=[], choices=list(METHODS), help="budget methods of the agents")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for case in arguments.cases or (HOLDERS if arguments.methods else CASES):
        held = dataclasses.replace(CASES[case], methods=tuple(arguments.methods))
        result = study(held, arguments.steps, arguments.kills, arguments.seed)
        name = "-".join([case, *arguments.methods])
        path = store(RESULTS / "resume" / f"{name}.json", result)
        print(f"{name}: {len(result['kills'])} kills, equal: {result['equal']} {result['differences'][:5]} -> {path}")


if __name__ == "__main__":
    main()
