"""One training in a run folder of its own: resumed from its checkpoint, evaluated at its end, trained once."""

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.loop.known_methods import methods_from
from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from agents.runs.log import CONFIG, read_json, write_sealed
from agents.runs.run import Run
from agents.runs.run_config import RunConfig
from agents.runs.workers import Advance, Told
from agents.studies.same import require_same
from budget_wrappers.errors import CheckpointError, ConfigError, NonFiniteError
from budget_wrappers.files import inside

DIVERGED = "diverged.json"
"""In the run folder of a training that a search gave up, as its losses or weights were no numbers any more."""


@dataclass(frozen=True)
class Training:
    """One training, as plain data.

    Attributes:
        agent: public name of the agent's class.
        name: of its run folder, unique in its study.
        folder: of the study.
        run: settings of ``RunConfig``.
        settings: of the agent, its seed included.
        episodes: of the final evaluation.
        methods: budget methods of the agent, as ``methods_given`` has them.
    """

    agent: str
    name: str
    folder: str
    run: Mapping[str, Any] = field(compare=False)
    settings: Mapping[str, Any] = field(compare=False)
    episodes: int = field(compare=False)
    methods: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def agent_class(self) -> Any:
        """The agent's class."""
        return getattr(importlib.import_module("agents"), self.agent)

    @property
    def path(self) -> Path:
        """Of its run folder; raises ``CheckpointError`` for a link."""
        return inside(self.folder, "runs", self.name)

    @property
    def config(self) -> Any:
        """The agent's configuration.

        Raises:
            ConfigError: a value of another type or out of bounds.
        """
        return self.agent_class.config_class.of(self.settings)

    def record(self) -> dict[str, Any]:
        """Return what its run folder says it was made with, as JSON gives it back."""
        run = dataclasses.asdict(RunConfig.of(self.run))
        record = {"agent": self.agent, "settings": self.config.to_dict(), "run": run}
        return json.loads(json.dumps(record | ({"methods": self.methods} if self.methods else {})))


@dataclass(frozen=True)
class Diverged:
    """A training that did not reach its end.

    Attributes:
        error: what became NaN or infinite, and when.
    """

    error: str


def finished_point(training: Training) -> TradeoffPoint | None:
    """Return what ``training`` measured, ``None`` where it is not at its end.

    Raises:
        ConfigError: its folder holds a run of other settings.
        CheckpointError: a damaged result.
    """
    path = training.path
    if (path / CONFIG).is_file():
        require_same(path, read_json(path / CONFIG), training.record())
    if not (path / FILE_NAME).is_file():
        return None
    (point,) = Comparison.read(path).points
    require_same(path, {"episodes": len(point.episodes)}, {"episodes": training.episodes})
    return point


@contextlib.contextmanager
def trained_run(training: Training, advance: Advance) -> Iterator[Run | None]:
    """Train from the last checkpoint, or from the start, and give the run to the block; ``None`` if it was stopped.

    Args:
        training: which.
        advance: told how many steps were taken, those of an earlier call included; when it returns ``False``,
            training ends with the episode and is saved.
    """
    methods = methods_from(training.agent_class, training.methods, training.name)
    run_config = RunConfig.of(training.run)
    with Run.open(training.agent_class, training.config.to_dict(), run_config, training.path, **methods) as run:
        require_not_beyond(run)

        def going_on(steps: int) -> bool:
            if not advance(steps):
                run.stop.stop()
            return True

        run.alongside.append(Told(going_on))
        yield run if run.train() else None


def require_not_beyond(run: Run) -> None:
    """Raise for a run that somebody has trained for longer since: what it earns now is not what its steps give.

    Raises:
        ConfigError: with the steps.
    """
    taken, steps = run.agent.num_timesteps, run.config.steps
    options = getattr(run.agent, "options", None)
    last = run.config.n_envs * max(options.durations if options is not None else (1,))  # may begin before the end
    if taken >= steps + last:
        raise ConfigError(
            f"{run.folder.path} was trained for {taken:,} steps: expected {steps:,}, as asked for now; choose another "
            "folder, or delete this one to train anew"
        )


def train(training: Training, advance: Advance) -> TradeoffPoint | None:
    """Train to the end and evaluate without noise; see ``trained_run``.

    Returns:
        What was measured, ``None`` if it was stopped.
    """
    with trained_run(training, advance) as run:
        if run is None:
            return None
        run.report(training.episodes)
        # Nobody goes on from here, and a replay is most of a checkpoint: the policy alone stays.
        run.checkpoint.replay = False
        run.checkpoint.save(run.agent)
        run.checkpoint.forget_boundary()
    return finished_point(training)


def outcome(training: Training) -> TradeoffPoint | Diverged | None:
    """Return what ``training`` measured, or that it diverged; ``None`` where it is not at its end.

    Raises:
        ConfigError: its folder holds a run of other settings.
        CheckpointError: a damaged result.
    """
    found = finished_point(training)
    if found is None and (training.path / DIVERGED).is_file():
        return read_divergence(training.path)
    return found


def read_divergence(path: Path) -> Diverged:
    """Return why the training of a run folder was given up.

    Raises:
        CheckpointError: a file of another form.
    """
    record = read_json(path / DIVERGED)
    if record.keys() != {"error"} or not isinstance(record["error"], str):
        raise CheckpointError(
            f"{path / DIVERGED} holds {record}: expected an error, as a text; delete it to train again"
        )
    return Diverged(record["error"])


def give_up(training: Training, error: NonFiniteError) -> Diverged:
    """Note that a training diverged: it is one result among others, and is not tried again."""
    write_sealed(training.path / DIVERGED, {"error": str(error)})
    return Diverged(str(error))


def try_training(training: Training, advance: Advance) -> TradeoffPoint | Diverged | None:
    """Do what ``train`` does; a training that diverges is given up."""
    try:
        return train(training, advance)
    except NonFiniteError as error:
        return give_up(training, error)
