"""The tables of a report: what stands in a cell, and what it is sorted by."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agents.report import costs
from agents.report.point import TradeoffPoint
from agents.report.rows import Groups, Row
from agents.report.spread import spread_name
from agents.report.texts import by_group, compact, flops_cell, number, percent, return_cell, row_label, saved_cell

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: that is shown.
        key: that it is sorted by: a number, or ``None`` for the text; cells without a value come last.
    """

    text: str
    key: float | None = None


Line = Sequence[Cell]


# ---- what rows earn -------------------------------------------------------------------------------------------------


def result_headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the headings of the table of results, after the row's name."""
    spread = spread_name([len(row.points) for row in rows])
    return ("seeds", "mean return", spread, "FLOPs / step", "saved / step", "FLOPs / episode", "saved / episode")


def result_line(row: Row, reference: Row) -> Line:
    """Return the cells of ``row``, in the order of ``result_headings``."""
    return (
        Cell(str(len(row.points)), len(row.points)),
        Cell(return_cell(row), row.mean_return),
        Cell(spread_text(row), None if spread_text(row) == MISSING else row.low),
        Cell(flops_cell(row), row.flops_per_step),
        Cell(saved_cell(row), row.saved),
        _by_group(row, row.flops_groups, costs.flops_per_episode, compact),
        Cell("reference", 0.0)
        if row.reference
        else _by_group(row, row.flops_groups, lambda points: costs.saved_per_episode(points, reference), percent),
    )


def spread_text(row: Row) -> str:
    """Return the interval or range of a row's return; a row of one seed has none, nor has one without a mean."""
    none = row.interval_over == "nothing" or row.return_groups
    return MISSING if none else f"{number(row.low)} … {number(row.high)}"


# ---- what rows cost -------------------------------------------------------------------------------------------------

COST_HEADINGS = (
    "µs / action",
    "learning FLOPs ×",
    "training FLOPs",
    "break-even, deployed steps",
    "gate, nats",
    "choices",
)


def cost_line(row: Row, reference: Row) -> Line:
    """Return the cells of ``row``, in the order of ``COST_HEADINGS``."""
    gate = costs.mean_of(row.points, "gate_information")
    paid = _by_group(row, row.flops_groups, lambda points: costs.break_even(points, reference), break_even_text)
    return (
        _number(costs.us_per_action(row.points), number),
        _number(costs.learning_times(row.points, reference), lambda times: f"{times:.2f} ×"),
        _number(costs.training_flops(row.points), compact),
        Cell("reference") if row.reference else paid,
        _number(gate, lambda nats: f"{max(nats, 0.0):.3f}"),
        Cell(shares_text(row)),
    )


def break_even_text(steps: float) -> str:
    """Return a number of deployed steps in words.

    >>> break_even_text(1_250_000), break_even_text(0.0), break_even_text(math.inf)
    ('1.25M', 'at once', 'never')
    """
    return "never" if steps == math.inf else "at once" if steps == 0 else compact(steps)


def shares_text(row: Row) -> str:
    """Return how often each choice was taken, the mean over seeds, or how often the dearest was."""
    found = [point.extras.get("shares") for point in row.points]
    if all(found):
        names = list(dict.fromkeys(name for shares in found for name in shares))
        means = {name: math.fsum(shares.get(name, 0.0) for shares in found) / len(found) for name in names}
        return ", ".join(f"{name} {percent(share, 0)}" for name, share in means.items())
    return MISSING if row.share_large is None else f"large {percent(row.share_large)}"


# ---- runs -----------------------------------------------------------------------------------------------------------

RUN_HEADINGS = (
    *("seed", "mean return", "FLOPs / step", "episodes", "steps", "FLOPs in all", "µs / action"),
    *("duration", "date", "machine", "run folder"),
)


def run_line(point: TradeoffPoint) -> Line:
    """Return the cells of a run, in the order of ``RUN_HEADINGS``, after its row's name."""
    extras, episodes = point.extras, point.episodes
    steps, flops = (sum(episode[key] for episode in episodes) if episodes else None for key in ("length", "flops"))
    texts = [Cell(str(extras[key]) if extras.get(key) else MISSING) for key in ("date", "machine", "run")]
    return (
        Cell(str(point.seed), point.seed),
        Cell(number(point.mean_return), point.mean_return),
        Cell(f"{point.flops_per_step:,.1f}", point.flops_per_step),
        _number(len(episodes) or None, lambda count: f"{count:,.0f}"),
        _number(steps, lambda count: f"{count:,.0f}"),
        _number(flops, compact),
        _number(extras.get("us_per_action"), number),
        _number(extras.get("duration_s"), duration),
        *texts,
    )


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(42.4), duration(330.0), duration(9000.0)
    ('42 s', '5.5 min', '2.5 h')
    """
    for limit, unit in ((3600, "h"), (60, "min")):
        if seconds >= limit:
            return f"{seconds / limit:.1f} {unit}"
    return f"{seconds:.0f} s"


# ---- cells ----------------------------------------------------------------------------------------------------------


def _number(value: float | None, shown: Callable[[float], str]) -> Cell:
    return Cell(MISSING) if value is None else Cell(shown(value), value)


def _by_group(
    row: Row,
    groups: Groups,
    measure: Callable[[Sequence[TradeoffPoint]], float | None],
    shown: Callable[[float], str],
) -> Cell:
    """Return the cell of a measure of all seeds, or of each group where they fall into two, sorted by the first."""
    values = [measure(points) for points in groups or (row.points,)]
    if None in values:
        return Cell(MISSING)
    texts = [shown(value) for value in values]
    return Cell(by_group(groups, texts) if groups else texts[0], values[0])


# ---- in a terminal --------------------------------------------------------------------------------------------------


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the headings of a terminal's table of ``rows``."""
    spread = spread_name([len(row.points) for row in rows])
    return ("method", "seeds", "mean return", spread, "FLOPs / step", "compute saved", "on large")


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of one row of a terminal's table, in the order of ``headings``."""
    marks = (" *" if row.efficient else "") + (" (not learnt)" if row.learnt is False else "")
    return (
        row_label(row) + marks,
        str(len(row.points)),
        return_cell(row),
        spread_text(row),
        flops_cell(row),
        saved_cell(row),
        MISSING if row.share_large is None else percent(row.share_large),
    )
