"""Axes of a chart in SVG: where values lie, round ticks, grid lines. Colours are the page's style."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.report.markup import Markup, element, joined, text

TOP, BOTTOM = 14.0, 46.0
"""Pixels above and below the frame, for ticks and the name of the axis."""

LETTER = 7.2
"""Pixels that a digit of a tick takes at most."""

TICKS = 5
"""Ticks of the y axis, about."""


@dataclass(frozen=True)
class Axes:
    """A frame of pixels, y downwards, that shows a range of each value.

    Attributes:
        width: of the whole chart.
        height: of the whole chart.
        x_limits: values at the left and right end.
        y_limits: values at the lower and upper end.
        left: pixels left of the frame; see ``room_for``.
        right: pixels right of it.
        logarithmic: whether x is.
    """

    width: float
    height: float
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    left: float = 66.0
    right: float = 14.0
    logarithmic: bool = False

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the frame."""
        return self.left, TOP, self.width - self.right, self.height - BOTTOM

    def x(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.x_limits
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        left, _, right, _ = self.frame
        return left + (right - left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.y_limits
        _, top, _, bottom = self.frame
        return bottom - (bottom - top) * (value - low) / (high - low)

    def drawn(self, x_name: str, y_name: str, x_text: Callable[[float], str], y_text: Callable[[float], str]) -> Markup:
        """Return grid, ticks and names of both axes."""
        left, top, right, bottom = self.frame
        parts = []
        for value in round_ticks(*self.y_limits, TICKS):
            y = self.y(value)
            parts.append(element("line", cls="grid", x1=left, x2=right, y1=y, y2=y))
            parts.append(text(y_text(value), cls="tick", x=left - 7, y=y + 4, text_anchor="end"))
        count = max(2, int((right - left) / 90))
        ticks = log_ticks(*self.x_limits, count) if self.logarithmic else round_ticks(*self.x_limits, count)
        for value in ticks:
            x = self.x(value)
            parts.append(element("line", cls="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4))
            parts.append(text(x_text(value), cls="tick", x=x, y=bottom + 17, text_anchor="middle"))
        parts.append(element("line", cls="axis", x1=left, x2=right, y1=bottom, y2=bottom))
        parts.append(text(x_name, cls="name", x=(left + right) / 2, y=self.height - 8, text_anchor="middle"))
        middle = (top + bottom) / 2
        parts.append(
            text(y_name, cls="name", transform=f"translate(13 {middle:.1f}) rotate(-90)", text_anchor="middle")
        )
        return joined(*parts)


def room_for(low: float, high: float) -> float:
    """Return the pixels that the ticks and the name of a y axis from ``low`` to ``high`` take."""
    return 30 + LETTER * max(len(tick_text(value, low, high)) for value in round_ticks(low, high, TICKS))


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round values from ``low`` to ``high``, 1, 2 or 5 times a power of ten apart.

    >>> round_ticks(0.0, 103.0, 5)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= 0.7 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_text(value: float, low: float, high: float) -> str:
    """Return a tick of an axis from ``low`` to ``high``, in as many digits as tell ticks apart.

    >>> tick_text(-1000.0, -1200.0, 0.0), tick_text(0.4, 0.0, 1.0), tick_text(2500.0, 2490.0, 2510.0)
    ('−1,000', '0.4', '2,500')
    """
    digits = max(0, 1 - math.floor(math.log10((high - low) / TICKS))) if high > low else 2
    shown = f"{value + 0.0:,.{digits}f}"
    return (shown.rstrip("0").rstrip(".") if digits else shown).replace("-", "−")


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most about ``count`` values from ``low`` to ``high``: 1, 2 and 5 times powers of ten, or powers alone.

    >>> log_ticks(150.0, 9000.0, 8), log_ticks(1.0, 1e6, 4)
    ([200.0, 500.0, 1000.0, 2000.0, 5000.0], [1.0, 100.0, 10000.0, 1000000.0])
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [
        [value for exponent in exponents[::every] for times in kept if low <= (value := times * 10.0**exponent) <= high]
        for kept, every in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 3))
    ]
    return next((values for values in within if 1 < len(values) <= count), within[0])


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return limits around ``values`` with room of ``share`` of their range at both ends."""
    low, high = min(values), max(values)
    room = share * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room
