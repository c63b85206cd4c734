"""What a run with units learned about its size: return, parameters and units left in each layer, over its steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from agents.report.pictures import BASELINE_COLOUR, DOTS_PER_INCH, FAINT_INK, INK, METHOD_COLOURS, PLAIN_TEXT
from agents.report.texts import compact
from budget_wrappers.files import replacing

PREFIX, SIZE_INCHES = "loss/units/", (8.0, 7.2)

Rows = Sequence[Mapping[str, Any]]


def networks_in(training: Rows) -> list[str]:
    """Return the networks whose units the rows of a training tell of, that which acts first."""
    keys = {key.removeprefix(PREFIX).split("/")[0] for row in training for key in row if key.startswith(PREFIX)}
    return sorted(keys, key=lambda name: (name == "critic", name))


@matplotlib.rc_context(PLAIN_TEXT)
def plot_units(training: Rows, evaluations: Rows, path: Path, title: str) -> Path | None:
    """Draw the run and return where; ``None`` where its rows tell of no units.

    Args:
        training: rows of the metrics while training, each with its ``step``.
        evaluations: rows of the evaluations, each with its ``step`` and ``return``.
        path: of the PNG.
        title: above the picture.
    """
    networks = networks_in(training)
    if not networks:
        return None
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title, color=INK, fontsize=12)
    upper.plot(*_series(evaluations, "return"), color=METHOD_COLOURS[0], marker="o", markersize=3)
    upper.set_ylabel("return of an evaluation")
    for colour, network in zip(METHOD_COLOURS, networks, strict=False):
        steps, expected = _series(training, f"{PREFIX}{network}/expected")
        middle.plot(steps, expected, color=colour, label=f"{network}, expected")
        steps, there = _series(training, f"{PREFIX}{network}/parameters")
        middle.plot(steps, there, color=colour, linestyle="--", label=f"{network}, there", drawstyle="steps-post")
    middle.set_yscale("log")
    middle.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    middle.yaxis.set_minor_formatter(NullFormatter())
    middle.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    middle.set_ylabel("parameters")
    _layers(lower, training, networks[0])
    lower.set_ylabel(f"units of the {networks[0].replace('_', ' ')}")
    lower.set_xlabel("environment steps")
    for axes in (upper, middle, lower):
        axes.grid(color="#EEEEEE")
        axes.tick_params(colors=FAINT_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    for axes in (middle, lower):
        axes.legend(frameon=False, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=DOTS_PER_INCH, format="png")
    return path


def _layers(axes: Axes, training: Rows, network: str) -> None:
    prefix = f"{PREFIX}{network}/layer"
    keys = sorted({key for row in training for key in row if key.startswith(prefix)})
    for number, key in enumerate(keys):
        colour = [*METHOD_COLOURS, BASELINE_COLOUR][number % (len(METHOD_COLOURS) + 1)]
        axes.plot(*_series(training, key), color=colour, drawstyle="steps-post", label=f"layer {number + 1}")
    axes.set_ylim(bottom=0)


def _series(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    """Return steps and values of the rows that have ``key``."""
    found = [(float(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
    return [step for step, _ in found], [value for _, value in found]


__all__ = ["networks_in", "plot_units"]
