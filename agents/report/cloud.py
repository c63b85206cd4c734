"""The cloud of a comparison: what each episode cost and scored, with histograms on both sides.

Scaled as the publication of asymmetric sub-policies does ("Reducing the Deployment-Time Inference Control Costs of DRL
Agents via an Asymmetric Architecture", ICRA 2021), so that tasks can be told apart at a glance: cost 1 is the large
policy alone, score 0 a random policy, score 1 the large policy's mean.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.loop.evaluate import REPORT_SEED, evaluate_policy
from agents.report.pictures import (
    BASELINE_COLOUR,
    DOTS_PER_INCH,
    FAINT_INK,
    INK,
    METHOD_COLOURS,
    PLAIN_TEXT,
    row_label,
)
from agents.report.tradeoff import Row
from budget_wrappers.errors import ConfigError
from budget_wrappers.files import replacing

BINS = 40
MARKERS = ("s", "D", "^", "v", "P")


class RandomPolicy:
    """Uniformly random actions: the zero of the score.

    Args:
        space: of the actions.
        seed: of the draws.
    """

    def __init__(self, space: gym.Space, seed: int) -> None:
        self.space = space
        self.space.seed(seed)

    def predict(self, observation: Any, deterministic: bool = True, **state: Any) -> tuple[Any, None]:
        """Return an action that does not look at ``observation``."""
        return self.space.sample(), None


def random_return(env: gym.Env, episodes: int, seed: int = REPORT_SEED) -> float:
    """Return the mean undiscounted return of random actions over ``episodes`` seeded episodes."""
    return evaluate_policy(RandomPolicy(env.action_space, seed), env, episodes, seed).mean


def scaled_episodes(row: Row, reference: Row, random: float) -> NDArray[np.float64]:
    """Return ``(cost, score)`` of every episode of ``row``, over all its seeds, ``(E, 2)``.

    ``cost = (FLOPs / steps) / F_reference`` and ``score = (R − R_random) / (R_reference − R_random)``, with the means
    of ``reference`` over its seeds.

    Args:
        row: whose points have episodes.
        reference: what has cost 1 and score 1.
        random: mean return of a random policy.

    Raises:
        ConfigError: the reference is no better than a random policy, so that there is no scale.
    """
    span = reference.mean_return - random
    if not span > 0:
        raise ConfigError(
            f"{reference.label!r} returns {reference.mean_return:g} and random actions {random:g}: expected more of "
            "the reference, which scores 1 where they score 0; train it for longer"
        )
    episodes = [episode for point in row.points for episode in point.episodes]
    return np.array(
        [(one["flops"] / one["length"] / reference.flops_per_step, (one["return"] - random) / span) for one in episodes]
    ).reshape(-1, 2)


@matplotlib.rc_context(PLAIN_TEXT)
def plot_cloud(rows: Sequence[Row], random: float, path: Path, title: str) -> Path | None:
    """Draw every episode as a point, and histograms of cost and score; return ``path``, None without a scale.

    Args:
        rows: of ``summarise``, with episodes.
        random: mean return of a random policy.
        path: of a PNG, written whole or not at all.
        title: above the picture.
    """
    reference = next(row for row in rows if row.reference)
    if reference.mean_return <= random:
        return None  # nothing was learned, and the table says so
    figure = Figure(figsize=(8.0, 6.4), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[4, 1], height_ratios=[1, 4], wspace=0.02, hspace=0.02)
    axes = figure.add_subplot(grid[1, 0])
    above, beside = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
    drawn = [(row, scaled_episodes(row, reference, random)) for row in rows]
    drawn = [(row, cloud) for row, cloud in drawn if len(cloud)]
    every = np.concatenate([cloud for _, cloud in drawn])
    edges = [_edges(every[:, axis]) for axis in (0, 1)]
    for (row, cloud), colour, marker in zip(drawn, *_styles([row for row, _ in drawn]), strict=True):
        name = row_label(row)
        axes.scatter(*cloud.T, s=16, color=colour, marker=marker, alpha=0.35, linewidths=0, label=name)
        style = {"color": colour, "alpha": 0.45, "histtype": "stepfilled"}
        share = np.full(len(cloud), 1 / len(cloud))
        above.hist(cloud[:, 0], edges[0], weights=share, **style)
        beside.hist(cloud[:, 1], edges[1], weights=share, orientation="horizontal", **style)
    for line, value in ((axes.axhline, 0), (axes.axhline, 1), (axes.axvline, 1)):
        line(value, color=FAINT_INK, linewidth=0.8, linestyle=(0, (1, 3)), zorder=0)
    axes.set_xlim(edges[0][[0, -1]])
    axes.set_ylim(edges[1][[0, -1]])
    axes.set_xlabel("acting FLOPs per control step, the large policy alone = 1", color=INK)
    axes.set_ylabel("return of an episode, random = 0, the large policy = 1", color=INK)
    for one in (axes, above, beside):
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(FAINT_INK)
        one.tick_params(colors=INK, labelsize=9)
    for one, axis in ((above, "x"), (beside, "y")):
        one.tick_params(axis=axis, **{"labelbottom": False} if axis == "x" else {"labelleft": False})
        one.set_yticks([]) if axis == "x" else one.set_xticks([])
    above.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK)
    legend = figure.legend(loc="outside lower center", ncols=min(len(drawn), 4), frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)
        handle.set_sizes([36])
    with replacing(path) as partial:
        figure.savefig(partial, format="png", facecolor="white")
    return path


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of the bins that all clouds share, with 0 and 1 among what they span."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1.0)
    room = 0.03 * (high - low)
    return np.linspace(low - room, high + room, BINS + 1)


def _styles(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return colours and markers: one of the palette for each method under comparison, grey for baselines."""
    colours, markers = cycle(METHOD_COLOURS), cycle(MARKERS)
    return (
        [BASELINE_COLOUR if row.baseline else next(colours) for row in rows],
        [next(markers) if row.baseline else "o" for row in rows],
    )
