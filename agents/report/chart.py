"""The chart of the page: return against acting compute, in SVG, whose every point says which run it is.

Drawn twice, for wide and narrow windows, as text in a scaled SVG would be too small to read on one of them. Rows have
numbers, the same as in the page's table.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from agents.report.axes import Axes, padded, room_for, tick_text
from agents.report.labels import place_labels
from agents.report.markup import Markup, element, joined, text
from agents.report.pictures import LOG_FROM, label_anchor
from agents.report.point import TradeoffPoint
from agents.report.rows import Row
from agents.report.texts import compact, groups_words, number, return_cell, row_label, saving

WIDE, NARROW = (1060, 480), (344, 380)
NAMED = 12
"""Rows up to which a wide chart has their names; beyond it has their numbers."""

LONGEST = 30
"""Characters of a name in a chart."""


def charts(rows: Sequence[Row], convention: str) -> Markup:
    """Return the chart for wide windows and for narrow ones; the page's style shows one of the two."""
    wide = _chart(rows, convention, *WIDE, cls="chart wide", named=len(rows) <= NAMED)
    return joined(wide, _chart(rows, convention, *NARROW, cls="chart narrow", named=False))


def row_classes(rows: Sequence[Row]) -> list[str]:
    """Return the style of each row: a colour for each method under comparison, one for all baselines; and its mark."""
    methods = list(dict.fromkeys(row.method for row in rows if not row.baseline))
    return [
        f"{'control' if row.of else 'baseline'}" if row.baseline else f"method c{methods.index(row.method) % 6}"
        for row in rows
    ]


def mark(cls: str, x: float, y: float, size: float) -> Markup:
    """Return the mark of a row's style: a disc, for baselines a square, for controls a diamond."""
    if cls.startswith("method"):
        return element("circle", cls="mark", cx=x, cy=y, r=size)
    half = size * 0.9
    turned = f"rotate(45 {x:.2f} {y:.2f})" if cls.startswith("control") else None
    return element("rect", cls="mark", x=x - half, y=y - half, width=2 * half, height=2 * half, transform=turned)


def _chart(rows: Sequence[Row], convention: str, width: int, height: int, cls: str, named: bool) -> Markup:
    axes = _axes(rows, width, height)
    classes = row_classes(rows)
    scale = ", log scale" if axes.logarithmic else ""
    unit = f"acting FLOPs per step ({convention}{scale})"
    frame = axes.drawn(unit, "mean return of an episode", compact, lambda value: tick_text(value, *axes.y_limits))
    reference = next(row for row in rows if row.reference)
    left, _, right, _ = axes.frame
    level = axes.y(reference.mean_return)
    guides = [element("line", cls="guide", x1=left, x2=right, y1=level, y2=level)]
    front = _front(rows, axes)
    if front:
        guides.append(element("polyline", cls="front", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in front)))
    guides += [_apart(row, axes, style) for row, style in zip(rows, classes, strict=True) if row.split]
    drawn = [_row(row, axes, style) for row, style in zip(rows, classes, strict=True)]
    labels = _labels(rows, classes, axes, front, named)
    # A name for the figure, and one stop for the keyboard: arrows go from point to point.
    about = f"Return against acting compute, {len(rows)} rows. Arrow keys go from point to point."
    box = f"0 0 {width} {height}"
    return element("svg", frame, *guides, labels, *drawn, cls=cls, viewBox=box, role="group", aria_label=about)


def _axes(rows: Sequence[Row], width: int, height: int) -> Axes:
    flops = [point.flops_per_step for row in rows for point in row.points]
    returns = [point.mean_return for row in rows for point in row.points]
    returns += [end for row in rows if not row.split for end in (row.low, row.high)]
    low, high = min(flops), max(flops)
    logarithmic = high / low >= LOG_FROM
    limits = (low / (high / low) ** 0.1, high * (high / low) ** 0.1) if logarithmic else padded(flops, 0.12)
    y_limits = padded(returns, 0.1)
    return Axes(width, height, limits, y_limits, left=room_for(*y_limits), logarithmic=logarithmic)


def _front(rows: Sequence[Row], axes: Axes) -> list[tuple[float, float]]:
    """Return the corners of the Pareto staircase: each return holds until the next efficient row."""
    efficient = sorted((row.flops_per_step, row.mean_return) for row in rows if row.efficient)
    corners: list[tuple[float, float]] = []
    for flops, value in efficient:
        if corners:
            corners.append((axes.x(flops), corners[-1][1]))
        corners.append((axes.x(flops), axes.y(value)))
    return [*corners, (axes.frame[2], corners[-1][1])] if corners else []


def _row(row: Row, axes: Axes, cls: str) -> Markup:
    """Return the marks of one row: its seeds, and where they agree their interval and mean."""
    at = [(axes.x(point.flops_per_step), axes.y(point.mean_return)) for point in row.points]
    parts = []
    if row.split:
        parts += [_seed(row, point, cls, *where, 6.0) for point, where in zip(row.points, at, strict=True)]
    elif len(row.points) == 1:
        parts.append(_seed(row, row.points[0], cls, *at[0], 7.0))
    else:
        x, y = axes.x(row.flops_per_step), axes.y(row.mean_return)
        parts.append(element("line", cls="interval", x1=x, x2=x, y1=axes.y(row.low), y2=axes.y(row.high)))
        parts.append(_pointed(row_tip(row), f"mean {cls}", mark(cls, x, y, 7.0)))
        parts += [_seed(row, point, cls, *where, 3.6) for point, where in zip(row.points, at, strict=True)]
    return element("g", *parts, cls=f"row {cls}")


