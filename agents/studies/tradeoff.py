"""What compute buys: any methods at any budgets over several seeds, with the controls that could make them look silly.

Each training has a run folder of its own, which every other command takes. The same command given again goes on where
it was interrupted, and only makes the comparison again once all are finished.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.config import Activation, check_types, require
from agents.report.cloud import random_return
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.runs.log import provenance
from agents.runs.run_config import MOST_WORKERS, RunConfig
from agents.runs.workers import Lost, progress_bar, require_none_lost, run_jobs
from agents.studies.comparing import Field, folder_of
from agents.studies.contender import Contender
from agents.studies.entrants import Entrant, TrainedEntrant, work
from agents.studies.films import filmed
from agents.studies.fitted import Fit, fitted
from agents.studies.retrofitted import TakenPolicy
from agents.studies.spec import MethodSpec
from agents.studies.training import Diverged
from budget_wrappers.errors import NonFiniteError

COMMON = ("net_arch", "activation", "learning_rate", "batch_size", "gamma", "learning_starts")
"""Fields of ``TradeoffConfig`` that every agent takes which has the key."""
LEARNING_STARTS = 1_000
BOX, DISCRETE, BESIDE = ("sac", "bexa-sac", "asymmetric"), ("dqn", "bexa-dqn"), ("dense:16", "fit", "coin")
"""Methods that are compared where none are named, by the kind of action, and the controls beside them."""
LOG_EVERY = 1_000
"""Environment steps between two rows of a training's metrics; a shorter training has one row, by which it is timed."""


