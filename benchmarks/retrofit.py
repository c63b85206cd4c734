"""Retrofit of Stable-Baselines3's SAC and PPO: trained by that library, then given exits by ``budget retrofit``.

    python -m benchmarks.retrofit train sac --seed 0
    python -m benchmarks.retrofit study sac --seed 0
    python -m benchmarks.retrofit latency sac --seed 0
    python -m benchmarks.retrofit front ppo-hopper --seed 0

``train`` leaves the model in ``runs/retrofit/<name>``, from its last checkpoint where it was interrupted (the replay
goes with it); ``study`` runs the command and stores its table, picture and time; ``latency``, after it and on an idle
machine, how long one action takes before and after, in turns; ``front`` compares the exits with dense students of equal
FLOPs that are taught on the same states, and with coins, and stores the comparison among the fronts. SAC has the
library's defaults; PPO the settings of its zoo, with ``VecNormalize``.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import stable_baselines3 as sb3
import torch
import tyro
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.cli import main as budget
from agents.report.tradeoff import FILE_NAME, Comparison
from agents.studies.policies import PolicyOptions, open_policy, setup_of
from agents.studies.retrofit import latency_of, visited
from benchmarks.card import RESULTS, store
from benchmarks.card import command as command_line
from budget_wrappers.deploy.engines import ENGINES, EnginePolicy
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.integrations.sb3_retrofit import trained_actor

RUNS = Path("runs") / "retrofit"


@dataclass(frozen=True)
class Source:
    """A policy to train with Stable-Baselines3.

    Attributes:
        algorithm: its class.
        env_id: of the environment.
        steps: of training.
        normalise: whether observations and rewards are normalised.
        settings: of the algorithm.
    """

    algorithm: str
    env_id: str
    steps: int
    normalise: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


SOURCES = {
    "sac": Source("SAC", "HalfCheetah-v5", 200_000, settings={"learning_starts": 10_000}),
    "ppo": Source(
        "PPO",
        "Walker2d-v5",
        1_000_000,
        normalise=True,
        settings={
            "n_steps": 512,
            "batch_size": 32,
            "gamma": 0.99,
            "learning_rate": 5.05041e-05,
            "ent_coef": 0.000585045,
            "clip_range": 0.1,
            "n_epochs": 20,
            "gae_lambda": 0.95,
            "max_grad_norm": 1,
            "vf_coef": 0.871923,
        },
    ),
    "ppo-hopper": Source(
        "PPO",
        "Hopper-v5",
        300_000,
        normalise=True,
        settings={
            "n_steps": 512,
            "batch_size": 32,
            "gamma": 0.999,
            "learning_rate": 9.80828e-05,
            "ent_coef": 0.00229519,
            "clip_range": 0.2,
            "n_epochs": 5,
            "gae_lambda": 0.99,
            "max_grad_norm": 0.7,
            "vf_coef": 0.835671,
        },
    ),
}


def train(name: str, seed: int) -> None:
    """Train to the end, from the last checkpoint where there is one."""
    source, folder = SOURCES[name], RUNS / f"{name}-seed{seed}"
    algorithm = getattr(sb3, source.algorithm)
    env: Any = DummyVecEnv([lambda: gym.make(source.env_id)])
    checkpoints = sorted(folder.glob("model_*_steps.zip"), key=lambda path: int(path.stem.split("_")[1]))
    if checkpoints:
        last = checkpoints[-1]
        if source.normalise:
            env = VecNormalize.load(str(last).replace("model_", "model_vecnormalize_").replace(".zip", ".pkl"), env)
        model = algorithm.load(last, env=env, device="cpu")
        replay = last.with_name(last.name.replace("model_", "model_replay_buffer_").replace(".zip", ".pkl"))
        if replay.exists():
            model.load_replay_buffer(replay)
    else:
        env = VecNormalize(env) if source.normalise else env
        model = algorithm("MlpPolicy", env, seed=seed, device="cpu", **source.settings)
    keep = {"save_replay_buffer": not source.normalise, "save_vecnormalize": source.normalise}
    every = CheckpointCallback(source.steps // 10, str(folder), name_prefix="model", **keep)
    model.learn(source.steps - model.num_timesteps, callback=every, reset_num_timesteps=False)
    model.save(folder / "final.zip")
    if source.normalise:
        model.get_vec_normalize_env().save(str(folder / "vec_normalize.pkl"))
    for left in folder.glob("model_*"):
        left.unlink()


def study(name: str, seed: int, budgets: list[float], exit_after: list[int] | None) -> None:
    """Give the trained policy exits and store what each budget buys."""
    source, folder = SOURCES[name], RUNS / f"{name}-seed{seed}"
    exits = "" if exit_after is None else f"-exits{''.join(map(str, exit_after))}"
    out = folder / f"retrofit{exits}"
    command = ["retrofit", str(folder / "final.zip"), "--env", source.env_id, "--trust", "--folder", str(out)]
    command += ["--budget", *map(str, budgets)]
    command += ["--vec-normalize", str(folder / "vec_normalize.pkl")] if source.normalise else []
    command += [] if exit_after is None else ["--exit-after", *map(str, exit_after)]
    if code := budget(command):
        raise SystemExit(code)
    comparison = Comparison.read(out)
    before = comparison.points[0]
    rows = [
        {
            "label": point.label,
            "return": point.mean_return,
            "share_of_return": point.mean_return / before.mean_return,
            "flops_per_step": point.flops_per_step,
            "times_fewer": before.flops_per_step / point.flops_per_step,
            "share_steps": point.extras.get("share_steps"),
            "returns": [episode["return"] for episode in point.episodes],
        }
        for point in comparison.points
    ]
    record = {"source": vars(source), "seed": seed, "settings": comparison.settings, "rows": rows}
    store(RESULTS / "retrofit" / f"{name}-seed{seed}{exits}.json", record)
    shutil.copy(out / "tradeoff.png", RESULTS / "retrofit" / f"{name}-seed{seed}{exits}.png")
    print(
        json.dumps([{key: row[key] for key in ("label", "share_of_return", "times_fewer")} for row in rows], indent=1)
    )


def front(name: str, seed: int, budgets: list[float]) -> None:
    """Compare exits with students and coins, by ``budget tradeoff``, and store the comparison."""
    source, folder = SOURCES[name], RUNS / f"{name}-seed{seed}"
    word = f"{name.split('-')[0]}=retrofit:{folder / 'final.zip'}@steps=4000@updates=2000"
    word += f"@vec_normalize={folder / 'vec_normalize.pkl'}" if source.normalise else ""
    command = ["tradeoff", "--env", source.env_id, "--methods", word, "fit", "coin", "shuffled", "dense:4", "dense:16"]
    command += ["--budgets", *map(str, budgets), "--trust", "--folder", str(folder / "front")]
    if code := budget(command):
        raise SystemExit(code)
    # Under the command that a reader would type; the one inside is how it is done.
    comparison = dataclasses.replace(Comparison.read(folder / "front"), command=command_line())
    comparison.write(folder / "front")
    shutil.copy(folder / "front" / FILE_NAME, RESULTS / "tradeoff" / f"retrofit-{name}.json")


def latency(name: str, seed: int, budgets: list[float], rounds: int = 15) -> None:
    """Time single actions as trained, of the same weights in each engine, and of each budget; store each turn's median.

    The least of them is what to compare on a machine that others slow now and then.
    """
    folder = RUNS / f"{name}-seed{seed}"
    given = [folder / "final.zip", "--env", SOURCES[name].env_id, "--trust"]
    given += ["--vec-normalize", folder / "vec_normalize.pkl"] if SOURCES[name].normalise else []
    options = tyro.cli(PolicyOptions, args=list(map(str, given)))
    policy, env, _ = open_policy(options)
    env.close()
    actor = trained_actor(getattr(policy, "model", policy))
    contenders = {"as trained": policy} | {f"as trained, {engine}": EnginePolicy(actor, engine) for engine in ENGINES}
    for b in budgets:
        contenders[f"b = {b:g}"] = BudgetedExitPolicy.load(folder / "retrofit" / f"budget-{b:g}.safetensors")
    states = visited(policy, setup_of(options)[1], seed=20_000)
    times: dict[str, list[float]] = {label: [] for label in contenders}
    for _ in range(rounds):
        for label, one in contenders.items():
            times[label].append(latency_of(one, states).p50_us)
    rows = {
        label: {"p50_us": statistics.median(each), "least_us": min(each), "rounds": each}
        for label, each in times.items()
    }
    store(RESULTS / "retrofit" / f"{name}-seed{seed}-latency.json", {"rows": rows})
    for label, row in rows.items():
        print(f"{label:<28}{row['p50_us']:>10.1f} µs, at least {row['least_us']:.1f}")


def main() -> None:
    """Train or study, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "study", "latency", "front"])
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.4])
    parser.add_argument("--exit-after", type=int, nargs="+", help="hidden layers before each exit")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "train":
        train(given.source, given.seed)
    elif given.what == "front":
        front(given.source, given.seed, given.budgets)
    elif given.what == "latency":
        latency(given.source, given.seed, given.budgets)
    else:
        study(given.source, given.seed, given.budgets, given.exit_after)


if __name__ == "__main__":
    main()
