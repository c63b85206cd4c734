"""One episode on the page: which choice acted when, what it earned, and its film."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

from agents.report.films import Film
from agents.report.markup import Markup, element, joined
from agents.report.point import TradeoffPoint
from agents.report.rows import Row
from agents.report.texts import number, percent, row_label

WIDTH, STRIP, CURVE = 640.0, 26.0, 70.0
"""Pixels of the picture: its width, the strip of choices, the return so far."""

MOST_STEPS = 4_000
"""Steps of an episode that are drawn; a page with more would be slow."""


def episodes(rows: Sequence[Row]) -> Markup:
    """Return the episode of each row that recorded one, of its first seed that did; empty without any."""
    found = []
    for row in rows:
        points = [point for point in row.points if point.extras.get("timeline") or _film_of(point)]
        # A seed with both is worth more than the first one.
        points.sort(key=lambda point: not (point.extras.get("timeline") and _film_of(point)))
        if points:
            found.append(_episode(row, points[0]))
    return joined(*found)


def _film_of(point: TradeoffPoint) -> Film | None:
    film = point.extras.get("film")
    return film if isinstance(film, Film) else None


def _episode(row: Row, point: TradeoffPoint) -> Markup:
    timeline, film = point.extras.get("timeline"), _film_of(point)
    caption = f"{row_label(row)}, seed {point.seed}"
    parts = [element("figcaption", element("b", caption), *([_shares(timeline)] if timeline else []))]
    shown = []
    if film is not None:
        shown.append(_player(film, caption))
    if timeline and timeline["choices"]:
        shown.append(_strip(timeline, caption))
    parts.append(element("div", *shown, cls="side"))
    return element("figure", *parts, cls="episode")


def _player(film: Film, caption: str) -> Markup:
    about = f"Film of an episode of {caption}"
    if film.kind == "image/gif":
        return element("img", cls="film", src=film.address, alt=about)
    return element("video", cls="film", src=film.address, controls=True, muted=True, loop=True, aria_label=about)


def _shares(timeline: Mapping[str, Any]) -> Markup:
    """Return each choice's share of the steps beside its colour, and the return."""
    choices, names = timeline["choices"], _names(timeline)
    parts = [
        element(
            "span", element("i", cls=f"swatch s{index % 6}"), f"{name} {percent(choices.count(name) / len(choices), 0)}"
        )
        for index, name in enumerate(names)
        if choices
    ]
    total = f"{len(choices):,} steps, return {number(sum(timeline['rewards']))}"
    return joined(*parts, element("span", total), element("span", _what_is_drawn(len(choices))))


def _names(timeline: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*timeline["names"], *timeline["choices"]]))


def _what_is_drawn(steps: int) -> str:
    first = f", the first {MOST_STEPS:,} steps" if steps > MOST_STEPS else ""
    return f"line: return so far; strip: who acted{first}"


def _strip(timeline: Mapping[str, Any], caption: str) -> Markup:
    """Return the choices as a strip of colours under the return so far."""
    names, choices = _names(timeline), timeline["choices"][:MOST_STEPS]
    unit, bars, at = WIDTH / len(choices), [], 0
    for name, steps in groupby(choices):
        count = len(list(steps))
        bar = element(
            "rect",
            element("title", f"{name}, steps {at} to {at + count - 1}"),
            cls=f"s{names.index(name) % 6}",
            x=at * unit,
            y=CURVE + 8,
            width=max(count * unit, 0.2),
            height=STRIP,
        )
        bars.append(bar)
        at += count
    earned = list(accumulate(timeline["rewards"][:MOST_STEPS], initial=0.0))
    low, high = min(earned), max(earned)
    points = " ".join(
        f"{step * unit:.1f},{4 + (CURVE - 8) * (high - value) / ((high - low) or 1):.1f}"
        for step, value in enumerate(earned)
    )
    return element(
        "svg",
        element("polyline", cls="earned", points=points),
        *bars,
        cls="strip",
        viewBox=f"0 0 {WIDTH:.0f} {CURVE + STRIP + 10:.0f}",
        role="img",
        aria_label=f"Choices of {caption} step by step, and the return so far",
    )
