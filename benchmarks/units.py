"""Units that learn whether they are needed: do they find the size that is needed, and what does it cost to look?

    python -m benchmarks.units teacher   # how many units a student keeps of a teacher of four, whatever it began with
    python -m benchmarks.units probe     # the same where a policy is learned whose best form has one unit
    python -m benchmarks.units limits    # a dozen random sizes of each kind in three environments: none is passed
    python -m benchmarks.units cql       # discrete CQL on stored data, pruned, beside its size from scratch
    python -m benchmarks.units latency   # a limit in microseconds: the fit of this machine, and what came out, measured
    python -m benchmarks.units cost      # a gated update beside a plain one, and one after pruning, in turns

Each stores its raw data under ``results/units``.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from agents import DQN, SAC, TD3, DiscreteCQL, Units
from agents.cli.profiling_device import NumpyRow, measure_device
from agents.loop.evaluate import undisturbed
from agents.methods.units import ThetaAdam
from agents.nets.mlp import MLP
from agents.nets.optim import FusedAdam
from benchmarks.card import RESULTS, store
from benchmarks.learning.offline import STUDIES
from benchmarks.learning.protocol import FINAL_EPISODES, evaluate
from benchmarks.learning.protocol import TASKS as TASKS_OF_THE_PROTOCOL
from budget_wrappers.metering.latency import measure_latency
from budget_wrappers.modules.unit_pruning import UnitPruner, UnitSchedule, unit_groups

FOLDER = RESULTS / "units"

# ---- a teacher of four units ----------------------------------------------------------------------------------------

TEACHER_UNITS, WIDTHS, PENALTY = 4, (8, 32, 64), 1e-2


def teacher() -> nn.Sequential:
    """Return a network of four tanh units, none of which the others can stand in for."""
    made = nn.Sequential(nn.Linear(3, TEACHER_UNITS), nn.Tanh(), nn.Linear(TEACHER_UNITS, 1)).requires_grad_(False)
    made[0].weight.copy_(2.0 * torch.cat([torch.eye(3), torch.full((1, 3), 3**-0.5)]))
    made[0].bias.copy_(torch.tensor([0.5, -0.5, 0.3, 0.0]))
    made[2].weight.copy_(torch.tensor([[1.5, -1.5, 1.5, -1.5]]))
    made[2].bias.zero_()
    return made


def student(
    width: int, seed: int, updates: int = 8_000, learning_rate: float = 3e-3, priced: bool = True
) -> dict[str, Any]:
    """Teach a student of ``width`` tanh units, whose units have a price, and return what is left of it.

    Args:
        width: at the beginning.
        seed: of its weights, of the draws and of the data.
        updates: of 64 rows each; θ learn from a tenth to a half of them.
        learning_rate: of its weights; it falls to a tenth for the last tenth.
        priced: whether its units learn; a student of four that does not is what the others are held against.
    """
    torch.manual_seed(seed)
    network, master, generator = MLP((3, width, 1), "tanh"), teacher(), torch.Generator().manual_seed(seed)
    schedule = UnitSchedule(0.1, 0.5, 0.1, 50)
    groups = unit_groups(network, torch.zeros(1, 3))
    pruner = UnitPruner(network, groups, penalty=PENALTY, schedule=schedule, generator=generator)
    weights, thetas = FusedAdam(network, lr=learning_rate), ThetaAdam(pruner, 10.0 / (0.4 * updates))
    kept = []
    for number in range(1, updates + 1):
        x = torch.randn(64, 3, generator=generator)
        weights.descend((network(x) - master(x)).square().mean())
        left = pruner.advance(number / updates, number) if priced else None
        if left is not None:
            for optimizer in (weights, thetas):
                optimizer.follow(left)
            weights.beside = [thetas] if pruner.stage == "learning" else []
        if number >= 0.9 * updates:
            weights.param_groups[0]["lr"] = 0.1 * learning_rate
        kept.append(pruner.gates.counts()[0])
    x = torch.randn(4_000, 3, generator=generator)
    with torch.no_grad():
        error = (network(x) - master(x)).square().mean() / master(x).var()
    left = {"width": width, "seed": seed, "kept": kept[-1], "relative_error": float(error)}
    return left | {"units": kept[:: updates // 20]}


def run_teacher(seeds: int) -> None:
    """Teach students of every width and store what is left."""
    path = FOLDER / "teacher.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    there = [(row["width"], row["seed"]) for row in rows]
    for seed in range(seeds):
        for width in (TEACHER_UNITS, *WIDTHS):
            if (width, seed) not in there:
                rows.append(student(width, seed, priced=width != TEACHER_UNITS))
                print(json.dumps({key: value for key, value in rows[-1].items() if key != "units"}), flush=True)
    store(path, {"teacher_units": TEACHER_UNITS, "penalty": PENALTY, "rows": rows})


# ---- a policy that needs one unit -----------------------------------------------------------------------------------


class OneUnit(gym.Env):
    """One step: the action that earns most is ``tanh(1.2·tanh(2.5·s₁))``, a policy of one tanh unit that squashes.

    The other two numbers that are seen mean nothing.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Show another state."""
        super().reset(seed=seed)
        self.seen = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.seen, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Pay ``−(a − a*)²``, and end."""
        best = np.tanh(1.2 * np.tanh(2.5 * self.seen[0]))
        return self.seen, -float((action[0] - best) ** 2), True, False, {}


