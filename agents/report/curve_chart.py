"""Returns while training, in SVG for the page: a line for each row, or for each seed where there is no mean."""

from collections.abc import Sequence

import numpy as np

from agents.report.axes import Axes, padded, room_for, tick_text
from agents.report.chart import NARROW, WIDE, row_classes, short_name
from agents.report.curves import common_grid
from agents.report.labels import spread
from agents.report.markup import Markup, element, joined, text
from agents.report.rows import Row
from agents.report.texts import compact

LETTER = 8.0
"""Pixels that a letter of a name takes, about."""

APART = 15.0
"""Pixels between two names, at least."""


def curve_charts(rows: Sequence[Row]) -> Markup:
    """Return the chart for wide windows and for narrow ones, empty without curves; rows have the table's numbers."""
    drawn = [(index, row) for index, row in enumerate(rows, 1) if all(point.curve for point in row.points)]
    if not drawn:
        return Markup("")
    styles = dict(zip(range(1, len(rows) + 1), row_classes(rows), strict=True))
    names = {index: f"{index} {short_name(row)}" for index, row in drawn}
    wide = _chart(drawn, styles, names, *WIDE, cls="curves wide")
    numbers = {index: str(index) for index, _ in drawn}
    return joined(wide, _chart(drawn, styles, numbers, *NARROW, cls="curves narrow"))


def _chart(
    drawn: Sequence[tuple[int, Row]],
    styles: dict[int, str],
    names: dict[int, str],
    width: int,
    height: int,
    cls: str,
) -> Markup:
    every = [pair for _, row in drawn for point in row.points for pair in point.curve]
    steps, returns = [step for step, _ in every], [value for _, value in every]
    y_limits = padded(returns, 0.06)
    x_limits = (min(steps), max(steps)) if min(steps) < max(steps) else padded(steps, 0.1)
    right = 26 + LETTER * max(len(name) for name in names.values())
    axes = Axes(width, height, x_limits, y_limits, left=room_for(*y_limits), right=right)
    frame = axes.drawn(
        "environment steps", "mean return of an episode", compact, lambda value: tick_text(value, *y_limits)
    )
    lines, ends = [], []
    for index, row in drawn:
        shapes, end = _lines(row, axes)
        lines.append(element("g", *shapes, cls=f"row {styles[index]}", opacity=_shade(index, row, drawn)))
        ends.append(end)
    levels = spread(np.array([y for _, y in ends]), APART)
    levels += max(0.0, APART / 2 - levels.min())
    labels = []
    for (index, _), (x, y), level in zip(drawn, ends, levels, strict=True):
        at = width - right + 14
        leader = element("line", cls="leader", x1=x + 2, y1=y, x2=at - 3, y2=float(level))
        name = text(names[index], cls="label", x=at, y=float(level) + 4)
        labels.append(element("g", leader, name, cls=f"row {styles[index]}"))
    about = f"Evaluation return against environment steps, {len(drawn)} rows"
    return element(
        "svg", frame, *lines, *labels, cls=cls, viewBox=f"0 0 {width} {height}", role="img", aria_label=about
    )


def _lines(row: Row, axes: Axes) -> tuple[list[Markup], tuple[float, float]]:
    """Return the lines of a row, and the pixel where its name belongs: their end, or that of its best group."""
    if row.return_groups:
        curves = [sorted(point.curve) for point in row.points]
        step, value = max(row.return_groups[0][0].curve)
        return [_line(curve, axes, "curve single") for curve in curves], (axes.x(step), axes.y(value))
    steps, values = common_grid([point.curve for point in row.points])
    mean = list(zip(steps.tolist(), values.mean(axis=0).tolist(), strict=True))
    shapes = [_line(mean, axes, "curve")]
    if len(row.points) > 1:
        there = list(zip(steps.tolist(), values.max(axis=0).tolist(), strict=True))
        back = list(zip(steps.tolist(), values.min(axis=0).tolist(), strict=True))[::-1]
        shapes.insert(0, element("polygon", cls="band", points=_pixels([*there, *back], axes)))
    return shapes, (axes.x(mean[-1][0]), axes.y(mean[-1][1]))


def _line(curve: Sequence[tuple[float, float]], axes: Axes, cls: str) -> Markup:
    return element("polyline", cls=cls, points=_pixels(curve, axes))


def _pixels(curve: Sequence[tuple[float, float]], axes: Axes) -> str:
    return " ".join(f"{axes.x(step):.1f},{axes.y(value):.1f}" for step, value in curve)


def _shade(index: int, row: Row, drawn: Sequence[tuple[int, Row]]) -> float | None:
    """Return how opaque a row is: cheaper rows of the same method are paler."""
    of_method = [other for other, one in drawn if (one.method, one.baseline) == (row.method, row.baseline)]
    return None if len(of_method) == 1 else 0.45 + 0.55 * (of_method.index(index) + 1) / len(of_method)
