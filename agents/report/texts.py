"""Numbers and rows as words, the same in tables, pictures and sentences."""

from agents.report.tradeoff import Row


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


APART = 0.1
"""Shares of the reference's FLOPs between a row's seeds from which on their mean describes none of them."""


def saved_by_seed(row: Row) -> list[float]:
    """Return the share of the reference's FLOPs that each seed of ``row`` saves, ascending."""
    reference = row.flops_per_step / (1 - row.saved)
    return sorted(1 - point.flops_per_step / reference for point in row.points)


def saving(row: Row) -> str:
    """Return what ``row`` saves in words, its seeds' range where they lie far apart; empty for the reference."""
    if row.reference:
        return ""
    least, most = saved_by_seed(row)[0], saved_by_seed(row)[-1]
    if most - least > APART:
        return f"{_less(least)} to {_less(most)} compute (by seed)"
    return f"{_less(row.saved)} compute"


def _less(saved: float) -> str:
    return f"{abs(100 * saved):.0f} % {'less' if saved >= 0 else 'more'}"


def saved_cell(row: Row) -> str:
    """Return what ``row`` saves for a table, with its seeds' range where they lie far apart."""
    if row.reference:
        return "reference"
    low, high = saved_by_seed(row)[0], saved_by_seed(row)[-1]
    beside = f" ({100 * low:.0f} … {100 * high:.0f} %)" if high - low > APART else ""
    return f"{100 * row.saved:.1f} %{beside}".replace("-", "−")
