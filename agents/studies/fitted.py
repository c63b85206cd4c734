"""Plain agents that act at the FLOPs of a method: whom the rows called ``fit of …`` are the points of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym

from agents.report.tradeoff import TradeoffPoint
from agents.studies.comparing import Field, widths_in_words
from agents.studies.entrants import TrainedEntrant
from agents.studies.fit import WITHIN, fitting_widths, outputs_of
from agents.studies.measuring import INHERITED, control_extras, label_of
from agents.studies.names import agent_named
from agents.studies.resolving import Recipe

CONTROL = "fit"
_OF_A_ROW = ("budget", "weight", "control", "of", "what")
"""Extras that say which row a point is of; the others say how its agent was trained."""


@dataclass(frozen=True)
class Fit:
    """The row of a method's control of equal FLOPs.

    Attributes:
        label: of the row.
        entrants: whose points it has, one a seed.
        facts: extras of its points.
        shared: whether the entrants are those of another row, whose FLOPs are as near to the method's.
    """

    label: str
    entrants: tuple[TrainedEntrant, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = False

    def row(self, points: Sequence[TradeoffPoint]) -> list[TradeoffPoint]:
        """Return points of one of the entrants as points of this row."""
        return [
            replace(
                point,
                method=CONTROL,
                label=self.label,
                extras={key: value for key, value in point.extras.items() if key not in _OF_A_ROW} | self.facts,
            )
            for point in points
        ]


@dataclass(frozen=True)
class _Plain:
    """A plain agent that is trained already, or will be."""

    recipe: Recipe
    flops: int
    entrants: tuple[TrainedEntrant, ...]

    def learns_as(self, recipe: Recipe) -> bool:
        """Return whether only the widths of what acts differ."""
        own, other = ({**one.settings, "net_arch": None} for one in (self.recipe, recipe))
        return self.recipe.agent == recipe.agent and own == other


def fitted(whole: Field, env: gym.Env, points: Mapping[str, Sequence[TradeoffPoint]]) -> list[Fit]:
    """Return plain agents of equal acting FLOPs beside each method that chooses or prunes.

    One agent stands beside all methods whose FLOPs it has within 2 %: it is trained once.

    Args:
        whole: everybody who takes part.
        env: to measure what an agent of some widths costs.
        points: of each row, by its label.
    """
    if not whole.fits:
        return []
    known = [_Plain(recipe, _cost(env, recipe), entrants) for recipe, entrants in whole.dense_controls()]
    found = []
    for recipe, own in _methods(whole, points):
        target = sum(point.flops_per_step for point in own) / len(own)
        fit, plain = _fit(whole, env, recipe, target, own[0], known)
        found.append(fit)
        known += [] if fit.shared else [plain]
    return found


def _methods(
    whole: Field, points: Mapping[str, Sequence[TradeoffPoint]]
) -> Iterator[tuple[Recipe, Sequence[TradeoffPoint]]]:
    for spec, recipe in whole.trained():
        if recipe.agent == recipe.plain and not recipe.methods:
            continue
        for own in points.values():
            if own[0].method == spec.name:
                yield recipe, own


def _fit(
    whole: Field, env: gym.Env, beside: Recipe, target: float, own: TradeoffPoint, known: Sequence[_Plain]
) -> tuple[Fit, _Plain]:
    inputs = gym.spaces.flatdim(env.observation_space)
    outputs = outputs_of(lambda widths: _cost(env, whole.dense(widths, beside)), inputs)
    recipe = whole.dense(fitting_widths(target, inputs, outputs, len(beside.get("net_arch"))), beside)
    near = [one for one in known if one.learns_as(recipe) and abs(one.flops / target - 1) <= WITHIN]
    plain = min(near, key=lambda one: abs(one.flops - target), default=_Plain(recipe, _cost(env, recipe), ()))
    words = f"plain {plain.recipe.agent} whose actor has {widths_in_words(plain.recipe)}"
    inherited = control_extras(CONTROL, own)
    facts = {key: value for key, value in inherited.items() if key in _OF_A_ROW or key not in INHERITED}
    facts["what"] = f"{words}: {plain.flops:,} FLOPs, {plain.flops / target - 1:+.1%}"
    # More seeds move the mean that is fitted: the folder is that of the widths, so that no other ones stand there.
    label = label_of(CONTROL, own.label)
    if near:
        return Fit(label, plain.entrants, facts, shared=True), plain
    folder = f"{label}-{'x'.join(map(str, recipe.settings['net_arch'])) or 'linear'}"
    entrants = tuple(
        whole.entrant(CONTROL, label, recipe, seed, facts, baseline=True, folder=folder) for seed in whole.seeds
    )
    return Fit(label, entrants, facts), replace(plain, entrants=entrants)


def _cost(env: gym.Env, recipe: Recipe) -> int:
    """Return the FLOPs of an action of a plain agent."""
    agent = agent_named(recipe.agent)(env, **{**recipe.settings, "buffer_size": 1})
    return int(agent.flops_per_action)


__all__ = ["Fit", "fitted"]
