"""The two pictures of a comparison: return against compute, and return while training.

Drawn on matplotlib figures without pyplot, so neither a display nor a global state is involved. Colours are Okabe and
Ito's, told apart by every common kind of colour vision; baselines differ in their marker as well.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, TextArea, VPacker
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from agents.report.curves import common_grid
from agents.report.labels import place_labels, spread
from agents.report.texts import compact, row_label, saving
from agents.report.tradeoff import Row, interval_note
from budget_wrappers.files import replacing

METHOD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
BASELINE_COLOUR = "#444444"
FRONT_COLOUR = "#BDBDBD"
INK = "#222222"
FAINT_INK = "#6B6B6B"
SIZE_INCHES = (9.0, 5.4)
DOTS_PER_INCH = 200
PLAIN_TEXT = {"text.parse_math": False}
"""Names may hold a dollar sign, and are not formulas."""
LOG_FROM = 6.0
"""Dearest over cheapest from which the FLOPs axis is logarithmic."""


@matplotlib.rc_context(PLAIN_TEXT)
def plot_tradeoff(rows: Sequence[Row], path: Path, title: str, convention: str = "matmul") -> Path:
    """Draw return against acting FLOPs per control step, and return ``path``.

    Means with their intervals, single seeds faintly; rows whose seeds fall into two groups as their seeds, without a
    mean; the Pareto front as a staircase (the best return to be had for at most that compute), baselines as squares,
    the reference's return as a dotted line.

    Args:
        rows: of ``summarise``.
        path: of a PNG, written whole or not at all.
        title: above the picture, such as the environment.
        convention: what the FLOPs count.
    """
    figure, axes = _figure(title, interval_note(rows))
    axes.set_ylabel("mean return of an episode")
    _flops_axis(axes, rows, convention)
    axes.margins(y=0.14)
    for row in rows:
        _draw_row(axes, row, method_colours(rows)[row.method, row.baseline])
    axes.set_ylim(axes.get_ylim())
    front = _front(rows, axes.get_xlim()[1])
    if len(front):
        axes.plot(*front.T, color=FRONT_COLOUR, linewidth=1.8, zorder=1)
    reference = next(row for row in rows if row.reference)
    axes.axhline(reference.mean_return, color=FAINT_INK, linewidth=0.9, linestyle=(0, (1, 3)), zorder=1)
    _draw_labels(figure, axes, rows, front)
    return _save(figure, path)


@matplotlib.rc_context(PLAIN_TEXT)
def plot_curves(rows: Sequence[Row], path: Path, title: str) -> Path | None:
    """Draw evaluation returns while training, and return ``path``; None without curves.

    Rows are means and ranges over seeds; those whose returns fall into two groups are a thin line for each seed.
    """
    drawn = [row for row in rows if all(point.curve for point in row.points)]
    if not drawn:
        return None
    several = any(len(row.points) > 1 for row in drawn)
    figure, axes = _figure(title, "mean over seeds; band: lowest to highest seed" if several else "one seed")
    ends = []
    for row, colour in zip(drawn, _shades(drawn), strict=True):
        style = {"color": colour, "linestyle": "--" if row.baseline else "-"}
        if row.return_groups:
            for point in row.points:
                axes.plot(*np.array(sorted(point.curve)).T, **style, linewidth=1.0, alpha=0.85, zorder=3)
            ends.append(max(row.return_groups[0][0].curve))
            continue
        steps, values = common_grid([point.curve for point in row.points])
        average = values.mean(axis=0)
        axes.plot(steps, average, **style, linewidth=2.2, zorder=3)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.13, linewidth=0)
        ends.append((steps[-1], average[-1]))
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of an episode")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    _label_ends(figure, axes, np.array(ends), drawn)
    return _save(figure, path)


def method_colours(rows: Sequence[Row]) -> dict[tuple[str, bool], str]:
    """Return the colour of each (method, baseline): grey for baselines, one of the palette for every other method."""
    methods = list(dict.fromkeys(row.method for row in rows if not row.baseline))
    colours = {(method, False): METHOD_COLOURS[i % len(METHOD_COLOURS)] for i, method in enumerate(methods)}
    return colours | {(row.method, True): BASELINE_COLOUR for row in rows if row.baseline}


def _figure(title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=26)
    axes.annotate(
        subtitle, (0, 1), (0, 9), "axes fraction", "offset points", fontsize=10, color=FAINT_INK, annotation_clip=False
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT_INK)
    axes.grid(axis="y", color="#EBEBEB", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=10)
    axes.xaxis.label.set(size=11, color=INK)
    axes.yaxis.label.set(size=11, color=INK)
    return figure, axes


def _flops_axis(axes: Axes, rows: Sequence[Row], convention: str) -> None:
    """Set scale, limits and ticks of the FLOPs axis, with room for labels at both ends."""
    every = [point.flops_per_step for row in rows for point in row.points]
    low, high = min(every), max(every)
    logarithmic = high / low >= LOG_FROM
    if logarithmic:
        axes.set_xscale("log")
        room = (high / low) ** 0.17
        axes.set_xlim(low / room, high * room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 1e3 else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.2 * (high - low) or 0.5 * high
        axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    axes.set_xlabel(f"acting FLOPs per control step ({convention} convention{', log scale' if logarithmic else ''})")


def label_anchor(row: Row) -> tuple[float, float]:
    """Return where the name of ``row`` stands: at its mean, or where its seeds do not agree at the cheapest of them."""
    if not row.split:
        return row.flops_per_step, row.mean_return
    cheapest = min(row.points, key=lambda point: point.flops_per_step)
    return cheapest.flops_per_step, cheapest.mean_return


def _front(rows: Sequence[Row], right: float) -> NDArray[np.float64]:
    """Return the corners of the Pareto staircase, ``(N, 2)``: each return holds until the next efficient row."""
    efficient = sorted((row.flops_per_step, row.mean_return) for row in rows if row.efficient)
    if not efficient:
        return np.empty((0, 2))
    corners = [efficient[0]]
    for flops, value in efficient[1:]:
        corners += [(flops, corners[-1][1]), (flops, value)]
    return np.array([*corners, (right, corners[-1][1])])


def _draw_row(axes: Axes, row: Row, colour: str) -> None:
    marker = "s" if row.baseline else "o"
    seeds = np.array([(point.flops_per_step, point.mean_return) for point in row.points])
    face, edge = ("white", colour) if row.baseline else (colour, "white")
    if row.split:
        ordered = seeds[np.argsort(seeds[:, 0])]
        axes.plot(*ordered.T, color=colour, alpha=0.6, linewidth=1.0, linestyle=(0, (4, 4)), zorder=2)
        axes.scatter(*seeds.T, s=70, marker=marker, facecolor=face, edgecolor=edge, linewidths=1.6, zorder=4)
        return
    if len(row.points) > 1:
        axes.scatter(*seeds.T, s=26, color=colour, alpha=0.28, marker=marker, linewidths=0, zorder=2)
    if row.interval_over != "nothing":
        axes.plot([row.flops_per_step] * 2, [row.low, row.high], color=colour, linewidth=2.2, zorder=3)
    size, width = (80, 2.2) if row.baseline else (105, 1.2)
    where = (row.flops_per_step, row.mean_return)
    axes.scatter(*where, s=size, marker=marker, facecolor=face, edgecolor=edge, linewidths=width, zorder=4)


def _label_box(axes: Axes, where: Sequence[float], name: str, caption: str, colour: str) -> AnnotationBbox:
    """Return a label of one bold line and one plain line, centred on ``where`` until it is placed."""
    bold, plain = {"color": colour, "fontsize": 10, "fontweight": "bold"}, {"color": FAINT_INK, "fontsize": 9}
    styles = ((name, bold), (caption, plain))
    lines = [TextArea(text, textprops=style) for text, style in styles if text]
    box = AnnotationBbox(
        VPacker(children=lines, align="center", pad=0, sep=2),
        tuple(where),
        (0, 0),
        xycoords="data",
        boxcoords="offset points",
        pad=0.15,
        # Hides grid and guide lines behind the words, and lies below whatever is data.
        bboxprops={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.6, "linewidth": 0.8, "shrinkB": 6},
    )
    box.set_zorder(1.5)
    return axes.add_artist(box)


def _draw_labels(figure: Figure, axes: Axes, rows: Sequence[Row], front: NDArray[np.float64]) -> None:
    """Write each row's name and caption beside its mean, and the front's along it, where nothing else is."""
    colours = method_colours(rows)
    # The front's name goes first: it means something only right at the line.
    boxes = []
    if len(front):
        boxes.append(_label_box(axes, _middle_of_longest_step(axes, front), "", "Pareto front", FRONT_COLOUR))
    for row in rows:
        share = f"large on {100 * row.share_large:.0f} %" if row.share_large is not None and not row.baseline else ""
        caption = "two groups of seeds" if row.split else ", ".join(part for part in (saving(row), share) if part)
        where = label_anchor(row)
        boxes.append(_label_box(axes, where, row_label(row), caption, colours[row.method, row.baseline]))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    extents = [box.get_window_extent(renderer) for box in boxes]
    sizes = np.array([(extent.width, extent.height) for extent in extents])
    anchors = axes.transData.transform(np.array([box.xy for box in boxes]))
    frame = axes.get_window_extent(renderer).extents
    centres = place_labels(anchors, sizes, _obstacles(axes, rows, front), frame, figure.dpi / 100)
    for box, anchor, centre, size in zip(boxes, anchors, centres, sizes, strict=True):
        box.xyann = tuple((centre - anchor) * 72 / figure.dpi)
        gap = np.linalg.norm(np.maximum(np.abs(centre - anchor) - size / 2, 0))
        box.arrow_patch.set_visible(bool(gap > 0.2 * figure.dpi))


def _middle_of_longest_step(axes: Axes, front: NDArray[np.float64]) -> NDArray[np.float64]:
    pixels = axes.transData.transform(front)
    longest = int(np.argmax(np.diff(pixels[:, 0])))
    return axes.transData.inverted().transform(pixels[longest : longest + 2].mean(axis=0))


def _obstacles(axes: Axes, rows: Sequence[Row], front: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return pixels that labels should leave free: means (three times as dear), seeds, intervals, the front."""
    means = [label_anchor(row) for row in rows] * 3
    seeds = [(point.flops_per_step, point.mean_return) for row in rows for point in row.points]
    bars = [(row.flops_per_step, y) for row in rows if not row.split for y in np.linspace(row.low, row.high, 9)]
    corners = axes.transData.transform(front) if len(front) else front
    lines = [sorted((one.flops_per_step, one.mean_return) for one in row.points) for row in rows if row.split]
    lines = [corners, *(axes.transData.transform(np.array(line)) for line in lines)]
    along = [np.linspace(a, b, 24) for line in lines for a, b in pairwise(line)]
    return np.concatenate([axes.transData.transform(np.array(means + seeds + bars)), *along])


def _shades(rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """Return a colour for each row: its method's, lighter for the cheaper rows of that method."""
    base = method_colours(rows)
    shades = []
    for row in rows:
        siblings = [other for other in rows if base[other.method, other.baseline] == base[row.method, row.baseline]]
        lightness = 0.6 * (1 - (siblings.index(row) + 1) / len(siblings))
        colour = np.array(to_rgb(base[row.method, row.baseline]))
        shades.append(tuple(colour + (1 - colour) * lightness))
    return shades


def _label_ends(figure: Figure, axes: Axes, ends: NDArray[np.float64], rows: Sequence[Row]) -> None:
    """Write each label right of its curve's end, pushed apart vertically where they would touch."""
    figure.draw_without_rendering()
    heights = axes.transData.transform(ends)[:, 1]
    levels = spread(heights, 14 * figure.dpi / 72)
    for row, end, offset, colour in zip(rows, ends, levels - heights, _shades(rows), strict=True):
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
        axes.annotate(
            row_label(row),
            tuple(end),
            (16, offset * 72 / figure.dpi),
            "data",
            "offset points",
            arrowprops=leader,
            va="center",
            color=colour,
            fontsize=10,
            annotation_clip=False,
        )


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, format="png", facecolor="white")
    return path
