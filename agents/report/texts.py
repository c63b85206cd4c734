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


def saving(row: Row) -> str:
    """Return what ``row`` saves in words, empty for the reference."""
    if row.reference:
        return ""
    more_or_less = "less" if row.saved >= 0 else "more"
    return f"{abs(100 * row.saved):.0f} % {more_or_less} compute"
