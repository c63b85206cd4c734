"""A penalty whose weight adapts: does the mean cost of training end at the budget?

    python -m benchmarks.multiplier delays
    python -m benchmarks.multiplier dqn
    python -m benchmarks.multiplier sb3
    python -m benchmarks.multiplier table

trains a DQN, this package's or Stable-Baselines3's, that chooses between two sub-policies (``SubPolicyAction``, two
steps a choice) or between two exits (``EarlyExitAction``) in CartPole, at three seeds a budget.
``ComputePenaltyReward(weight="auto")`` is around them. Costs are those that training pays: exploration and the DQN's
own forwards are in them. It stores the mean cost of each twentieth of training, the weight at its end, and the return,
one file a library and task.

``delays`` chose the controller: it runs each on a model of an agent that follows a new weight late. ``table`` writes
both down from what is stored.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.dqn import DQN
from benchmarks.card import RESULTS, store
from budget_wrappers.metering import ComputeMeter
from budget_wrappers.modules.exits import EarlyExitNetwork
from budget_wrappers.policies import ExitPolicy, FunctionPolicy
from budget_wrappers.wrappers import (
    ComputePenaltyReward,
    EarlyExitAction,
    RecordComputeStatistics,
    SubPolicyAction,
    multiplier,
)
from budget_wrappers.wrappers.multiplier import AdaptiveWeight

FOLDER = RESULTS / "multiplier"
PARTS = 20
"""Parts of training that a mean cost is stored of; the last fifth of them counts."""
SETTINGS = {
    "learning_rate": 2e-3,
    "buffer_size": 1_000,
    "learning_starts": 500,
    "batch_size": 32,
    "gamma": 0.9,
    "train_freq": 4,
    "target_update_interval": 50,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.05,
}
"""Of an agent that follows a new weight soon: its replay holds the last 1,000 choices."""
HIDDEN = (32, 32)
RATE = 2e-3
"""Of the weight, as this agent follows within about 500 steps."""


LEANS = np.array([0.02, 0.1, 1.0, 0.5], np.float32)
"""How far CartPole leans, now and soon: of place, its speed, the pole's angle, its speed."""


def sub_policies(meter: ComputeMeter) -> gym.Env:
    """Return CartPole with two sub-policies that act for two steps: push where the pole leans, or where it will."""
    now = FunctionPolicy(lambda observation: int(observation[2] > 0), flops=1_000, name="now")
    soon = FunctionPolicy(lambda observation: int(LEANS @ observation > 0), flops=20_000, name="soon")
    return SubPolicyAction(gym.make("CartPole-v1"), [now, soon], hold=2, meter=meter)


