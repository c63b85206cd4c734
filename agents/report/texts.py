"""Numbers and rows as words, the same in tables, pictures and sentences."""

from collections.abc import Sequence
from statistics import fmean

from agents.report.point import TradeoffPoint
from agents.report.rows import Groups, Row


def number(value: float) -> str:
    """Return a return with about four digits.

    >>> number(93.512), number(-0.04321), number(4120.6)
    ('93.5', '−0.0432', '4,121')
    """
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 3 if size >= 0.1 or size == 0 else 4
    return f"{value:,.{digits}f}".replace("-", "−")


def compact(value: float) -> str:
    """Return ``value`` in three digits with k, M or G.

    >>> compact(8704), compact(272), compact(1_250_000)
    ('8.7k', '272', '1.25M')
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def row_label(row: Row) -> str:
    """Return the label of ``row``, with λ when the label does not say it."""
    return row.label if row.weight is None or "λ" in row.label else f"{row.label}, λ = {row.weight:g}"


MOST_DIGITS = 4
"""Behind the point of a share."""
APART = 0.1
"""Shares of the reference's FLOPs between a row's seeds from which on their mean is given beside their range."""


def saved_by_seed(row: Row) -> list[float]:
    """Return the share of the reference's FLOPs that each seed of ``row`` saves, ascending."""
    return sorted(_saved(row, [point]) for point in row.points)


def _saved(row: Row, points: Sequence[TradeoffPoint]) -> float:
    return 1 - fmean(point.flops_per_step for point in points) / row.reference_flops


def mean_return(points: Sequence[TradeoffPoint]) -> float:
    """Return the mean over ``points``."""
    return fmean(point.mean_return for point in points)


def saving(row: Row) -> str:
    """Return what ``row`` saves in words, by group or as a range where seeds lie apart; empty for the reference."""
    if row.reference:
        return ""
    if row.flops_groups:
        return " and ".join(f"{_less(_saved(row, group))} ({seeds(group)})" for group in row.flops_groups) + " compute"
    least, most = saved_by_seed(row)[0], saved_by_seed(row)[-1]
    if most - least > APART:
        return f"{_less(least)} to {_less(most)} compute (by seed)"
    return f"{_less(row.saved)} compute"


def _less(saved: float) -> str:
    return f"{percent(abs(saved), 0)} {'less' if saved >= 0 else 'more'}"


def seeds(points: Sequence[TradeoffPoint]) -> str:
    """Return how many seeds there are, in words."""
    return "1 seed" if len(points) == 1 else f"{len(points)} seeds"


def groups_words(row: Row) -> str:
    """Return in words that the seeds of ``row`` fall into two groups, and which; empty where they agree."""
    parts = []
    if row.return_groups:
        parts.append(_listed(row.return_groups, [number(mean_return(group)) for group in row.return_groups]))
    if row.flops_groups:
        flops = [fmean(point.flops_per_step for point in group) for group in row.flops_groups]
        saved = [_less(_saved(row, group)) for group in row.flops_groups]
        texts = [f"{compact(cost)} FLOPs ({less})" for cost, less in zip(flops, saved, strict=True)]
        parts.append(_listed(row.flops_groups, texts))
    return f"two groups of seeds: {'; '.join(parts)}" if parts else ""


def _listed(groups: Groups, texts: Sequence[str]) -> str:
    return ", ".join(f"{len(group)} at {text}" for group, text in zip(groups, texts, strict=True))


def by_group(groups: Groups, texts: Sequence[str]) -> str:
    """Return a line for each of two groups, with its number of seeds, short enough for a cell."""
    return "\n".join(f"{len(group)} × {text}" for group, text in zip(groups, texts, strict=True))


def return_cell(row: Row) -> str:
    """Return the mean return for a table, or what each group of seeds returns."""
    if row.return_groups:
        return by_group(row.return_groups, [number(mean_return(group)) for group in row.return_groups])
    return number(row.mean_return)


def flops_cell(row: Row) -> str:
    """Return the FLOPs per step for a table, or those of each group of seeds."""
    if row.flops_groups:
        means = [fmean(point.flops_per_step for point in group) for group in row.flops_groups]
        return by_group(row.flops_groups, [f"{flops:,.0f}" for flops in means])
    return f"{row.flops_per_step:,.0f}"


def saved_cell(row: Row) -> str:
    """Return what ``row`` saves for a table, by group or with its seeds' range where they lie apart."""
    if row.reference:
        return "reference"
    if row.flops_groups:
        return by_group(row.flops_groups, [percent(_saved(row, group), 0) for group in row.flops_groups])
    low, high = saved_by_seed(row)[0], saved_by_seed(row)[-1]
    beside = f" ({percent(low, 0).removesuffix(' %')} … {percent(high, 0)})" if high - low > APART else ""
    return percent(row.saved) + beside


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent; what is not all is not said to be 100 %.

    >>> percent(0.8125), percent(-0.05, 0), percent(0.9985, 0)
    ('81.2 %', '−5 %', '99.9 %')
    """
    while share < 1 and digits < MOST_DIGITS and round(100 * share, digits) >= 100:
        digits += 1
    return f"{100 * share:.{digits}f} %".replace("-", "−")
