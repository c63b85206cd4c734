"""Random search: many configurations on one seed, the best of them on more, ranked by return over the whole training.

``run_sweep`` keeps each training in a run folder of its own: the same command given again goes on where it was
interrupted, and only makes the table again once all are finished. Protocol: "Mind the Budget: Accelerating DRL Using
Early Exit Neural Networks", 200 configurations, the best 5 on 2 more seeds.
"""

import contextlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.config import check_types, require
from agents.report.curves import OVER_TRAINING
from agents.report.tradeoff import TradeoffPoint
from agents.runs.run_config import MOST_WORKERS, RunConfig
from agents.runs.workers import Lost, progress_bar, require_none_lost, run_jobs
from agents.studies.space import Draw, draw
from agents.studies.sweep_table import SweepStudy
from agents.studies.training import Diverged, Training, finished_point, outcome, try_training
from budget_wrappers.errors import ConfigError, NonFiniteError


@dataclass(frozen=True)
class SweepConfig:
    """Draw configurations at random, train each, train the best on more seeds and rank them.

    Attributes:
        env: a Gymnasium id.
        steps: environment steps of each training.
        configurations: drawn, each trained with the first seed.
        finalists: of them that are trained with the other seeds, too.
        seeds: of the trainings; the first one also draws.
        eval_every: environment steps between two evaluations; a training's score is the mean of all.
        eval_episodes: of each.
        episodes: of the final evaluation.
        workers: trainings at a time.
    """

    env: str
    steps: int = 500_000
    configurations: int = 200
    finalists: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    eval_every: int = 10_000
    eval_episodes: int = 5
    episodes: int = 20
    workers: int = 2

    def __post_init__(self) -> None:
        check_types(self)
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds, "one seed at least, each once")
        require(self.workers <= MOST_WORKERS, "workers", self.workers, f"at most {MOST_WORKERS}")
        require(min(self.seeds) >= 0, "seeds", self.seeds, "whole numbers of 0 or more")
        for name in ("steps", "configurations", "finalists", "eval_every", "eval_episodes", "episodes", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        most = self.configurations
        require(self.finalists <= most, "finalists", self.finalists, f"at most the {most} configurations")
        require(self.eval_every <= self.steps, "eval_every", self.eval_every, f"at most the {self.steps} steps")

    @property
    def run(self) -> dict[str, Any]:
        """Settings of every training's ``RunConfig``."""
        return {
            "env": self.env,
            "steps": self.steps,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "checkpoint_every": self.eval_every,
            "tensorboard": False,
        }


@dataclass
class Sweep:
    """A search under way.

    Attributes:
        agent: public name of the agent's class.
        config: what to try.
        space: what its keys are drawn from.
        folder: where each training has its run folder.
        points: of each configuration, by seed.
        diverged: configurations that did not reach the end of a training, and why.
        lost: trainings whose processes were killed each time they were tried.
    """

    agent: str
    config: SweepConfig
    space: Mapping[str, Draw]
    folder: Path
    points: dict[int, dict[int, TradeoffPoint]] = field(default_factory=dict)
    diverged: dict[int, str] = field(default_factory=dict)
    lost: dict[Training, Lost] = field(default_factory=dict)

    def settings(self, number: int) -> dict[str, Any]:
        """Return the agent's settings of configuration ``number``, without a seed."""
        return draw(self.space, self.config.seeds[0], number)

    def training(self, number: int, seed: int) -> Training:
        """Return one training."""
        name, settings = f"config-{number:03}-seed{seed}", {**self.settings(number), "seed": seed}
        return Training(self.agent, name, str(self.folder), self.config.run, settings, self.config.episodes)

    def train(self, wanted: Mapping[Training, tuple[int, int]], label: str, progress: bool | None, on: Any) -> None:
        """Train what is missing of ``wanted`` and add its points."""
        found = {training: outcome(training) for training in wanted}
        missing = [training for training, point in found.items() if point is None]
        steps = self.config.steps
        with (
            progress_bar(steps * len(found), label, progress, steps * (len(found) - len(missing))) as advance,
            contextlib.closing(on(try_training, missing, advance, self.config.workers)) as trained,
        ):
            for training, point in trained:
                if point is None:
                    raise KeyboardInterrupt
                found[training] = point
        for training, (number, seed) in wanted.items():
            result = found[training]
            if isinstance(result, Diverged):
                self.diverged[number] = f"seed {seed}: {result.error}"
            elif isinstance(result, Lost):
                self.lost[training] = result
                self.diverged[number] = f"seed {seed}: {result}; the same command tries again"
            else:
                self.points.setdefault(number, {})[seed] = result

    def ranking(self) -> list[int]:
        """Return the configurations, the best first, by return over the whole training on the first seed.

        Raises:
            NonFiniteError: every one of them diverged.
        """
        first = self.config.seeds[0]
        if not self.points and not self.lost:
            number, error = next(iter(self.diverged.items()))
            raise NonFiniteError(
                f"all {len(self.diverged)} configurations diverged, configuration {number} with {error}. Expected one "
                "at least that reaches its end; lower learning_rate in the search space"
            )
        return sorted(self.points, key=lambda number: -over_training(self.points[number][first]))


def run_sweep(
    agent: str,
    config: SweepConfig,
    space: Mapping[str, Draw],
    folder: str | Path,
    progress: bool | None = None,
    on: Any = run_jobs,
) -> SweepStudy:
    """Train what ``folder`` lacks of the search, and write ``sweep.json`` and ``sweep.md``.

    Args:
        agent: public name of the agent's class.
        config: what to try.
        space: what keys of the agent are drawn from.
        folder: where each training has its run folder.
        progress: show a bar; by default where standard error is a terminal.
        on: runs the trainings: ``agents.runs.workers.run_jobs`` in processes of this machine,
            ``agents.studies.ray_tasks.run_on_ray`` on Ray.

    Returns:
        The ranking, with what it rests on.

    Raises:
        ConfigError: an environment or configuration that cannot be used, or a folder with trainings of other settings.
        CheckpointError: a damaged result or checkpoint.
        MissingExtraError: Ray was asked for, and is not installed.
        NonFiniteError: all trainings diverged. One that does is out of the ranking, and the others go on.
        WorkerLostError: trainings whose processes were killed each time they were tried. The ranking is written
            without their configurations, which it names; the same call tries them again.
        Interrupted: a signal stopped it, and what ran was saved.
    """
    sweep = Sweep(agent, config, space, Path(folder))
    first, *others = config.seeds
    drawn = {sweep.training(number, first): (number, first) for number in range(config.configurations)}
    _try_out(sweep, list(drawn))
    sweep.train(drawn, "configurations", progress, on)
    again = f"Go on with the same options and --folder {folder}"
    if not sweep.points:
        require_none_lost(sweep.lost, lambda one: one.name, again)
    finalists = sweep.ranking()[: config.finalists]
    more = {sweep.training(number, seed): (number, seed) for number in finalists for seed in others}
    if more:
        sweep.train(more, "finalists", progress, on)
    study = SweepStudy(
        agent=agent,
        env_id=config.env,
        settings={number: sweep.settings(number) for number in sweep.points},
        scores={
            number: {seed: over_training(point) for seed, point in points.items()}
            for number, points in sweep.points.items()
        },
        flops={
            number: statistics.fmean(point.flops_per_step for point in points.values())
            for number, points in sweep.points.items()
        },
        finalists=tuple(finalists),
        diverged=dict(sweep.diverged),
        search={key: value for key, value in vars(config).items() if key not in ("env", "workers")},
    )
    study.write(sweep.folder)
    require_none_lost(sweep.lost, lambda one: one.name, again)
    return study


def over_training(point: TradeoffPoint) -> float:
    """Return the mean return of all evaluations while training.

    Raises:
        ConfigError: there was none.
    """
    if not point.curve:
        raise ConfigError(
            f"{point.label!r} was never evaluated while training: expected eval_every of at most the steps"
        )
    # The end of a curve is the final evaluation, which the score does not hold. Earlier versions kept no mean.
    return point.extras.get(OVER_TRAINING, statistics.fmean(value for _, value in point.curve))


def _try_out(sweep: Sweep, trainings: list[Training]) -> None:
    """Check every configuration, and make one agent, so that bad input is refused here and not in a worker."""
    for training in trainings:
        _ = training.config
        finished_point(training)  # raises for other settings, before anything is trained
    env = RunConfig.of(trainings[0].run).make_env()
    try:
        trainings[0].agent_class(env, **trainings[0].settings)
    finally:
        env.close()
