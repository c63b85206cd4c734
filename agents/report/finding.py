"""The sentences above a report: which row is worth naming, beside what, and how sure that is."""

from collections.abc import Iterator, Sequence

from agents.report.rows import LEARNT, Row
from agents.report.spread import spread_of
from agents.report.texts import groups_words, number, row_label, saving

AT_MOST = 4
"""Rows that a sentence lists."""

AS_CHEAP = 1.05
"""FLOPs of a control beside its method's up to which it counts as being as cheap: coins have the error of a draw."""


def finding(rows: Sequence[Row]) -> str:
    """Return what the comparison shows, in sentences of measured numbers; see ``findings``."""
    return " ".join(findings(rows))


def findings(rows: Sequence[Row]) -> list[str]:
    """Return what the comparison shows, the most important first.

    The row named is one of those that are not baselines, are cheaper than the reference, have learnt, and whose seeds
    agree: with one seed each the cheapest that its episodes cannot tell from the reference; else the one of the highest
    return on the Pareto front; where baselines leave none there, the one of the highest return, after the baseline that
    dominates it. Then follow methods that do not beat their controls, other methods that a baseline dominates, rows
    whose seeds fall into two groups, and rows that have not learnt.

    Args:
        rows: of ``summarise``.
    """
    reference = next(row for row in rows if row.reference)
    methods = [row for row in rows if not row.baseline and _stands(row)]
    cheaper = [row for row in methods if row.saved > 0]
    best = _named(cheaper, reference) if cheaper else None
    # What the first sentence has said of a pair is not said again.
    named = _dominating(rows, best) if best else None
    return [
        _first(rows, reference, best, named),
        *_controls(rows, methods, best, named),
        *_dominated(rows, methods, best),
        *_split(rows),
        *_not_learnt(rows, reference),
    ]


def _stands(row: Row) -> bool:
    """Return whether the mean of ``row`` says what a policy of it does, and that is more than random actions do."""
    return not row.split and row.learnt is not False


def _first(rows: Sequence[Row], reference: Row, best: Row | None, dominating: Row | None) -> str:
    if best is None:
        better = [row for row in rows if row.baseline and row.saved > 0 and _stands(row)]
        better = [row for row in better if row.mean_return >= reference.mean_return]
        named = [f"{_earns(max(better, key=_rank), reference)}."] if better else []
        return " ".join([_none_named(rows, reference), *named])
    if dominating is not None:
        own = "its control " if dominating.of == best.label else ""
        return (
            f"The baseline {_earns(dominating, reference)}. {row_label(best)}, the best method under comparison, earns "
            f"{number(best.mean_return)} with {saving(best)}, dominated by {own}{row_label(dominating)}"
            f"{_not_apart(best, [dominating, reference])}."
        )
    beside = [row for row in rows if row.baseline and not row.reference and row.flops_per_step <= best.flops_per_step]
    return f"{_earns(best, reference)}{_not_apart(best, [reference, *filter(_stands, beside)])}."


def _none_named(rows: Sequence[Row], reference: Row) -> str:
    cheaper = [row for row in rows if not row.baseline and row.saved > 0]
    if not cheaper:
        return f"No method under comparison spends less than {row_label(reference)}."
    whose = f"method that spends less than {row_label(reference)}"
    if all(row.learnt is False for row in cheaper):
        return f"No {whose} has learnt."
    if all(row.split for row in cheaper):
        return f"The seeds of no {whose} agree."
    return f"No {whose} has both learnt and seeds that agree."


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
    spread = spread_of(returns)
    return spread.low, spread.high


# ---- the row that is named ------------------------------------------------------------------------------------------


def _named(cheaper: Sequence[Row], reference: Row) -> Row:
    if all(len(row.points) == 1 for row in (*cheaper, reference)):
        good = [row for row in cheaper if row.mean_return >= reference.mean_return or not told_apart(row, reference)]
        good = [row for row in good if row.efficient] or good
        if good:
            return min(good, key=lambda row: row.flops_per_step)
    front = [row for row in cheaper if row.efficient]
    return max(front or cheaper, key=_rank)


def _dominating(rows: Sequence[Row], row: Row) -> Row | None:
    """Return the best of the baselines that dominate ``row``, the reference only where no other does."""
    found = [other for other in rows if other.baseline and _stands(other) and dominates(other, row)]
    return max(found, key=lambda other: (not other.reference, *_rank(other)), default=None)


def _rank(row: Row) -> tuple[float, float]:
    return row.mean_return, -row.flops_per_step


def _earns(row: Row, reference: Row) -> str:
    own = f"earns {number(reference.mean_return)}" if not reference.split else f"has {groups_words(reference)}"
    return (
        f"{row_label(row)} earns {number(row.mean_return)} with {saving(row)} than {row_label(reference)}, which {own}"
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


# ---- what else a reader has to know ---------------------------------------------------------------------------------


def _controls(rows: Sequence[Row], methods: Sequence[Row], best: Row | None, named: Row | None) -> Iterator[str]:
    """Yield a sentence for each method that does not beat a control of its own that is as cheap."""
    for method in methods:
        for control in rows:
            known = method is best and control is named
            if control.of != method.label or control.control is None or not _stands(control) or known:
                continue
            if control.flops_per_step > AS_CHEAP * method.flops_per_step:
                continue
            pair = f"{number(control.mean_return)} beside {number(method.mean_return)}"
            if control.mean_return >= method.mean_return:
                yield f"{row_label(method)} does not beat its control {row_label(control)}: {pair}."
            elif not told_apart(control, method) and _known(control, method):
                yield f"{row_label(method)} cannot be told apart from its control {row_label(control)}: {pair}."


def _dominated(rows: Sequence[Row], methods: Sequence[Row], best: Row | None) -> Iterator[str]:
    """Yield the sentence that lists the other methods that a baseline dominates."""
    pairs = [(row, _dominating(rows, row)) for row in methods if row is not best and not row.reference]
    listed = [f"{row_label(row)} by {row_label(other)}" for row, other in pairs if other is not None]
    if listed:
        yield (f"Dominated by a baseline{', too' if best and _dominating(rows, best) else ''}: {_some(listed)}.")


def _split(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a sentence for each row whose seeds fall into two groups."""
    split = [row for row in rows if row.split]
    for row in split[:AT_MOST]:
        yield f"{row_label(row)} has {groups_words(row)}."
    if len(split) > AT_MOST:
        yield f"{len(split) - AT_MOST} more rows have two groups of seeds."


def _not_learnt(rows: Sequence[Row], reference: Row) -> Iterator[str]:
    """Yield the sentences that list the rows that have not learnt."""
    if reference.learnt is False:
        yield f"{row_label(reference)}, the reference, has not learnt: it earns no more than random actions."
    listed = [
        f"{row_label(row)} ({number(row.mean_return)})" for row in rows if row.learnt is False and row is not reference
    ]
    if listed:
        least = f"less than random actions and {100 * LEARNT:.0f} % of the way to {row_label(reference)}"
        yield f"Not learnt ({least}): {_some(listed)}."


def _some(names: Sequence[str]) -> str:
    more = len(names) - AT_MOST
    return ", ".join(names[:AT_MOST]) + (f" and {more} more" if more > 0 else "")
