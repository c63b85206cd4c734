"""Films of a comparison: the episode that each row's timeline shows, made once its policy was measured."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence

import torch

from agents.loop.evaluate import REPORT_SEED
from agents.report.films import LARGEST_FILM, LARGEST_OF_ALL
from agents.report.tradeoff import Comparison, TradeoffPoint
from agents.report.video import first_frame, record_episode, small
from agents.runs.run_config import RunConfig
from agents.runs.workers import note, progress_bar
from agents.studies.choosers import WHAT
from agents.studies.contender import torch_as_it_was
from agents.studies.entrants import Entrant
from agents.studies.names import slug
from budget_wrappers.errors import BudgetError, CheckpointError
from budget_wrappers.files import inside

MOST_PICTURES = 150
"""Of a film. A longer episode is filmed every few steps: MuJoCo takes 0.25 s a picture where no GPU draws."""
FOLDER = "films"
"""In the run folder."""

Points = dict[Entrant, list[TradeoffPoint]]


def filmed(points: Mapping[Entrant, Sequence[TradeoffPoint]], setup: RunConfig, progress: bool | None = None) -> Points:
    """Film each row that has no film, and return the points, of which ``extras["film"]`` names the films.

    The film of a row shows its first seed. The film lies in the run folder, whose ``tradeoff.json`` names it. Controls
    that choose in a method's place have none. What cannot be filmed is told on standard error, one line each.

    Args:
        points: of one environment, by entrant.
        setup: of the environment.
        progress: see ``agents.runs.workers.progress_bar``.
    """
    found = {entrant: list(own) for entrant, own in points.items()}
    wanted = unfilmed(found)
    if not wanted:
        return found
    if reason := why_not_drawn(setup):
        note(f"No films of {setup.env}: {reason}")
        return found
    rows = len({point.label for own in found.values() for point in own if _has_a_film_of_its_own(point)})
    largest = min(LARGEST_FILM, LARGEST_OF_ALL // rows)
    lengths = [int(point.episodes[0]["length"]) for _, point in wanted]
    with progress_bar(sum(lengths), "films", progress) as advance:
        for (entrant, point), length in zip(wanted, lengths, strict=True):
            try:
                name = _film(entrant, point, largest)
            except Exception as error:  # noqa: BLE001 - a library that draws may fail in any way
                note(f"No film of {point.label}: {_told(error)}")
            else:
                made = dataclasses.replace(point, extras={**point.extras, "film": name})
                found[entrant] = [made if one is point else one for one in found[entrant]]
                _name_in_run_folder(entrant, point.label, name)
            advance(length)
    return found


def unfilmed(points: Mapping[Entrant, Sequence[TradeoffPoint]]) -> list[tuple[Entrant, TradeoffPoint]]:
    """Return the first point of each row without a film, and whose it is."""
    there = {point.label for entrant, own in points.items() for point in own if _is_filmed(entrant, point)}
    first: dict[str, tuple[Entrant, TradeoffPoint]] = {}
    for entrant, own in points.items():
        for point in own:
            if _has_a_film_of_its_own(point) and point.label not in there:
                first.setdefault(point.label, (entrant, point))
    return list(first.values())


def _is_filmed(entrant: Entrant, point: TradeoffPoint) -> bool:
    name = point.extras.get("film")
    return bool(name) and (entrant.path / name).is_file()


def _has_a_film_of_its_own(point: TradeoffPoint) -> bool:
    return point.extras.get("control") not in WHAT


def why_not_drawn(setup: RunConfig) -> str | None:
    """Return why no picture of an environment can be drawn here, in one line; ``None`` where one can."""
    try:
        with contextlib.closing(setup.make_env()) as env:
            modes = env.metadata.get("render_modes") or ()
        if "rgb_array" not in modes:
            return f"it renders {', '.join(modes) or 'nothing'}, and films need rgb_array"
        with warnings.catch_warnings(), contextlib.closing(setup.make_env(render_mode="rgb_array")) as env:
            warnings.simplefilter("ignore")  # GLFW warns of what the reason tells
            env.reset(seed=REPORT_SEED)
            small(first_frame(env))
    except Exception as error:  # noqa: BLE001 - a library that draws may fail in any way
        return _told(error)
    return None


def _film(entrant: Entrant, point: TradeoffPoint, largest: int) -> str:
    """Film the first episode that was measured, and return the film's path in the run folder.

    Raises:
        BudgetError: a policy that cannot be opened again, or that now plays another episode.
    """
    name, timeline = f"{FOLDER}/{slug(point.label)}.gif", point.extras.get("timeline")
    path = inside(entrant.path, FOLDER, f"{slug(point.label)}.gif")
    expected = sum(timeline["rewards"]) if timeline else point.episodes[0]["return"]
    every = math.ceil(point.episodes[0]["length"] / MOST_PICTURES)
    with torch_as_it_was():
        torch.set_num_threads(1)
        policy, env = entrant.opened(point, "rgb_array")
        try:
            value = record_episode(policy, env, path, REPORT_SEED, every=every, largest=largest)
        finally:
            env.close()
    if not math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9):
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"its episode returned {value:,.6g} and was measured as {expected:,.6g}: expected the same, which needs "
            "the machine and the versions that trained it"
        )
    return name


def _name_in_run_folder(entrant: Entrant, label: str, name: str) -> None:
    stored = Comparison.read(entrant.path)
    points = [
        dataclasses.replace(one, extras={**one.extras, "film": name}) if one.label == label else one
        for one in stored.points
    ]
    dataclasses.replace(stored, points=points).write(entrant.path)


def _told(error: Exception) -> str:
    """Return an error as one line; other libraries' errors say little without their class."""
    text = str(error) if isinstance(error, BudgetError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


__all__ = ["filmed", "unfilmed", "why_not_drawn"]