def exits(meter: ComputeMeter) -> gym.Env:
    """Return CartPole with two exits of one network that push likewise, the second after a wide layer."""
    width = 1_024
    network = EarlyExitNetwork(inputs=4, outputs=2, hidden=[width])
    leans = torch.from_numpy(LEANS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.exits[0].weight[:2, 2] = torch.tensor([-1.0, 1.0])
        network.stages[1][0].weight[:2] = torch.stack([leans, -leans])
        network.exits[1].weight[:, :2] = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    policy = ExitPolicy(network, act=lambda output: output.argmax())
    return EarlyExitAction(gym.make("CartPole-v1"), policy, meter=meter)


TASKS: dict[str, tuple[Callable[[ComputeMeter], gym.Env], int, tuple[float, ...]]] = {
    "sub-policies": (sub_policies, 24_000, (6_000.0, 10_000.0)),
    "exits": (exits, 48_000, (4_500.0,)),
}
"""Environment, choices of training (48,000 environment steps at most), and budgets in FLOPs per environment step."""


class Ledger(gym.Wrapper):
    """Keeps cost, environment steps, weight and reward of each choice."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.rows: list[tuple[float, float, float]] = []
        self.returns: list[float] = []

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and keep what it tells."""
        *transition, info = self.env.step(action)
        self.rows.append((float(info["cost"]), float(info["duration"]), float(info["penalty_weight"])))
        if "compute" in info:
            self.returns.append(float(info["compute"]["return_raw"]))
        return *transition, info


def train(library: str, task: str, budget: float, seed: int, steps: int, rate: float = RATE) -> dict[str, Any]:
    """Train, and return what each part of it cost.

    Args:
        library: ``"dqn"`` or ``"sb3"``.
        task: of ``TASKS``.
        budget: FLOPs per environment step.
        seed: of the agent and its environment.
        steps: choices.
        rate: of the weight.
    """
    meter = ComputeMeter(f"multiplier.{library}")
    inside = TASKS[task][0](meter)
    penalised = ComputePenaltyReward(inside, "auto", meter=meter, budget=budget, rate=rate)
    env = Ledger(RecordComputeStatistics(penalised, meter))
    if library == "dqn":
        DQN(env, meter=meter, seed=seed, net_arch=HIDDEN, **SETTINGS).learn(steps)
    else:
        import stable_baselines3

        from budget_wrappers.integrations import sb3

        given: dict[str, Any] = {**SETTINGS, "policy_kwargs": {"net_arch": list(HIDDEN)}, "device": "cpu"}
        sb3.metered(stable_baselines3.DQN("MlpPolicy", env, seed=seed, **given), meter).learn(steps)
    rows = np.array(env.rows)
    parts = [(part[:, 0].sum(), part[:, 1].sum(), part[-1, 2]) for part in np.array_split(rows, PARTS)]
    last = parts[-PARTS // 5 :]
    return {
        "budget": budget,
        "seed": seed,
        "flops_per_step": [flops / count for flops, count, _ in parts],
        "weights": [weight for _, _, weight in parts],
        "last_fifth": sum(part[0] for part in last) / sum(part[1] for part in last),
        "mean_return": float(np.mean(env.returns[-len(env.returns) // 5 :])),
    }


def choices(task: str) -> list[int]:
    """Return FLOPs per environment step of the choices of a task, cheapest first, without the DQN's own."""
    return [int(flops) for flops in TASKS[task][0](ComputeMeter()).get_wrapper_attr("choice_flops")]


def study(library: str, task: str, seeds: int) -> dict[str, Any]:
    """Return the rows of all budgets and seeds of a task."""
    _, steps, budgets = TASKS[task]
    rows = []
    for budget, seed in itertools.product(budgets, range(seeds)):
        rows.append(train(library, task, budget, seed, steps))
        share = rows[-1]["last_fifth"] / budget
        print(f"{library} {task} b={budget:g} seed {seed}: {share:.3f} of b", flush=True)
    return {
        "library": library,
        "task": task,
        "rate": RATE,
        "choices": choices(task),
        "steps": steps,
        "settings": {**SETTINGS, "net_arch": list(HIDDEN)},
        "rows": rows,
    }


# ---- the choice of a controller -------------------------------------------------------------------------------------

LAGS = ((500, 300), (1_000, 500), (2_000, 1_000))
"""Steps over which an agent forgets an old weight (its replay), and steps before it sees a new one."""
CONTROLLERS = tuple(itertools.product((3e-4, 1e-3, 3e-3), (50, 200, 1_000), (0.0, 1.0, 2.0, 4.0)))
"""Rates, intervals in environment steps, and proportional parts."""
SHOWN = ((3e-4, 200), (1e-3, 50), (1e-3, 200), (1e-3, 1_000), (3e-3, 50), (3e-3, 200))


def late_agent(weigher: AdaptiveWeight, lag: tuple[int, int], steps: int = 24_000, together: int = 10) -> float:
    """Return the mean cost of the last fifth of an agent that follows the weight late, as a share of the budget.

    It pays 20 FLOPs a step, and 80 more with a probability that falls from 97.5 % to 2.5 % around a weight of 1e-3.

    Args:
        weigher: what adapts.
        lag: of ``LAGS``.
        steps: of the environment.
        together: steps that are counted at once.
    """
    rng, (memory, delay) = np.random.default_rng(0), lag
    told, followed = [weigher.weight] * (delay // together + 1), math.log(weigher.weight)
    costs = []
    for _ in range(steps // together):
        told.append(weigher.weight)
        followed += together / memory * (math.log(told[-1 - delay // together]) - followed)
        buys = 0.025 + 0.95 / (1 + math.exp(1.5 * (followed - math.log(1e-3))))
        costs.append(20 * together + 80 * int(rng.binomial(together, buys)))
        weigher.count(costs[-1], together, float(together))
    return float(np.mean(costs[-len(costs) // 5 :])) / together / weigher.budget


def delays() -> dict[str, Any]:
    """Return how far each controller is off the budget, the most of three budgets and three weights to begin with."""
    rows = []
    before = multiplier.PROPORTIONAL, multiplier.INTERVAL
    for rate, interval, proportional in CONTROLLERS:
        multiplier.PROPORTIONAL, multiplier.INTERVAL = proportional, interval * rate
        for lag in LAGS:
            starts = itertools.product((35.0, 60.0, 85.0), (1e-4, 1e-3, 1e-2))
            off = [abs(late_agent(AdaptiveWeight(*start, rate), lag) - 1) for start in starts]
            row = {"rate": rate, "interval": interval, "proportional": proportional, "lag": lag}
            rows.append({**row, "mean": float(np.mean(off)), "most": max(off)})
    multiplier.PROPORTIONAL, multiplier.INTERVAL = before
    return {"rows": rows}


# ---- tables ---------------------------------------------------------------------------------------------------------

LIBRARIES = {"dqn": "`agents.DQN`", "sb3": "Stable-Baselines3's DQN"}
WRAPPERS = {"sub-policies": "`SubPolicyAction`, two steps a choice", "exits": "`EarlyExitAction`"}


def table(studies: list[dict[str, Any]]) -> str:
    """Return a row for each library, task and budget: the mean cost of the last fifth of training of each seed."""
    count = len(studies[0]["rows"]) // len({row["budget"] for row in studies[0]["rows"]})
    seeds = " | ".join(f"seed {seed}" for seed in range(count))
    lines = [
        f"| agent | in CartPole | choices, FLOPs | b | {seeds} | λ at the ends |",
        f"|---|---|---|---|{'---|' * count}---|",
    ]
    for one in studies:
        for budget, rows in itertools.groupby(one["rows"], lambda row: row["budget"]):
            ran = list(rows)
            off = " | ".join(f"{100 * row['last_fifth'] / budget:.1f} %" for row in ran)
            ends = [row["weights"][-1] for row in ran]
            spread = f"{min(ends):.1e} to {max(ends):.1e}"
            costs = " and ".join(f"{cost:,}" for cost in one["choices"])
            names = f"| {LIBRARIES[one['library']]} | {WRAPPERS[one['task']]} "
            lines.append(f"{names}| {costs} | {budget:,.0f} | {off} | {spread} |")
    return "\n".join(lines) + "\n"


def table_of_delays(study_of_delays: dict[str, Any]) -> str:
    """Return a row for each rate and interval: the most that the mean cost is off, by proportional part."""
    parts = sorted({row["proportional"] for row in study_of_delays["rows"]})
    lines = [
        "| rate | interval | " + " | ".join(f"P = {part:g}" for part in parts) + " |",
        "|---|---|" + "---|" * len(parts),
    ]
    for rate, interval in SHOWN:
        cells = []
        for part in parts:
            wanted = (rate, interval, part)
            found = [r for r in study_of_delays["rows"] if (r["rate"], r["interval"], r["proportional"]) == wanted]
            cells.append(" / ".join(f"{100 * row['most']:.1f}" for row in found) + " %")
        lines.append(f"| {rate:g} | {interval:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def stored() -> list[dict[str, Any]]:
    """Return the studies of training that are stored."""
    files = [FOLDER / f"{library}-{task}.json" for library, task in itertools.product(LIBRARIES, TASKS)]
    return [json.loads(path.read_text()) for path in files if path.exists()]


def tables() -> dict[str, str]:
    """Return the tables of what is stored, by the name of their files."""
    studies = stored()
    chosen = json.loads((FOLDER / "delays.json").read_text())
    return {"training.md": table(studies), "delays.md": table_of_delays(chosen)}


def main() -> None:
    """Train, or write tables, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["delays", *LIBRARIES, "table"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "delays":
        store(FOLDER / "delays.json", delays())
    elif given.what == "table":
        for name, text in tables().items():
            (FOLDER / name).write_text(text)
    else:
        for task in given.tasks:
            store(FOLDER / f"{given.what}-{task}.json", study(given.what, task, given.seeds))


if __name__ == "__main__":
    main()