def probe(agent_class: Any, width: int, seed: int, steps: int = 6_000) -> dict[str, Any]:
    """Train an agent whose actor's units have a price and return how many it keeps, and what its policy misses."""
    units = Units(unit_penalty=PROBE_PENALTY, prune_every=100)
    agent = agent_class(
        OneUnit(),
        methods=[units],
        net_arch=(width,),
        critic_net_arch=(32, 32),
        activation="tanh",
        learning_rate=3e-3,
        learning_starts=200,
        batch_size=64,
        seed=seed,
        **({"ent_coef": 1e-4} if agent_class is SAC else {}),
    ).learn(steps)
    seen = np.random.default_rng(0).uniform(-1, 1, (2_000, 3)).astype(np.float32)
    best = np.tanh(1.2 * np.tanh(2.5 * seen[:, 0]))
    missed = float(np.square(agent.predict(seen)[0][:, 0] - best).mean())
    return {
        "agent": agent_class.__name__,
        "width": width,
        "seed": seed,
        "kept": agent.units_of()[0],
        "regret": missed,
        "parameters": agent.parameters_of(),
    }


PROBE_PENALTY = 1e-2


def run_probe(seeds: int) -> None:
    """Train agents of two widths and store what is left."""
    rows = []
    for agent_class in (TD3, SAC):
        for seed in range(seeds):
            for width in (8, 32):
                rows.append(probe(agent_class, width, seed))
                print(json.dumps(rows[-1]), flush=True)
    store(FOLDER / "probe.json", {"penalty": PROBE_PENALTY, "rows": rows})


# ---- what looking costs ---------------------------------------------------------------------------------------------


def agent_at(stage: str) -> SAC:
    """Return SAC on HalfCheetah, 2×256: plain, with gates on actor and critics that learn, or with an actor pruned.

    Args:
        stage: ``"plain"``, ``"gated"`` or ``"pruned"``, to 8,000 parameters.
    """
    methods = {
        "plain": [],
        "gated": [Units(learn_from=0.0, fix_from=1.0, prune_every=10**6, critic_unit_penalty=1e-9)],
        "pruned": [Units(learn_from=0.0, fix_from=0.5, max_parameters=8_000)],
    }[stage]
    agent = SAC(gym.make("HalfCheetah-v5"), methods=methods, learning_starts=300, buffer_size=1_000, seed=0)
    if stage != "gated":
        return agent.learn(320)
    return agent.learn(10**6, callback=lambda own: own.num_timesteps < 320)  # its run has only begun


