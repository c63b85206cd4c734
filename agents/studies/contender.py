"""A method of somebody's own in a comparison: a class that trains a policy, and whatever it runs is charged.

``module:Class`` is imported from the working directory or from what is installed. An instance is made without
arguments, and its ``train(make_env, budget, steps, seed, meter)`` returns a policy with the ``predict`` of
Stable-Baselines3.
"""

import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from agents.loop.evaluate import REPORT_SEED, evaluate_policy, handed_back
from agents.loop.versions import machine, versions
from agents.report.tradeoff import FILE_NAME, Comparison, TradeoffPoint
from agents.runs.run_config import RunConfig
from agents.runs.workers import Advance
from agents.studies.measuring import microseconds, point_of
from agents.studies.same import require_same
from agents.studies.training import Diverged
from budget_wrappers.errors import BudgetError, ConfigError, UncountableError
from budget_wrappers.files import inside
from budget_wrappers.metering import ComputeMeter, count_flops


def contender_named(target: str) -> type:
    """Return the class that ``module:Class`` names; its module is imported.

    Raises:
        ConfigError: no such module or class, or one without ``train``.
    """
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"methods: {target!r} cannot be imported ({error}): expected module:Class of a file in this folder or of "
            "a package that is installed"
        ) from error
    if not callable(getattr(found, "train", None)):
        raise ConfigError(f"methods: {target!r} has no train(make_env, budget, steps, seed, meter): give it one")
    return found


CHECKED = (0, 1, 2, 7, 40, 150)
"""Actions of an episode that are looked at: whether what they run is charged."""


class StoppedError(BaseException):
    """Asked to stop: no handler of the contender's for errors is to take it for one."""


