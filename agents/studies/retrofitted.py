"""Policies that were trained elsewhere, in a comparison: as they are, or with exits that are taught each budget."""

import copy
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.config import check_types, require, unknown_key
from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.loop.versions import machine, versions
from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from agents.runs.run_config import RunConfig
from agents.runs.workers import Advance
from agents.studies.choosers import Chooser, FirstEpisode
from agents.studies.fit import fitting_widths
from agents.studies.measuring import control_extras, label_of, microseconds, point_of
from agents.studies.names import slug
from agents.studies.policies import PolicyOptions, open_policy, setup_of
from agents.studies.resolving import require_own_key
from agents.studies.retrofit import actor_of
from agents.studies.same import require_same
from agents.studies.student import policy_of, taught_student
from budget_wrappers.deploy.exit_policy import BudgetedExitPolicy
from budget_wrappers.errors import ConfigError
from budget_wrappers.files import inside
from budget_wrappers.policies.retrofit import Retrofit, RetrofitConfig

NUMBERS = "expected numbers, as `budget retrofit --help` lists them"
OPENING = ("agent", "vec_normalize")
"""Settings of a word that say how a zip is opened, as the options of ``budget eval`` do."""
ROWS = "rows"
"""What a record holds that decides which points there are, and not what they are."""
TAUGHT = "a student of {widths}, taught on the states of {label}"