def run_cost(updates: int, rounds: int) -> None:
    """Take turns of updates and store what each took."""
    agents = {stage: agent_at(stage) for stage in ("plain", "gated", "pruned")}
    seconds: dict[str, list[float]] = {stage: [] for stage in agents}
    for number in range(rounds + 1):
        for stage in sorted(agents, reverse=bool(number % 2)):
            start = time.perf_counter()
            agents[stage].train(updates)
            if number:  # the first round warms up
                seconds[stage].append(time.perf_counter() - start)
    ratios = {
        stage: statistics.median(a / b for a, b in zip(seconds[stage], seconds["plain"], strict=True))
        for stage in ("gated", "pruned")
    }
    ms = {stage: 1000 * statistics.median(own) / updates for stage, own in seconds.items()}
    sizes = {stage: sum(p.numel() for p in agent.actor.parameters()) for stage, agent in agents.items()}
    store(
        FOLDER / "cost.json",
        {"updates": updates, "rounds": rounds, "ms": ms, "ratios": ratios, "parameters": sizes, "seconds": seconds},
    )
    print(json.dumps({"ms": ms, "ratios": ratios, "parameters": sizes}))


# ---- random limits -------------------------------------------------------------------------------------------------

TASKS = {"Pendulum-v1": SAC, "MountainCarContinuous-v0": TD3, "CartPole-v1": DQN}


def largest(agent: Any) -> dict[str, int]:
    """Return the size of what acts before anything is removed, in the unit of each limit."""
    parameters = sum(parameter.numel() for parameter in agent.actor.parameters())
    return {"max_parameters": parameters, "max_flops": agent.flops_per_action}


def one_limit(env_id: str, key: str, share: float, seed: int) -> dict[str, Any]:
    """Train to a limit between the smallest and the largest network, and return both and what came out."""
    settings = {"net_arch": (16, 16), "batch_size": 16, "learning_starts": 20, "seed": seed, "buffer_size": 1_000}
    agent_class = TASKS[env_id]
    plain = agent_class(gym.make(env_id), **settings)
    most, (inputs, *_, outputs) = largest(plain)[key], plain.actor.net.sizes
    least = {"max_parameters": inputs + 1 + 2 + 2 * outputs, "max_flops": 2 * (inputs + 1 + outputs)}[key]
    limit = least + int(share * (most - least))
    methods = [Units(**{key: limit, "prune_every": 10})]
    agent = agent_class(gym.make(env_id), methods=methods, **settings).learn(120)
    return {"env": env_id, "key": key, "least": least, "most": most, "limit": limit, "found": largest(agent)[key]}


def run_limits(count: int) -> None:
    """Go through random limits and store what came out."""
    rng, rows = np.random.default_rng(0), []
    for env_id in TASKS:
        for key in ("max_parameters", "max_flops"):
            for number in range(count):
                rows.append(one_limit(env_id, key, float(rng.random()), number))
                if rows[-1]["found"] > rows[-1]["limit"]:
                    print(json.dumps(rows[-1]), flush=True)
    above = sum(row["found"] > row["limit"] for row in rows)
    store(FOLDER / "limits.json", {"rows": rows, "above": above})
    print(f"{above} of {len(rows)} above the limit")


# ---- learning from data --------------------------------------------------------------------------------------------

OFFLINE: dict[str, tuple[tuple[int, ...], list[dict[str, Any]]]] = {
    "2×256": ((256, 256), []),
    "pruned to 8,000": ((256, 256), [{"max_parameters": 8_000}]),
    "2×85 from scratch": ((85, 85), []),  # 7,907 parameters
}