class CountedSteps(gym.Wrapper):
    """Counts the steps of a contender's environments together, tells them, and ends at the last one that it has.

    Args:
        env: of the contender.
        count: of steps so far, in a list of one, which its environments share.
        steps: that it has.
        advance: told of each step; training ends where it returns ``False``.
    """

    def __init__(self, env: gym.Env, count: list[int], steps: int, advance: Advance) -> None:
        super().__init__(env)
        self._count, self._steps, self._advance = count, steps, advance

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step of those that are left."""
        if self._count[0] >= self._steps:
            raise ConfigError(
                f"the contender took more than its {self._steps:,} steps: expected train(…, steps, …) to end there, as "
                "methods beside it do"
            )
        self._count[0] += 1
        if not self._advance(1):
            raise StoppedError
        return self.env.step(action)


@dataclass(frozen=True)
class Contender:
    """A class of somebody's own at one budget and seed: an ``Entrant``.

    Attributes:
        target: ``module:Class``.
        name: of its folder, unique in the study.
        folder: of the study.
        run: settings of ``RunConfig``.
        seed: of the training.
        budget: that it is told, ``None`` for none.
        episodes: of the evaluation.
        method, label, facts: as in ``TrainedEntrant``.
        settings: attributes that are set on the instance.
    """

    target: str
    name: str
    folder: str
    run: Mapping[str, Any] = field(compare=False)
    seed: int
    budget: float | None
    episodes: int
    method: str
    label: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> Path:
        """Of its folder."""
        return inside(self.folder, "runs", self.name)

    def record(self) -> dict[str, Any]:
        """Return what its point was made with; of its module the text."""
        source = inspect.getsourcefile(contender_named(self.target))
        text = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
        made = {"target": self.target, "source_sha256": text, "budget": self.budget}
        return json.loads(json.dumps({**made, "run": dict(self.run), "settings": dict(self.settings)}))

    def found(self) -> list[TradeoffPoint] | None:
        """Return the point that its folder holds; see ``Entrant``."""
        if not (self.path / FILE_NAME).is_file():
            return None
        stored = Comparison.read(self.path)
        require_same(self.path, stored.settings, self.record())
        points = list(stored.points)
        return points if all(len(point.episodes) == self.episodes for point in points) else None

    def work(self, advance: Advance) -> list[TradeoffPoint] | Diverged | None:
        """Train, check that what acts is charged, and measure; see ``Entrant``.

        What the class raises is its result, by which the comparison names it, and the others go on.
        """
        try:
            with torch_as_it_was():
                return self._work(advance)
        except Exception as error:
            if isinstance(error, BudgetError | OSError):
                raise
            return Diverged(f"{type(error).__name__}: {error}")

    def instance(self) -> Any:
        """Return a new instance with its settings.

        Raises:
            ConfigError: a class that needs arguments, or a setting that it has no attribute for.
        """
        kind = contender_named(self.target)
        try:
            inspect.signature(kind).bind()
        except TypeError as error:
            raise ConfigError(
                f"methods: {self.target} cannot be made ({error}): expected a class that takes no arguments; give "
                "each a default"
            ) from error
        one = kind()
        for key, value in self.settings.items():
            if not hasattr(one, key):
                raise ConfigError(f"methods: {self.target} has no {key}: expected an attribute that it has already")
            setattr(one, key, value)
        return one

    def opened(self, point: TradeoffPoint, render_mode: str | None = None) -> tuple[Any, gym.Env]:
        """Raise, as the policies of a contender are not kept; see ``Entrant``."""
        raise ConfigError(f"what {self.target}.train returned is not kept: expected an agent or a saved policy")

    def _work(self, advance: Advance) -> list[TradeoffPoint] | None:
        setup, meter, count = RunConfig.of(self.run), ComputeMeter(), [0]

        def make_env(**settings: Any) -> gym.Env:
            return CountedSteps(setup.make_env(meter, **settings), count, setup.steps, advance)

        one = self.instance()
        begun = time.perf_counter()
        try:
            policy = one.train(make_env, self.budget, setup.steps, self.seed, meter)
        except StoppedError:
            return None
        seconds, trained = time.perf_counter() - begun, meter.totals
        if not callable(getattr(policy, "predict", None)):
            raise ConfigError(
                f"{self.target}.train returned {policy!r}: expected a policy with predict(observation, deterministic)"
            )
        env = setup.make_env(meter)
        try:
            require_charged(policy, env, meter, self.target)
            result = evaluate_policy(policy, env, self.episodes, REPORT_SEED)
        finally:
            env.close()
        extras = {
            **self.facts,
            "train_act_flops": trained["act"],
            "train_learn_flops": trained["learn"],
            "train_steps": count[0],
            "duration_s": seconds,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "us_per_action": microseconds(policy, setup, REPORT_SEED),
        }
        point = point_of(self.method, self.label, self.seed, result, (), extras)
        self.path.mkdir(parents=True, exist_ok=True)
        Comparison(setup.env, [point], meter.convention, self.target, versions(), self.record()).write(self.path)
        return [point]


@contextlib.contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Put back what a contender may set for all of torch, which trainings after it in this process would go by."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def require_charged(policy: Any, env: gym.Env, meter: ComputeMeter, target: str) -> None:
    """Raise unless some actions of an episode charge to ``meter`` what they run.

    Raises:
        ConfigError: ``predict`` does not return an action and a state.
        UncountableError: with what an action runs, and what was charged.
    """
    (observation, _), state, over, number = env.reset(seed=REPORT_SEED), None, False, 0
    while not over and number <= CHECKED[-1]:
        call = functools.partial(policy.predict, observation, **handed_back(state), deterministic=True)
        runs = count_flops(call, convention=meter.convention) if number in CHECKED else 0
        before = meter.totals["act"]
        answer = call()
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ConfigError(
                f"predict of {target} returned {type(answer).__name__}: expected an action and a state, which may be "
                "None; return action, state"
            )
        charged = meter.totals["act"] - before
        if charged < runs:
            raise UncountableError(
                f"action {number} of {target} runs {runs:,} FLOPs and charges {charged:,}: expected all of them, so "
                "that no method is free; call meter.watch(network) in train, or meter.add(flops) in predict for what "
                "torch does not compute"
            )
        action, state = answer
        observation, _, terminated, truncated, _ = env.step(action)
        over, number = terminated or truncated, number + 1


__all__ = ["Contender", "contender_named"]
