"""The sentence above a report: which row is worth naming, beside what, and how sure that is."""

from collections.abc import Sequence

from agents.report.texts import number, row_label, saving
from agents.report.tradeoff import Row
from budget_wrappers.functional.intervals import bootstrap_interval


def finding(rows: Sequence[Row]) -> str:
    """Return what the comparison shows, in sentences of measured numbers.

    The row named is one of those that are no baselines and cheaper than the reference: with one seed each the cheapest
    that its episodes cannot tell from the reference; else the one of the highest return on the Pareto front; where
    baselines leave none there, the one of the highest return, after the baseline that dominates it.

    Args:
        rows: of ``summarise``.
    """
    reference = next(row for row in rows if row.reference)
    cheaper = [row for row in rows if not row.baseline and row.saved > 0]
    if not cheaper:
        text = f"No method under comparison spends less than {reference.label}."
        better = [row for row in rows if row.baseline and row.saved > 0 and row.mean_return >= reference.mean_return]
        return " ".join([text, *(f"{_earns(max(better, key=_rank), reference)}." for _ in better[:1])])
    best = _named(cheaper, reference)
    dominating = [row for row in rows if row.baseline and not row.reference and dominates(row, best)]
    if dominating:
        baseline = max(dominating, key=_rank)
        return (
            f"The baseline {_earns(baseline, reference)}. {row_label(best)}, the best method under comparison, earns "
            f"{number(best.mean_return)} with {saving(best)}{_not_apart(best, [baseline, reference])}."
        )
    beside = [row for row in rows if row.baseline and not row.reference and row.flops_per_step <= best.flops_per_step]
    return f"{_earns(best, reference)}{_not_apart(best, [reference, *beside])}."


def dominates(row: Row, other: Row) -> bool:
    """Return whether ``row`` earns at least as much as ``other`` for at most its FLOPs, in the means."""
    return row.mean_return >= other.mean_return and row.flops_per_step <= other.flops_per_step


def told_apart(row: Row, other: Row) -> bool:
    """Return whether the returns of two rows are known to differ: their intervals or ranges do not overlap.

    A row of one seed has no spread over trainings; that of its episodes stands in, which is less than it should be.
    """
    (low, high), (other_low, other_high) = ends(row), ends(other)
    return high < other_low or other_high < low


def ends(row: Row) -> tuple[float, float]:
    """Return the ends of what is known of the return of ``row``: over seeds, or for one seed over its episodes."""
    returns = [episode["return"] for episode in row.points[0].episodes]
    if len(row.points) > 1 or len(returns) < 2:
        return row.low, row.high
    return bootstrap_interval(returns)


def _named(cheaper: Sequence[Row], reference: Row) -> Row:
    if all(len(row.points) == 1 for row in (*cheaper, reference)):
        good = [row for row in cheaper if row.mean_return >= reference.mean_return or not told_apart(row, reference)]
        good = [row for row in good if row.efficient] or good
        if good:
            return min(good, key=lambda row: row.flops_per_step)
    front = [row for row in cheaper if row.efficient]
    return max(front or cheaper, key=_rank)


def _rank(row: Row) -> tuple[float, float]:
    return row.mean_return, -row.flops_per_step


def _earns(row: Row, reference: Row) -> str:
    return (
        f"{row_label(row)} earns {number(row.mean_return)} with {saving(row)} than {row_label(reference)}, which earns "
        f"{number(reference.mean_return)}"
    )


def _not_apart(best: Row, others: Sequence[Row]) -> str:
    """Return which of ``others`` the returns of ``best`` cannot be told apart from, as the end of a sentence."""
    alike = [
        row_label(row) + ("" if row.reference else f" ({saving(row)})")
        for row in others
        if not told_apart(best, row) and _known(best, row)
    ]
    if not alike:
        return ""
    over = "over their episodes, one seed each" if len(best.points) == 1 else "over their seeds"
    return f"; its return cannot be told apart from that of {' or '.join(alike)} ({over})"


def _known(row: Row, other: Row) -> bool:
    """Return whether anything is known of the spread of one of the two."""
    return any(low < high for low, high in (ends(row), ends(other)))
