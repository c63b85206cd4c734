"""The search for the two sizes of asymmetric sub-policies: train as few widths as needed, choose, write it down.

``run_sizes`` keeps each training in a run folder of its own: the same command given again goes on where it was
interrupted, and only makes the table again once all are finished.
"""

import contextlib
import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.config import Activation, check_types, require
from agents.report.cloud import random_return
from agents.report.tradeoff import TradeoffPoint
from agents.runs.run_config import MOST_WORKERS, RunConfig
from agents.runs.workers import Lost, progress_bar, require_none_lost, run_jobs
from agents.sac import SAC
from agents.studies.sizes_table import LAYERS, SizesStudy
from agents.studies.sizing import SizingRule, search_sizes
from agents.studies.training import Training, finished_point, train

LEARNING = (
    "activation",
    "learning_rate",
    "buffer_size",
    "batch_size",
    "gamma",
    "learning_starts",
    "correlated_noise",
    "hindsight",
)
"""The fields of ``SizesConfig`` that SAC takes as they are."""
MORE_OFTEN, AT_MOST_EVERY = 20, 1_000
"""Checkpoints and evaluations of a training, and the fewest environment steps between two."""


@dataclass(frozen=True)
class SizesConfig:
    """Find the widths of the small and the large sub-policy: train SAC at rising widths, compare with a criterion.

    Attributes:
        env: a Gymnasium id with a bounded ``Box`` action space.
        steps: environment steps of each training.
        seeds: one training of each width for each; scores are means over them.
        criterion: units of the two hidden layers whose score counts as 1.
        widths: units to try, upwards until one is large; each below the criterion's.
        large_share: share of the criterion that the large policy reaches.
        small_share: share that the small one, of at most a quarter of the units, reaches at most.
        activation: between layers.
        learning_rate: step size of the policies.
        buffer_size: transitions the replay holds.
        batch_size: transitions of one update.
        gamma: discount.
        learning_starts: environment steps before the first update.
        correlated_noise: σ of Ornstein-Uhlenbeck noise on the actions while training; 0 for none.
        hindsight: transitions with a goal that was reached later, for each one with its own; 0 for none.
        episodes: of the final evaluation, seeded, the same for all.
        workers: processes, one training each at a time; the seeds of a width are trained side by side.
    """

    env: str
    steps: int = 100_000
    seeds: tuple[int, ...] = (0, 1)
    criterion: int = SizingRule.criterion
    widths: tuple[int, ...] = SizingRule.widths
    large_share: float = SizingRule.large_share
    small_share: float = SizingRule.small_share
    activation: Activation = "tanh"
    learning_rate: float = 3e-4
    buffer_size: int = 1_000_000
    batch_size: int = 256
    gamma: float = 0.99
    learning_starts: int = 100
    correlated_noise: float = 0.0
    hindsight: int = 0
    episodes: int = 20
    workers: int = 2

    def __post_init__(self) -> None:
        check_types(self)
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds, "one seed at least, each once")
        require(min(self.seeds) >= 0, "seeds", self.seeds, "whole numbers of 0 or more")
        require(self.workers <= MOST_WORKERS, "workers", self.workers, f"at most {MOST_WORKERS}")
        for name in ("steps", "episodes", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for training in self.trainings(self.rule.criterion, ""):
            _ = training.config  # raises for what only an agent checks

    @property
    def rule(self) -> SizingRule:
        """What is asked of the widths."""
        return SizingRule(self.criterion, self.widths, self.large_share, self.small_share)

    @property
    def learning(self) -> dict[str, Any]:
        """The settings of SAC, without its width and seed."""
        return {name: getattr(self, name) for name in LEARNING}

    def trainings(self, width: int, folder: str | Path) -> list[Training]:
        """Return the trainings of one width, one a seed."""
        every = max(self.steps // MORE_OFTEN, AT_MOST_EVERY)
        run = {"env": self.env, "steps": self.steps, "eval_every": every, "checkpoint_every": every}
        run["tensorboard"] = False
        agent = {**self.learning, "net_arch": (width,) * LAYERS}
        return [
            Training("SAC", f"width-{width}-seed{seed}", str(folder), run, {**agent, "seed": seed}, self.episodes)
            for seed in self.seeds
        ]


def run_sizes(config: SizesConfig, folder: str | Path, progress: bool | None = None) -> SizesStudy:
    """Train the widths that the rule asks for and ``folder`` lacks, and write ``sizes.json`` and ``sizes.md``.

    Args:
        config: what to try.
        folder: where each training has its run folder.
        progress: show a bar for each width; by default where standard error is a terminal.

    Returns:
        The choice, with what it rests on.

    Raises:
        ConfigError: an environment that cannot be made or used, or a folder with trainings of other settings.
        CheckpointError: a damaged result or checkpoint.
        NonFiniteError: a training diverged.
        WorkerLostError: trainings whose processes were killed each time they were tried; all others are kept.
        Interrupted: a signal stopped it, and what ran was saved.
    """
    folder, rule = Path(folder), config.rule
    for width in (rule.criterion, *rule.widths):
        for training in config.trainings(width, folder):
            finished_point(training)  # raises for other settings, before anything is trained
    random = _try_out(config)
    points: dict[int, list[TradeoffPoint]] = {}

    def score_of(width: int) -> float:
        points[width] = _trained(config, width, folder, progress)
        return statistics.fmean(point.mean_return for point in points[width])

    sizes, _ = search_sizes(rule, score_of, random)
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("env", "workers")}
    study = SizesStudy(config.env, sizes, points, random, rule.criterion, settings)
    study.write(folder)
    return study


def _try_out(config: SizesConfig) -> float:
    """Make everything once, so that bad input is refused here and not in a worker; return random actions' score."""
    training = config.trainings(min(config.widths), "")[0]
    env = RunConfig.of(training.run).make_env()
    try:
        SAC(env, **training.settings)
        return random_return(env, config.episodes)
    finally:
        env.close()


def _trained(config: SizesConfig, width: int, folder: Path, progress: bool | None) -> list[TradeoffPoint]:
    """Return the points of one width, by seed, after training those that are missing."""
    trainings = config.trainings(width, folder)
    points = {one: finished_point(one) for one in trainings}
    missing = [one for one, point in points.items() if point is None]
    lost: dict[Training, Lost] = {}
    if missing:
        done = config.steps * (len(trainings) - len(missing))
        with (
            progress_bar(config.steps * len(trainings), f"{width} units", progress, done) as advance,
            contextlib.closing(run_jobs(train, missing, advance, config.workers)) as trained,
        ):
            for one, point in trained:
                if point is None:
                    raise KeyboardInterrupt
                (lost if isinstance(point, Lost) else points)[one] = point
    require_none_lost(lost, lambda one: one.name, f"Go on with the same options and --folder {folder}")
    return [points[one] for one in trainings]
