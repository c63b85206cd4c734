"""The page of a report: one file that needs no other and no network, whose tables sort and whose points name their run.

What is shown comes from comparisons that may be a stranger's, so every text goes through ``markup``. Should one slip
through all the same, the page's own policy runs no script but the page's own: the policy names its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from agents.report.chart import charts, mark, row_classes
from agents.report.curve_chart import curve_charts
from agents.report.episode import episodes
from agents.report.finding import findings
from agents.report.markup import Markup, element, joined
from agents.report.rows import LEARNT, Row, interval_note
from agents.report.tables import (
    COST_HEADINGS,
    RUN_HEADINGS,
    Cell,
    Line,
    cost_line,
    result_headings,
    result_line,
    run_line,
)
from agents.report.texts import number, row_label
from agents.report.tradeoff import Comparison

STYLE, SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


def render_page(
    comparison: Comparison, rows: Sequence[Row], picture: Path | None, curves: Path | None, cloud: Path | None
) -> str:
    """Return ``report.html``.

    Args:
        comparison: that was made; its films may have been read by ``with_films``.
        rows: of ``summarise``.
        picture: of the trade-off. The page draws its own, and names this file.
        curves: returns while training; drawn by the page, too.
        cloud: every episode, embedded; ``None`` for none.
    """
    title = f"What compute buys on {comparison.env_id}"
    reference = next(row for row in rows if row.reference)
    parts = [
        element("h1", title),
        _findings(rows),
        element("figure", charts(rows, comparison.convention), _legend(rows), cls="main"),
        element("h2", "What each row earns, and what acting costs"),
        _rows_table(rows, result_headings(rows), [result_line(row, reference) for row in rows], "results", told=True),
        _notes(_result_notes(comparison, rows)),
        element("h2", "What it takes"),
        _rows_table(rows, COST_HEADINGS, [cost_line(row, reference) for row in rows], "costs"),
        _notes(COST_NOTES),
    ]
    if shown := episodes(rows):
        parts += [element("h2", "One episode: who acted when"), shown]
    if drawn := curve_charts(rows):
        parts += [element("h2", "While training"), element("figure", drawn, _notes([CURVES_NOTE]), cls="main")]
    if cloud is not None:
        parts += [element("h2", "Every episode"), _image(cloud, "Return of each episode against its FLOPs per step")]
    parts += [element("h2", "Every run"), _runs_table(rows)]
    files = [path.name for path in (picture, curves, cloud) if path is not None]
    parts += [element("h2", "How it was made"), _provenance(comparison, rows, files)]
    return _document(
        title, joined(element("main", *parts), element("div", cls="tip", id="tip", role="tooltip", hidden=True))
    )


def _document(title: str, body: Markup) -> str:
    """Return the whole file, with a policy that lets it load nothing and run its own script alone."""
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (STYLE, SCRIPT)]
    allowed = [
        *("default-src 'none'", "img-src data:", "media-src data:", "base-uri 'none'", "form-action 'none'"),
        *(f"{kind}-src 'sha256-{own}'" for kind, own in zip(("style", "script"), hashes, strict=True)),
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", title),
        f"<style>{STYLE}</style>",
    ]
    return '<!doctype html>\n<html lang="en">\n' + "\n".join(head) + f"\n{body}\n<script>{SCRIPT}</script>\n</html>\n"


def _findings(rows: Sequence[Row]) -> Markup:
    first, *others = findings(rows)
    more = element("ul", *(element("li", one) for one in others), cls="findings") if others else Markup("")
    return joined(element("p", first, cls="finding"), more)


# ---- the chart's legend ---------------------------------------------------------------------------------------------

MARKS = {"method c0": "method", "baseline": "baseline", "control": "control made of a method"}


def _legend(rows: Sequence[Row]) -> Markup:
    """Return what marks and lines mean, those that occur."""
    classes = row_classes(rows)
    items = [(_swatch(cls), name) for cls, name in MARKS.items() if any(one[:6] == cls[:6] for one in classes)]
    lines = [("front", "Pareto front")] if any(row.efficient for row in rows) else []
    lines += [("guide", "return of the reference")]
    if any(len(row.points) > 1 and not row.split for row in rows):
        lines.append(("interval", interval_note(rows)))
    if any(row.split for row in rows):
        lines.append(("apart", "two groups of seeds, no mean"))
    items += [(_line(cls), name) for cls, name in lines]
    return element("figcaption", *(element("span", *item) for item in items), cls="legend")


def _swatch(cls: str) -> Markup:
    shape = element("g", mark(cls, 8.0, 8.0, 6.0), cls=f"row {cls}")
    return element("svg", shape, cls="swatch", viewBox="0 0 16 16", aria_hidden="true")


def _line(cls: str) -> Markup:
    line = element("line", cls=cls, x1=0, x2=22, y1=8, y2=8)
    return element("svg", line, cls="swatch long", viewBox="0 0 22 16", aria_hidden="true")


# ---- tables ---------------------------------------------------------------------------------------------------------


def _rows_table(
    rows: Sequence[Row], headings: Sequence[str], lines: Sequence[Line], name: str, told: bool = False
) -> Markup:
    firsts = [
        (_row_head(index, row, cls, told), float(index))
        for index, (row, cls) in enumerate(zip(rows, row_classes(rows), strict=True), 1)
    ]
    return _table(["row", *headings], firsts, lines, name, list(map(_line_class, rows)))


def _line_class(row: Row) -> str:
    return " ".join(name for name, holds in (("base", row.baseline), ("failed", row.learnt is False)) if holds)


def _row_head(index: int, row: Row, cls: str, told: bool) -> Markup:
    """Return number, mark and name of a row, and with ``told`` what it is."""
    marks = [("front", "on the front")] if row.efficient else []
    marks += [("failed", "not learnt")] if row.learnt is False else []
    marks += [("groups", "two groups of seeds")] if row.split else []
    badges = [element("span", name, cls=f"badge {kind}") for kind, name in marks] if told else []
    about = [element("span", row.what, cls="what")] if told and row.what else []
    named = element("div", element("b", row_label(row)), *badges, *about)
    return element("div", element("span", str(index), cls="index"), _swatch(cls), named, cls="head")


def _runs_table(rows: Sequence[Row]) -> Markup:
    styles = row_classes(rows)
    runs = [(index, row, point) for index, row in enumerate(rows, 1) for point in row.points]
    firsts = [(_row_head(index, row, styles[index - 1], False), float(index)) for index, row, _ in runs]
    return _table(["row", *RUN_HEADINGS], firsts, [run_line(point) for _, _, point in runs], "runs", cls="tall")


def _table(
    headings: Sequence[str],
    firsts: Sequence[tuple[Markup, float]],
    lines: Sequence[Line],
    name: str,
    classes: Sequence[str] = (),
    cls: str = "",
) -> Markup:
    """Return a table whose headings are buttons that sort it; wider than its window it scrolls alone."""
    head = element(
        "tr", *(element("th", element("button", one, type="button"), scope="col", aria_sort="none") for one in headings)
    )
    body = [
        element("tr", element("th", first, scope="row", data_k=repr(key)), *map(_cell, line), cls=own)
        for (first, key), line, own in zip(firsts, lines, classes or [""] * len(lines), strict=True)
    ]
    table = element("table", element("thead", head), element("tbody", *body), id=name)
    # A region that scrolls has to be reached by the keyboard.
    return element(
        "div", table, cls=f"scroll {cls}".strip(), tabindex="0", role="region", aria_label=f"table of {name}"
    )


def _cell(cell: Cell) -> Markup:
    return element("td", cell.text, data_k=None if cell.key is None else repr(float(cell.key)))


def _notes(notes: Sequence[str]) -> Markup:
    return element("p", " ".join(notes), cls="note")


def _result_notes(comparison: Comparison, rows: Sequence[Row]) -> list[str]:
    notes = [
        f"Returns: {interval_note(rows)}.",
        f"FLOPs are those of acting, {comparison.convention} convention, everything that runs to choose an action "
        "included. Savings are relative to the reference row; “3 × …” is the mean of 3 seeds, in rows "
        "whose seeds fall into two groups.",
    ]
    random = comparison.settings.get("random_return")
    if random is not None:
        least = f"random actions ({number(random)}) and {100 * LEARNT:.0f} % of what the reference earns above them"
        notes.append(f"Not learnt: less than {least}.")
    return notes


CURVES_NOTE = (
    "Mean over seeds and, as a band, lowest to highest; rows whose returns fall into two groups are a line for each "
    "seed. Baselines are dashed."
)

COST_NOTES = (
    "µs / action: median time of one action, measured on the machine named below, batch 1, one thread.",
    "Learning FLOPs are relative to the reference row; training FLOPs are acting and learning in one training.",
    "Break-even: deployed steps after which the FLOPs saved have made up for a training that took more than the "
    "reference's.",
    "Gate: nats that the choice holds about the state; 0 is a coin that does not look.",
)


# ---- pictures and provenance ----------------------------------------------------------------------------------------


def _image(path: Path, alternative: str) -> Markup:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return element("img", cls="picture", alt=alternative, src=f"data:image/png;base64,{data}")


def _provenance(comparison: Comparison, rows: Sequence[Row], files: Sequence[str]) -> Markup:
    points = [point for row in rows for point in row.points]
    machines = list(dict.fromkeys(str(point.extras["machine"]) for point in points if point.extras.get("machine")))
    dates = sorted({str(point.extras["date"]) for point in points if point.extras.get("date")})
    facts = [
        ("environment", comparison.env_id),
        ("command", comparison.command or "not recorded"),
        ("seeds", ", ".join(map(str, sorted({point.seed for point in points})))),
        ("dates", " to ".join(dict.fromkeys([*dates[:1], *dates[-1:]])) or "not recorded"),
        ("machines", "\n".join(machines) or "not recorded"),
        ("versions", ", ".join(f"{name} {version}" for name, version in comparison.versions.items()) or "not recorded"),
        *((key, str(value)) for key, value in comparison.settings.items()),
    ]
    if files:
        facts.append(("pictures", ", ".join(files)))
    return element("dl", *(part for name, value in facts for part in (element("dt", name), element("dd", value))))