def _apart(row: Row, axes: Axes, cls: str) -> Markup:
    """Return the line that joins the seeds of a row without a mean; names lie above it."""
    at = sorted((axes.x(point.flops_per_step), axes.y(point.mean_return)) for point in row.points)
    line = element("polyline", cls="apart", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in at))
    return element("g", line, cls=f"row {cls}")


def _seed(row: Row, point: TradeoffPoint, cls: str, x: float, y: float, size: float) -> Markup:
    return _pointed(run_tip(row, point), "seed" if size < 6 else "mean", mark(cls, x, y, size))


def _pointed(tip: str, cls: str, shape: Markup) -> Markup:
    """Return ``shape`` with what hovering and focus show; without scripts a browser shows the title on hover."""
    return element(
        "g",
        element("title", tip),
        shape,
        cls=f"pt {cls}",
        tabindex="-1",
        role="img",
        aria_label=tip.replace("\n", ", "),
    )


def run_tip(row: Row, point: TradeoffPoint) -> str:
    """Return what a point shows of its run: label, seed, return, FLOPs and folder, a line each."""
    run = point.extras.get("run")
    return "\n".join(
        [
            row_label(row),
            f"seed {point.seed}",
            f"return {number(point.mean_return)}",
            f"{point.flops_per_step:,.0f} FLOPs per step",
            *([str(run)] if run else []),
        ]
    )


def row_tip(row: Row) -> str:
    """Return what a mean shows of its row, a line each."""
    lines = [
        row_label(row),
        f"mean of {len(row.points)} seeds: {return_cell(row)} ({number(row.low)} … {number(row.high)})",
        f"{row.flops_per_step:,.0f} FLOPs per step",
        saving(row) or "the reference",
    ]
    return "\n".join(lines)


# ---- names beside the points ----------------------------------------------------------------------------------------


def _labels(
    rows: Sequence[Row], classes: Sequence[str], axes: Axes, front: Sequence[tuple[float, float]], named: bool
) -> Markup:
    texts = [_label(index, row, named) for index, row in enumerate(rows, 1)]
    anchors = np.array([_anchor(row, axes) for row in rows])
    # An average letter of the page's sans-serif is 0.55 of its size wide; numbers and bold ones more.
    sizes = np.array([(max(8.0 * len(name), 6.6 * len(note)) + 6, 30.0 if note else 16.0) for name, note in texts])
    centres = place_labels(anchors, sizes, _obstacles(rows, axes, front), axes.frame)
    drawn = []
    for (name, note), (x, y), cls, anchor, size in zip(texts, centres, classes, anchors, sizes, strict=True):
        apart = np.maximum(np.abs((x, y) - anchor) - size / 2, 0)
        if np.linalg.norm(apart) > 14:
            near = np.clip(anchor, (x, y) - size / 2, (x, y) + size / 2)
            drawn.append(
                element("line", cls="leader", x1=near[0], y1=near[1], x2=float(anchor[0]), y2=float(anchor[1]))
            )
        drawn.append(text(name, cls="label", x=float(x), y=float(y) + (-2 if note else 5), text_anchor="middle"))
        if note:
            drawn.append(text(note, cls="saved", x=float(x), y=float(y) + 12, text_anchor="middle"))
        drawn[-1 - bool(note)] = element("g", drawn[-1 - bool(note)], cls=f"row {cls}")
    return element("g", *drawn, aria_hidden="true")


def _label(index: int, row: Row, named: bool) -> tuple[str, str]:
    if not named:
        return str(index), ""
    note = "two groups of seeds" if groups_words(row) else saving(row)
    return f"{index} {short_name(row)}", note.removesuffix(" (by seed)")


def short_name(row: Row) -> str:
    """Return the label of ``row``, cut where it is too long for a chart."""
    name = row_label(row)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _anchor(row: Row, axes: Axes) -> tuple[float, float]:
    """Return the pixel that a row's name stands at: its mean, or where seeds do not agree the cheapest of them."""
    flops, value = label_anchor(row)
    return axes.x(flops), axes.y(value)


def _obstacles(rows: Sequence[Row], axes: Axes, front: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return pixels that names should leave free: means (three times as dear), seeds, intervals, the front."""
    found = [_anchor(row, axes) for row in rows] * 3
    found += [(axes.x(point.flops_per_step), axes.y(point.mean_return)) for row in rows for point in row.points]
    for row in rows:
        if not row.split:
            found += [(axes.x(row.flops_per_step), axes.y(value)) for value in np.linspace(row.low, row.high, 9)]
    lines = [
        sorted((axes.x(one.flops_per_step), axes.y(one.mean_return)) for one in row.points) for row in rows if row.split
    ]
    for one, two in (pair for line in (front, *lines) for pair in pairwise(line)):
        found += list(zip(np.linspace(one[0], two[0], 24), np.linspace(one[1], two[1], 24), strict=True))
    return np.array(found)