@dataclass(frozen=True)
class TakenPolicy:
    """A trained policy: an ``Entrant``.

    Attributes:
        path_of_policy: a run's folder, a checkpoint, a retrofit's file, or a zip of Stable-Baselines3.
        name: of its folder, unique in the study.
        folder: of the study.
        run: settings of ``RunConfig``.
        seed: of imitation; what was trained is the same for all.
        budgets: that exits are taught; none to take the policy as it is.
        episodes: of each evaluation.
        trust: whether a file may run code when it is loaded.
        method, label, facts: as in ``TrainedEntrant``.
        choosers: controls that choose in place of the gates.
        student: whether a dense student of equal FLOPs is taught beside each budget.
        students: widths of further students, whatever they cost; one number stands for all layers of the policy.
        as_trained: whether the policy's own point is among the points.
        settings: keys of ``RetrofitConfig``, and of ``OPENING``.
    """

    path_of_policy: str
    name: str
    folder: str
    run: Mapping[str, Any] = field(compare=False)
    seed: int
    budgets: tuple[float, ...]
    episodes: int
    trust: bool
    method: str
    label: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    choosers: tuple[str, ...] = field(default=(), compare=False)
    student: bool = field(default=False, compare=False)
    students: tuple[tuple[int, ...], ...] = field(default=(), compare=False)
    as_trained: bool = field(default=True, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> Path:
        """Of its folder."""
        return inside(self.folder, "runs", self.name)

    def record(self) -> dict[str, Any]:
        """Return what its points were made with; of the files the contents."""
        options = self._options()
        file, _ = setup_of(options)
        made = {"policy": self.path_of_policy, "sha256": _digest(file), "run": self.run, "settings": self.settings}
        if options.vec_normalize is not None:
            made["vec_normalize_sha256"] = _digest(options.vec_normalize)
        rows = {"budgets": self.budgets, "choosers": self.choosers}
        rows |= {"student": self.student, "students": self.students}
        return json.loads(json.dumps(made | {ROWS: rows}))

    def _options(self) -> PolicyOptions:
        given = {key: value for key, value in self.settings.items() if key in OPENING}
        for key, value in given.items():
            require(isinstance(value, str), f"{self.label}@{key}", value, "a text")
        if "vec_normalize" in given:
            given["vec_normalize"] = Path(given["vec_normalize"])
        return PolicyOptions(Path(self.path_of_policy), env=self.run["env"], trust=self.trust, **given)

    def found(self) -> list[TradeoffPoint] | None:
        """Return the points that its folder holds; see ``Entrant``."""
        if not (self.path / FILE_NAME).is_file():
            return None
        stored, wanted = Comparison.read(self.path), self.record()
        made, rows = dict(stored.settings), wanted.pop(ROWS)
        same = made.pop(ROWS, None) == rows
        require_same(self.path, made, wanted)
        if not same:  # other budgets or controls are other rows of the same: they are all made anew
            return None
        points = list(stored.points)
        if any(len(point.episodes) != self.episodes for point in points):
            return None
        if not self.budgets:
            return points
        # The first seed asked for measures the policy itself, which is one, not a row of seeds.
        own = [point for point in points if point.label == self._as_trained]
        rest = [point for point in points if point.label != self._as_trained]
        return None if self.as_trained and not own else own + rest if self.as_trained else rest

    @property
    def _as_trained(self) -> str:
        """What the row of the policy itself is called."""
        return f"{self.label}, as trained" if self.budgets else self.label

    def try_out(self) -> None:
        """Open the policy once; raises for what cannot be opened, or given these exits."""
        own = self.settings.keys() <= set(OPENING)
        require(bool(self.budgets) or own, "methods", self.label, f"no settings for a policy as it is but {OPENING}")
        within = all(0 <= budget < math.inf for budget in self.budgets)
        require(within, "budgets", self.budgets, "numbers of 0 or more")
        config = self._config()
        policy, env, _ = open_policy(self._options())
        env.close()
        if self.budgets:
            Retrofit(actor_of(policy), config)

    def _config(self) -> RetrofitConfig:
        """Return how exits are fitted.

        Raises:
            ConfigError: an unknown setting, or a value of another type or out of bounds.
        """
        known = [one.name for one in dataclasses.fields(RetrofitConfig) if one.name != "seed"]
        settings = {key: value for key, value in self.settings.items() if key not in OPENING}
        for key in settings:
            require_own_key(self.label, key)
            if key not in known:
                raise unknown_key(key, known, f"the retrofit {self.label}")
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
        if isinstance(given.get("exit_after"), int):  # one value stands for a list of one
            given["exit_after"] = (given["exit_after"],)
        try:
            config = RetrofitConfig(**given, seed=self.seed)
        except TypeError as error:
            raise ConfigError(f"methods: {self.label} has the settings {settings} ({error}): {NUMBERS}") from error
        check_types(config)
        return config

    def work(self, advance: Advance) -> list[TradeoffPoint] | None:
        """Add exits, and measure; see ``Entrant``. It does not stop between."""
        setup = RunConfig.of(self.run)
        policy, env, _ = open_policy(self._options())
        env.close()
        self.path.mkdir(parents=True, exist_ok=True)
        points = []
        if self.as_trained and not self.budgets and Chooser.of(policy) is not None:
            points += self._at(policy, setup, self._as_trained, {})
        elif self.as_trained:
            # What is saved is saved of it.
            points.append(self._measured(policy, setup, self._as_trained, baseline=bool(self.budgets)))
        if self.budgets:
            points += self._with_exits(policy, setup)
        advance(setup.steps)
        Comparison(setup.env, points, "matmul", self.path_of_policy, versions(), self.record()).write(self.path)
        return points

    def opened(self, point: TradeoffPoint, render_mode: str | None = None) -> tuple[Any, gym.Env]:
        """Return the policy as it was trained, or with exits at the budget of ``point``; see ``Entrant``."""
        if "file" in point.extras:
            policy: Any = BudgetedExitPolicy.load(inside(self.path, point.extras["file"]))
        else:
            policy, env, _ = open_policy(self._options())
            env.close()
        return policy, RunConfig.of(self.run).make_env(policy.meter, render_mode)

    def _with_exits(self, policy: Any, setup: RunConfig) -> list[TradeoffPoint]:
        actor = actor_of(policy)
        retrofit = Retrofit(actor, self._config())
        begun = time.perf_counter()
        env = setup.make_env()
        try:
            retrofit.imitate(env)
        finally:
            env.close()
        imitated, points = time.perf_counter() - begun, []
        for budget in self.budgets:
            begun = time.perf_counter()
            retrofit.teach_gates(budget)
            network, seconds = copy.deepcopy(retrofit.network), imitated + time.perf_counter() - begun
            # Gates draw as those of the file do when it is opened, so that `budget eval` of the file measures the same.
            made = policy_of(network, actor, budget)
            kept = {"budget": budget, "duration_s": seconds, "file": self._keep(made, f"budget-{budget:g}")}
            points += self._at(made, setup, f"{self.label}, b = {budget:g}", kept)
            if self.student:
                points.append(self._fitting_student(retrofit, setup, points[-1 - len(self.choosers)]))
        return points + [self._student(retrofit, setup, widths) for widths in self.students]

    def _at(self, made: Any, setup: RunConfig, label: str, extras: dict[str, Any]) -> list[TradeoffPoint]:
        """Return the point of a policy that chooses, and of the controls that choose in its place."""
        chooser = Chooser(made)
        rewards: list[float] = []
        point = self._measured(chooser, setup, label, made, rewards, **extras)
        point.extras.update(chooser.facts(rewards))
        return [point, *(chooser.replaced(one, setup.make_env(), point, self.episodes) for one in self.choosers)]

    def _fitting_student(self, retrofit: Retrofit, setup: RunConfig, own: TradeoffPoint) -> TradeoffPoint:
        actor = retrofit.actor
        first, last = actor.layers[0], actor.layers[-1]
        widths = fitting_widths(own.flops_per_step, first.in_features, last.out_features, len(actor.layers) - 1) or (1,)
        student = taught_student(retrofit, widths)
        extras = control_extras("fit", own) | {"what": TAUGHT.format(widths=_named(widths), label=own.label)}
        extras["file"] = self._keep(student, f"student-of-budget-{own.extras['budget']:g}")
        return self._measured(student, setup, label_of("student", own.label), student, **extras)

    def _student(self, retrofit: Retrofit, setup: RunConfig, widths: tuple[int, ...]) -> TradeoffPoint:
        label = label_of(f"student:{','.join(map(str, widths))}", self.label)
        if len(widths) == 1:
            widths = widths * (len(retrofit.actor.layers) - 1)
        student = taught_student(retrofit, widths)
        extras = {"control": "student", "baseline": True, "file": self._keep(student, slug(label))}
        extras["what"] = TAUGHT.format(widths=_named(widths), label=self._as_trained)
        return self._measured(student, setup, label, student, **extras)

    def _keep(self, policy: BudgetedExitPolicy, name: str) -> str:
        """Save a policy and return its path in the folder."""
        return policy.save(self.path / name).name

    def _measured(
        self,
        policy: Any,
        setup: RunConfig,
        label: str,
        timed: Any = None,
        rewards: list[float] | None = None,
        **extras: Any,
    ) -> TradeoffPoint:
        """Return an evaluation of ``policy`` as a point, with how long an action of ``timed`` takes.

        ``rewards`` gets those of the first episode.
        """
        env = FirstEpisode(setup.make_env(policy.meter))
        try:
            result = evaluate_policy(policy, env, self.episodes, REPORT_SEED)
        finally:
            env.close()
        if rewards is not None:
            rewards += env.rewards
        known: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
        known["us_per_action"] = microseconds(timed or policy, setup, REPORT_SEED)
        method = extras.get("control", self.method)
        return point_of(method, label, self.seed, result, (), {**self.facts, "baseline": False, **known, **extras})


def _named(widths: Sequence[int]) -> str:
    return f"{'×'.join(map(str, widths))} units"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


__all__ = ["TakenPolicy"]