def run_cql(seeds: int) -> None:
    """Train on the data set that ``benchmarks.learning.offline collect cartpole`` made, and store each run."""
    study = STUDIES["cartpole"]
    _, updates, settings = study.methods["cql"]
    os.environ.setdefault("MINARI_DATASETS_PATH", str(Path("datasets").resolve()))
    path, env_id = FOLDER / "cql.json", TASKS_OF_THE_PROTOCOL[study.behaviour].env_id
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    for seed in range(seeds):
        for name, (widths, methods) in OFFLINE.items():
            if any((row["name"], row["seed"]) == (name, seed) for row in rows):
                continue
            given = [Units(**own) for own in methods]
            own = {**settings, "net_arch": widths, "seed": seed}
            agent = DiscreteCQL(gym.make(env_id), study.dataset, methods=given, **own)
            before: dict[str, float] = {}

            def look(agent: Any, before: dict[str, float] = before) -> None:
                if agent.num_updates == int(0.8 * updates) - 1:  # θ are rounded in the next update
                    with undisturbed(agent):
                        before["return"] = float(np.mean(evaluate(agent, env_id, FINAL_EPISODES)))

            agent.learn(updates, callback=look)
            with undisturbed(agent):
                returns = evaluate(agent, env_id, FINAL_EPISODES)
            widths_left = agent.units_of() if given else list(widths)
            rows.append(
                {
                    "name": name,
                    "seed": seed,
                    "parameters": largest(agent)["max_parameters"],
                    "flops": agent.flops_per_action,
                    "units": widths_left,
                    "return_before_rounding": before["return"],
                    "returns": list(map(float, returns)),
                }
            )
            print(json.dumps({key: rows[-1][key] for key in ("name", "seed", "parameters", "units")}), flush=True)
            store(path, {"dataset": study.dataset, "updates": updates, "rows": rows})


# ---- a limit in microseconds -----------------------------------------------------------------------------------------


def row_us(widths: tuple[int, ...], samples: int = 3_000) -> float:
    """Return the median time of one row through a perceptron of these widths, microseconds."""
    return measure_latency(NumpyRow(widths), samples=samples, threads=1).p50_us


def run_latency(limits: int) -> None:
    """Measure this machine, prune policies to limits between the smallest network and the largest, and time them."""
    env = gym.make("HalfCheetah-v5")
    inputs, outputs = env.observation_space.shape[0], 2 * env.action_space.shape[0]
    path = FOLDER / "device.json"
    device, line = measure_device(inputs, outputs, path, 1_000, 1)
    print(line, flush=True)
    least, most = (device.microseconds([(inputs, w), (w, w), (w, outputs)]) for w in (1, 256))
    rows = []
    for number in range(limits):
        limit = round(least + (most - least) * (number + 1) / (limits + 1), 1)
        units = Units(max_latency_us=limit, device_profile=str(path), prune_every=50)
        agent = SAC(env, methods=[units], learning_starts=100, buffer_size=2_000, batch_size=64, seed=number)
        agent.learn(1_000)
        widths = (inputs, *agent.units_of(), outputs)
        fitted = float(device.microseconds(list(itertools.pairwise(widths))))
        rows.append({"limit_us": limit, "widths": widths, "fitted_us": fitted, "measured_us": row_us(widths)})
        print(json.dumps(rows[-1]), flush=True)
    whole = (inputs, 256, 256, outputs)
    store(FOLDER / "latency.json", {"device": dataclasses.asdict(device), "whole_us": row_us(whole), "rows": rows})


def main() -> None:
    """Run a part as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("teacher", "probe", "limits", "cql", "latency", "cost"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20, help="of a turn")
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part == "cost":
        run_cost(arguments.updates, arguments.rounds)
    elif arguments.part == "limits":
        run_limits(12)
    elif arguments.part == "cql":
        run_cql(arguments.seeds)
    elif arguments.part == "latency":
        run_latency(arguments.seeds)
    else:
        {"teacher": run_teacher, "probe": run_probe}[arguments.part](arguments.seeds)


if __name__ == "__main__":
    main()
