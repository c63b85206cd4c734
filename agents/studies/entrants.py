"""Who takes part in a comparison: each does its work in a folder of its own, and leaves points there."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym

from agents.loop.checkpoint import load_agent
from agents.loop.known_methods import methods_from
from agents.methods.budget_input import budget_wrapper
from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from agents.runs.log import CHECKPOINT, CONFIG, read_json
from agents.runs.run import make_agent
from agents.runs.run_config import RunConfig
from agents.runs.workers import Advance
from agents.studies.measuring import label_of
from agents.studies.same import require_same
from agents.studies.trained_points import measured_run
from agents.studies.training import DIVERGED, Diverged, Training, give_up, read_divergence, trained_run
from budget_wrappers.errors import NonFiniteError
from budget_wrappers.files import inside
from budget_wrappers.metering import ComputeMeter


class Entrant(Protocol):
    """One piece of work of a comparison, as plain data: hashable, and picklable."""

    name: str
    folder: str

    @property
    def path(self) -> Path:
        """Of its run folder."""

    def found(self) -> "list[TradeoffPoint] | Diverged | None":
        """Return what its folder holds already; ``None`` where work is left.

        Raises:
            ConfigError: the folder holds work of other settings.
            CheckpointError: damaged work.
        """

    def work(self, advance: Advance) -> "list[TradeoffPoint] | Diverged | None":
        """Do what is left and return what was measured; ``None`` where ``advance`` asked to stop."""

    def opened(self, point: TradeoffPoint, render_mode: str | None = None) -> tuple[Any, gym.Env]:
        """Return the policy of a point, in the state in which it was measured, and an environment to act in.

        Raises:
            ConfigError: its folder does not hold the policy.
            CheckpointError: a damaged file.
        """


@dataclass(frozen=True)
class TrainedEntrant(Training):
    """An agent that is trained in a run folder.

    Attributes:
        method: what colour its points share.
        label: what its row is called.
        baseline: whether it is there to be compared with.
        facts: extras of its points: ``budget``, ``weight``, ``control``, ``of``, ``what``.
        budgets: at which it is evaluated, where its observations hold the budget; else empty.
        choosers: controls that choose in its place, by name.
    """

    method: str = ""
    label: str = ""
    baseline: bool = False
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    budgets: tuple[float, ...] = ()
    choosers: tuple[str, ...] = field(default=(), compare=False)

    def found(self) -> list[TradeoffPoint] | Diverged | None:
        """Return what the run folder holds; see ``Entrant``."""
        path = self.path
        if (path / CONFIG).is_file():
            require_same(path, read_json(path / CONFIG), self.record())
        if (path / DIVERGED).is_file():
            return read_divergence(path)
        if not (path / FILE_NAME).is_file():
            return None
        stored = Comparison.read(path)
        run = stored.settings.get("run")
        if not isinstance(run, Mapping) or run.get("steps") != self.run["steps"]:
            return None  # of a run that was trained for longer since
        points = list(stored.points)
        if any(len(point.episodes) != self.episodes for point in points):
            return None
        # What was measured for other budgets or controls than those asked for now stays there.
        wanted = self.labels()
        if not wanted <= {point.label for point in points}:
            return None
        return [dataclasses.replace(one, extras=one.extras | self._told(one)) for one in points if one.label in wanted]

    def _told(self, point: TradeoffPoint) -> dict[str, Any]:
        """Return what a stored point says of itself by the options of now: a fit of more seeds has another target."""
        return {"what": self.facts["what"]} if self.facts.get("control") == "fit" else {}

    def labels(self) -> set[str]:
        """Return what the rows of its points are called."""
        own = [f"{self.label}, b = {budget:g}" for budget in self.budgets] or [self.label]
        return {*own, *(label_of(chooser, one) for chooser in self.choosers for one in own)}

    def try_out(self) -> None:
        """Make the agent once; raises for what cannot be trained."""
        run_config = RunConfig.of(self.run)
        methods = methods_from(self.agent_class, self.methods, self.name)
        settings = {**self.config.to_dict(), "buffer_size": 1}
        make_agent(self.agent_class, settings, run_config, **methods).env.close()

    def work(self, advance: Advance) -> list[TradeoffPoint] | Diverged | None:
        """Train to the end, and measure; see ``Entrant``."""
        try:
            with trained_run(self, advance) as run:
                if run is None:
                    return None
                points = measured_run(run, self)
                run.comparison(points).write(run.folder.path)
        except NonFiniteError as error:
            return give_up(self, error)
        return points

    def opened(self, point: TradeoffPoint, render_mode: str | None = None) -> tuple[Any, gym.Env]:
        """Return the trained agent, at the budget of ``point``; see ``Entrant``."""
        meter = ComputeMeter()
        env = RunConfig.of(self.run).make_env(meter, render_mode)
        try:
            agent = load_agent(self.agent_class, inside(self.path, CHECKPOINT), env, meter, replay=False)
        except BaseException:
            env.close()
            raise
        if self.budgets:
            budget_wrapper(env).set_budget(point.extras["budget"])
        return agent, env


def work(entrant: Any, advance: Advance) -> list[TradeoffPoint] | Diverged | None:
    """Do the work of one entrant: what ``run_jobs`` runs."""
    return entrant.work(advance)
