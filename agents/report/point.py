"""One point of a comparison: one trained policy, what it earned and what acting cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from budget_wrappers.errors import ConfigError, NonFiniteError


@dataclass(frozen=True)
class TradeoffPoint:
    """One trained policy: what it earned, and what acting cost.

    Attributes:
        method: what was trained; points of one method share a colour.
        label: what the row is called. Points of equal method and label are seeds of one row.
        seed: of the training.
        mean_return: mean undiscounted return of the evaluation episodes.
        flops_per_step: acting FLOPs per control step, everything that runs to choose an action included.
        episodes: evaluation episodes, each with ``return``, ``flops`` and ``length`` (control steps).
        curve: ``(environment steps, evaluation return)`` while training.
        extras: further facts, all of them optional; ``agents.report.reading`` checks their types. What a report reads:

            - ``baseline``: whether the row is there to be compared with.
            - ``control``: what kind of baseline: ``dense`` (plain widths), or made of a method: ``fit`` (equal FLOPs),
              ``coin``, ``shuffled``, ``cheapest``, ``dearest``. ``of`` is the label of that method's row.
            - ``what``: one sentence that says what the row is.
            - ``weight``, ``budget``: λ, the price of compute, and b.
            - ``share_large``, ``shares``: share of control steps on the dearest sub-policy, and on each by name.
            - ``gate_information``: nats that choices hold about the state; 0 for a coin.
            - ``us_per_action``: microseconds of one action, measured: batch 1, one thread, on ``machine``.
            - ``train_act_flops``, ``train_learn_flops``: of the whole training.
            - ``duration_s``, ``date``, ``machine``, ``run``: seconds, ISO date, computer, folder of the run.
            - ``timeline``: one episode: ``choices`` (a name for each step), ``names``, ``rewards``.
            - ``settings``: what the point was made with, where its comparison has several methods.
            - ``file``: of its policy, in the run's folder, where that is not a run of its own.
            - ``film``: of that episode, the first of ``episodes``: a GIF or MP4 in the run's folder.
    """

    method: str
    label: str
    seed: int
    mean_return: float
    flops_per_step: float
    episodes: Sequence[Mapping[str, float]] = ()
    curve: Sequence[tuple[float, float]] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "episodes", tuple(dict(episode) for episode in self.episodes))
        object.__setattr__(self, "curve", tuple((float(step), float(value)) for step, value in self.curve))
        object.__setattr__(self, "extras", dict(self.extras))
        returns = [self.mean_return, *(episode["return"] for episode in self.episodes), *(y for _, y in self.curve)]
        if not all(math.isfinite(value) for value in returns):
            raise NonFiniteError(
                f"{self.label!r}, seed {self.seed}: a return is NaN or infinite; expected finite returns: "
                "look at this run's metrics for the step where it diverged"
            )
        if not math.isfinite(self.flops_per_step) or self.flops_per_step <= 0:
            raise ConfigError(
                f"{self.label!r}, seed {self.seed}: flops_per_step={self.flops_per_step!r}; expected a finite number "
                "above 0: nothing that acts is free, so watch the module that acts"
            )

    @classmethod
    def from_episodes(
        cls,
        method: str,
        label: str,
        seed: int,
        episodes: Sequence[Mapping[str, float]],
        curve: Sequence[tuple[float, float]] = (),
        extras: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the point of ``episodes``: the mean of their returns, and all their FLOPs over all their steps.

        Raises:
            ConfigError: for no episodes, or episodes of no steps.
        """
        steps = sum(episode["length"] for episode in episodes)
        if steps <= 0:
            raise ConfigError(f"{label!r}, seed {seed}: {len(episodes)} episodes of {steps} steps; expected at least 1")
        mean_return = sum(episode["return"] for episode in episodes) / len(episodes)
        flops = sum(episode["flops"] for episode in episodes) / steps
        return cls(method, label, seed, mean_return, flops, episodes, curve, extras or {})