@dataclass(frozen=True)
class TradeoffConfig:
    """Train methods at budgets, beside controls, over seeds; compare return and FLOPs.

    Attributes:
        env: Gymnasium ids, each compared by itself.
        methods: AGENT[/PRESET][+METHOD…][:WIDTHS][@KEY=VALUE…], such as sac:64,64, bexa-sac, asymmetric/swimmer or
            sac+exits+polyprune:256,256, and NAME=… to name its rows; dense:WIDTH, fit (plain networks, of each method's
            FLOPs; beside retrofits their students), coin, shuffled, cheapest and dearest (in the place of whatever
            chooses) as controls; a trained policy's path, or retrofit:PATH; module:Class, a method of your own. By
            default sac, bexa-sac and asymmetric, or dqn and bexa-dqn, with dense:16, fit and coin.
        budgets: mean costs of acting that early exits keep: 0 for the first exit only, 1 for the last.
        weights: λ, prices of compute: reward that a step of asymmetric's small sub-policy costs.
        seeds: one training of each method for each.
        steps: environment steps of each training.
        net_arch: widths of hidden layers, by default each agent's own.
        activation: between layers, by default each agent's own.
        learning_rate: step size, by default each agent's own.
        batch_size: transitions of one update, by default each agent's own.
        gamma: discount, by default each agent's own.
        learning_starts: environment steps before the first update, the same for all, as agents' own differ; by default
            1,000, or a tenth of the steps where that is less.
        episodes: of the final evaluation, seeded, the same for all.
        eval_every: environment steps between two points of a learning curve, and between two checkpoints.
        eval_episodes: of each of those points.
        max_episode_steps: time limit of an episode, where it is to differ from the environment's own.
        workers: trainings at a time.
    """

    env: tuple[str, ...]
    methods: tuple[str, ...] = ()
    budgets: tuple[float, ...] = (0.2, 0.5)
    weights: tuple[float, ...] = (0.01, 0.03)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    steps: int = 50_000
    net_arch: tuple[int, ...] | None = None
    activation: Activation | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    gamma: float | None = None
    learning_starts: int | None = None
    episodes: int = 20
    eval_every: int = 5_000
    eval_episodes: int = 5
    max_episode_steps: int | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        check_types(self)
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds, "one seed at least, each once")
        require(min(self.seeds) >= 0, "seeds", self.seeds, "whole numbers of 0 or more")
        require(self.workers <= MOST_WORKERS, "workers", self.workers, f"at most {MOST_WORKERS}")
        for name in ("env", "methods", "budgets", "weights"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), name, values, "each once")
        for name in ("budgets", "weights"):
            values = getattr(self, name)
            told = {f"{value:g}" for value in values}
            require(len(told) == len(values), name, values, "numbers that differ in their first six digits, as rows do")
        require(len(self.env) > 0, "env", self.env, "one environment at least")
        for name in ("steps", "episodes", "eval_every", "eval_episodes", "workers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")

    def specs(self, env_id: str) -> list[MethodSpec]:
        """Return the methods, taken apart; where none are named, those for the actions of an environment.

        Raises:
            ConfigError: a word that names none, or an environment that cannot be made.
        """
        words: Sequence[str] = self.methods
        if not words:
            with contextlib.closing(RunConfig.of({**self.run, "env": env_id}).make_env()) as env:
                words = (*(DISCRETE if isinstance(env.action_space, gym.spaces.Discrete) else BOX), *BESIDE)
        return [MethodSpec.parse(word) for word in words]

    @property
    def run(self) -> dict[str, Any]:
        """Settings of every training's ``RunConfig`` but the environment."""
        every = min(self.eval_every, self.steps)
        return {
            "steps": self.steps,
            "eval_every": every,
            "eval_episodes": self.eval_episodes,
            "checkpoint_every": every,
            "log_every": min(LOG_EVERY, self.steps),
            "max_episode_steps": self.max_episode_steps,
        }

    def fields(
        self, folder: Path, settings: Mapping[str, Mapping[str, Any]] | None = None, trust: bool = False
    ) -> list[Field]:
        """Return who takes part in each environment.

        Args:
            folder: of the study.
            settings: further settings of methods, by name.
            trust: whether files may run code when they are loaded.
        """
        common = {key: getattr(self, key) for key in COMMON if getattr(self, key) is not None}
        common.setdefault("learning_starts", min(LEARNING_STARTS, self.steps // 10))
        return [
            Field(
                self.specs(env_id),
                env_id,
                self.run,
                common,
                settings or {},
                self.budgets,
                self.weights,
                self.seeds,
                self.episodes,
                str(folder_of(folder, env_id, len(self.env) == 1)),
                trust,
            )
            for env_id in self.env
        ]


@dataclass
class Study:
    """A comparison in one environment under way.

    Attributes:
        field: who takes part.
        points: of each entrant that is finished.
        lost: entrants whose processes were killed each time they were tried.
        diverged: trainings that ended in numbers that are none, with why.
        shared: rows whose agents are those of another row.
    """

    field: Field
    points: dict[Entrant, list[TradeoffPoint]] = dataclasses.field(default_factory=dict)
    lost: dict[Entrant, Lost] = dataclasses.field(default_factory=dict)
    diverged: dict[Entrant, str] = dataclasses.field(default_factory=dict)
    shared: list[Fit] = dataclasses.field(default_factory=list)

    def take(self, entrant: Entrant, result: "list[TradeoffPoint] | Diverged | Lost") -> None:
        """Put away what came of an entrant."""
        if isinstance(result, Lost):
            self.lost[entrant] = result
        elif isinstance(result, Diverged):
            self.diverged[entrant] = result.error
        else:
            self.points[entrant] = result

    def rows(self) -> dict[str, list[TradeoffPoint]]:
        """Return the points so far by label."""
        found: dict[str, list[TradeoffPoint]] = {}
        for point in self.named():
            found.setdefault(point.label, []).append(point)
        return found

    def named(self) -> list[TradeoffPoint]:
        """Return the points so far, each with the folder of its run."""
        rows = [*self.points.items()]
        for fit in self.shared:
            rows += [(one, fit.row(self.points[one])) for one in fit.entrants if one in self.points]
        return [
            dataclasses.replace(point, extras={**point.extras, "run": f"runs/{entrant.name}"})
            for entrant, points in rows
            for point in points
        ]


def run_tradeoff(
    config: TradeoffConfig,
    folder: str | Path,
    progress: bool | None = None,
    on: Any = run_jobs,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    trust: bool = False,
    films: bool = False,
) -> list[Path]:
    """Do what ``folder`` lacks of the comparison, and write a ``tradeoff.json`` for each environment.

    Args:
        config: what to compare.
        folder: where each training has its run folder, under ``runs``; of several environments each has a folder.
        progress: show a bar; by default where standard error is a terminal.
        on: runs the trainings: ``agents.runs.workers.run_jobs`` in processes of this machine,
            ``agents.studies.ray_tasks.run_on_ray`` on Ray.
        settings: further settings of methods, by name: key -> value.
        trust: load policies in formats that can run code.
        films: film an episode of each row whose policy is kept, once all are measured; see ``filmed``. It is not among
            the settings of ``config``, so that films can be asked for later.

    Returns:
        The folder of each environment, with a ``tradeoff.json`` for ``budget report``.

    Raises:
        ConfigError: a method, environment or setting that cannot be used, or a folder with work of other settings.
        CheckpointError: a damaged result or checkpoint.
        UntrustedFileError: a policy that can run code, without ``trust``.
        MissingExtraError: Ray was asked for, and is not installed.
        NonFiniteError: all trainings in an environment diverged. One that does is left out, and the others go on.
        WorkerLostError: work whose processes were killed each time they were tried. The comparison is written without
            it; the same call tries again.
        Interrupted: a signal stopped it, and what ran was saved.
    """
    studies = [Study(one) for one in config.fields(Path(folder), settings, trust)]
    first = [(study, entrant) for study in studies for entrant in study.field.entrants()]
    _try_out(studies)
    _do(first, config, progress, on, "methods")
    fits = []
    for study in studies:
        with contextlib.closing(RunConfig.of({**study.field.run, "env": study.field.env}).make_env()) as env:
            made = fitted(study.field, env, study.rows())
        study.shared = [fit for fit in made if fit.shared]
        fits += [(study, entrant) for fit in made if not fit.shared for entrant in fit.entrants]
    _do(fits, config, progress, on, "controls of equal FLOPs")
    written = [_write(study, config) for study in studies]
    for study in studies if films else ():
        _film(study, progress)
    lost = {entrant: how for study in studies for entrant, how in study.lost.items()}
    require_none_lost(lost, lambda one: one.name, f"Go on with the same options and --folder {folder}")
    return written


def _do(
    wanted: Sequence[tuple[Study, Entrant]], config: TradeoffConfig, progress: bool | None, on: Any, label: str
) -> None:
    """Do what is missing of ``wanted``."""
    found = {entrant: entrant.found() for _, entrant in wanted}
    missing = [entrant for entrant, result in found.items() if result is None]
    if missing:
        done = config.steps * (len(found) - len(missing))
        with (
            progress_bar(config.steps * len(found), label, progress, done) as advance,
            contextlib.closing(on(work, missing, advance, config.workers)) as results,
        ):
            for entrant, result in results:
                if result is None:
                    raise KeyboardInterrupt
                found[entrant] = result
    for study, entrant in wanted:
        study.take(entrant, found[entrant])


def _write(study: Study, config: TradeoffConfig) -> Path:
    """Write the comparison of one environment and return its folder."""
    folder, points = Path(study.field.folder), study.named()
    if not points:
        if not study.diverged:
            require_none_lost(study.lost, lambda one: one.name, f"Go on with the same options and --folder {folder}")
        entrant, error = next(iter(study.diverged.items()))
        raise NonFiniteError(
            f"every training in {study.field.env} diverged, {entrant.name} with {error}. Expected one at least that "
            "reaches its end; lower learning_rate"
        )
    record = provenance(None)
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("env", "workers")}
    with contextlib.closing(RunConfig.of({**study.field.run, "env": study.field.env}).make_env()) as env:
        settings["random_return"] = random_return(env, config.episodes)
    failed = {entrant.name: str(how) for entrant, how in (*study.lost.items(), *study.diverged.items())}
    settings |= {"failed": failed} if failed else {}
    folder.mkdir(parents=True, exist_ok=True)
    Comparison(study.field.env, points, "matmul", record["command"], record["versions"], settings).write(folder)
    return folder


def _film(study: Study, progress: bool | None) -> None:
    """Film the rows of a comparison that was written, and name the films in it."""
    folder = Path(study.field.folder)
    study.points = filmed(study.points, RunConfig.of({**study.field.run, "env": study.field.env}), progress)
    dataclasses.replace(Comparison.read(folder), points=study.named()).write(folder)


def _try_out(studies: Iterable[Study]) -> None:
    """Make one agent of each method once, so that bad input is refused here and not in a worker."""
    for study in studies:
        entrants, tried = study.field.entrants(), set()
        for entrant in entrants:
            entrant.found()  # raises for other settings, before anything is trained
        with contextlib.closing(RunConfig.of({**study.field.run, "env": study.field.env}).make_env()):
            pass  # raises for an environment that cannot be made
        for entrant in entrants:
            if isinstance(entrant, Contender):
                entrant.instance()
            if isinstance(entrant, TrainedEntrant | TakenPolicy) and entrant.method not in tried:
                tried.add(entrant.method)
                entrant.try_out()


__all__ = ["TradeoffConfig", "run_tradeoff"]
