"""What compute buys: small-only, large-only and asymmetric sub-policies at several prices, over several seeds.

``run_tradeoff`` trains every point, in worker processes, and keeps each as it is finished: the same command given
again goes on where it was interrupted.
"""

import contextlib
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.config import Activation, check_types, require
from agents.loop.evaluate import REPORT_SEED, Evaluation, evaluate_policy
from agents.methods.asymmetric import Asymmetric, AsymmetricConfig
from agents.report.cloud import random_return
from agents.report.curves import Curve, curve_to_the_end
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import provenance
from agents.runs.monitors import Evaluate
from agents.runs.run_config import MOST_WORKERS, RunConfig
from agents.runs.workers import Advance, Lost, Told, progress_bar, require_none_lost, run_jobs
from agents.sac import SAC
from agents.studies.points import Job, read_points, write_point


@dataclass(frozen=True)
class TradeoffConfig:
    """Train a small policy, a large one and asymmetric sub-policies at several prices; compare return and FLOPs.

    Attributes:
        env: a Gymnasium id with a bounded ``Box`` action space.
        steps: environment steps of each training.
        seeds: one training of each method for each.
        weights: λ, prices of compute: reward that a step of the small sub-policy costs.
        small: widths of the small policy's hidden layers.
        large: widths of the large policy's.
        hold: environment steps that a choice between them lasts, or the durations to choose from, too.
        activation: between layers.
        learning_rate: step size of the policies.
        batch_size: transitions of one update.
        gamma: discount.
        learning_starts: environment steps before the first update.
        episodes: of the final evaluation, seeded, the same for all.
        eval_every: environment steps between two points of a learning curve.
        workers: processes, one training each at a time.
    """

    env: str = "Pendulum-v1"
    steps: int = 5_000
    seeds: tuple[int, ...] = (0, 1)
    weights: tuple[float, ...] = (0.01, 0.03, 0.05)
    small: tuple[int, ...] = (8, 8)
    large: tuple[int, ...] = (64, 64)
    hold: int | tuple[int, ...] = 5
    activation: Activation = "tanh"
    learning_rate: float = 1e-3
    batch_size: int = 256
    gamma: float = 0.99
    learning_starts: int = 100
    episodes: int = 20
    eval_every: int = 500
    workers: int = 2

    def __post_init__(self) -> None:
        check_types(self)
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds, "one seed at least, each once")
        require(min(self.seeds) >= 0, "seeds", self.seeds, "whole numbers of 0 or more")
        require(self.workers <= MOST_WORKERS, "workers", self.workers, f"at most {MOST_WORKERS}")
        require(len(set(self.weights)) == len(self.weights), "weights", self.weights, "each price once")
        for name in ("steps", "episodes", "eval_every", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        self.recipe(0.0)  # raises for what only an agent checks

    def recipe(self, weight: float, seed: int = 0) -> dict[str, Any]:
        """Return the settings of ``Asymmetric``, which those of the baselines are a part of."""
        settings = {
            "net_arch": self.large,
            "small_net_arch": self.small,
            "hold": self.hold,
            "weight": weight,
            "activation": self.activation,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "buffer_size": min(self.steps, 1_000_000),
            "gamma": self.gamma,
            "learning_starts": self.learning_starts,
            "master_learning_starts": min(AsymmetricConfig.master_learning_starts, self.steps // 10),
            "seed": seed,
        }
        AsymmetricConfig.of(settings)
        return settings

    def jobs(self) -> list[Job]:
        """Return every training, the longest first, so that two workers end together."""
        kinds = [("asymmetric", weight) for weight in self.weights] + [("large-only", None), ("small-only", None)]
        shared = {
            "env": self.env,
            "steps": self.steps,
            "episodes": self.episodes,
            "eval_every": self.eval_every,
        }
        return [
            Job(method, weight, seed, {**shared, "recipe": self.recipe(weight or 0.0, seed)})
            for method, weight in kinds
            for seed in self.seeds
        ]


def run_tradeoff(config: TradeoffConfig, folder: str | Path, progress: bool | None = None) -> list[TradeoffPoint]:
    """Train and evaluate every point that ``folder`` lacks, and write ``tradeoff.json``, which ``budget report`` reads.

    Args:
        config: what to compare.
        folder: where points are kept, each in a file of its own as soon as it is finished.
        progress: show one bar over everything; by default where standard error is a terminal.

    Returns:
        All points, in the order of ``config.jobs()``.

    Raises:
        ConfigError: an environment that cannot be made or used, or a folder with points of other settings.
        CheckpointError: a damaged point.
        WorkerLostError: points whose processes were killed each time they were tried; all others are kept.
        Interrupted: a signal stopped it; every finished point is kept.
    """
    folder, jobs = Path(folder), config.jobs()
    points = read_points(folder, jobs)
    missing = [job for job in jobs if job not in points]
    if missing:
        _try_out(config)
    lost: dict[Job, Lost] = {}
    with contextlib.ExitStack() as stack:
        bar = progress_bar(config.steps * len(jobs), "tradeoff", progress, config.steps * len(points))
        work = functools.partial(_train_and_keep, folder)
        trained = run_jobs(work, missing, stack.enter_context(bar), config.workers)
        for job, point in stack.enter_context(contextlib.closing(trained)):
            (lost if isinstance(point, Lost) else points)[job] = point
    require_none_lost(
        lost, lambda job: f"{job.label}, seed {job.seed}", f"Go on with the same options and --folder {folder}"
    )
    record = provenance(None)
    ordered = [points[job] for job in jobs]
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("env", "workers")}
    with contextlib.closing(RunConfig(config.env).make_env()) as env:
        settings["random_return"] = random_return(env, config.episodes)
    Comparison(config.env, ordered, "matmul", record["command"], record["versions"], settings).write(folder)
    return ordered


def _try_out(config: TradeoffConfig) -> None:
    """Make everything once, so that bad input is refused here and not in a worker."""
    env = RunConfig(config.env).make_env()
    Asymmetric(env, **config.recipe(0.0))
    env.close()


# ---- one training ---------------------------------------------------------------------------------------------------


def train_point(job: Job, advance: Advance) -> TradeoffPoint | None:
    """Train and evaluate one policy.

    Args:
        job: which.
        advance: told how many steps were taken since the last call; training stops when it returns ``False``.

    Returns:
        What was measured, ``None`` if it was stopped.
    """
    settings = job.settings
    setup = RunConfig(settings["env"])
    env, evaluation_env = setup.make_env(), setup.make_env()
    if job.method == "asymmetric":
        agent: Any = Asymmetric(env, **settings["recipe"])
    else:
        size = "large" if job.method == "large-only" else "small"
        agent = SAC(env, **AsymmetricConfig.of(settings["recipe"]).sub_policy(size))
    # Episodes of the final evaluation, so that the curve ends where the table is; nothing is picked by them.
    curve = Evaluate(evaluation_env, settings["eval_every"], settings["episodes"], REPORT_SEED)
    told = Told(advance)
    agent.learn(settings["steps"], callback=[curve, told])
    if told.stopped:
        return None
    point = _evaluated(job, agent, evaluation_env, [(row["step"], row["return"]) for row in curve.curve])
    env.close()
    evaluation_env.close()
    return point


def _train_and_keep(folder: Path, job: Job, advance: Advance) -> TradeoffPoint | None:
    """Do one job and keep its point; one that was stopped leaves none."""
    point = train_point(job, advance)
    if point is not None:
        write_point(folder, job, point)
    return point


def _evaluated(job: Job, agent: Any, env: gym.Env, curve: Curve) -> TradeoffPoint:
    """Evaluate ``agent`` without its noise, which the point is, and with it, which the extras hold."""
    trained, episodes = agent.meter.totals, job.settings["episodes"]
    before = dict(trained.by_name)
    result = evaluate_policy(agent, env, episodes, REPORT_SEED)
    after = agent.meter.totals.by_name
    noisy = evaluate_policy(agent, env, episodes, REPORT_SEED, deterministic=False)
    extras = {
        "baseline": job.method != "asymmetric",
        "evaluation": "deterministic",
        "stochastic_return": noisy.mean,
        "stochastic_flops_per_step": noisy.flops_per_step,
        "train_act_flops": trained["act"],
        "train_learn_flops": trained["learn"],
    }
    if job.method == "asymmetric":
        extras["weight"] = job.weight
        spent = after.get("large", 0) - before.get("large", 0)
        extras["share_large"] = spent / agent.large.flops_per_action / _steps(result)
    final, settings = result.summary()["raw_return"], job.settings
    curve = curve_to_the_end(curve, settings["eval_every"], settings["steps"], final)
    return TradeoffPoint.from_episodes(job.method, job.label, job.seed, result.by_episode(), curve, extras)


def _steps(result: Evaluation) -> int:
    return sum(result.lengths)
