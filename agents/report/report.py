"""A comparison made readable: a table for the terminal, three pictures and one self-contained page.

``write_report`` reads what ``budget tradeoff`` left in run folders; everything shown is computed from those points.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.table import Table
from rich.text import Text

from agents.report.cloud import plot_cloud
from agents.report.finding import finding
from agents.report.pictures import plot_curves, plot_tradeoff
from agents.report.rows import Row, interval_note, summarise
from agents.report.tables import cells, headings
from agents.report.texts import compact, number, row_label
from agents.report.tradeoff import Comparison
from budget_wrappers.errors import ConfigError
from budget_wrappers.files import write_text


@dataclass(frozen=True)
class Report:
    """Where a report lies.

    Attributes:
        picture: ``tradeoff.png``: return against compute.
        curves: ``curves.png``: return while training; None when no point has a curve.
        cloud: ``cloud.png``: cost and score of every episode; None where the return of random actions is not stored,
            or nothing was learnt beyond it.
        page: ``report.html``, which holds all pictures and needs no other file.
        rows: what the table shows, cheapest first.
    """

    picture: Path
    curves: Path | None
    cloud: Path | None
    page: Path
    rows: tuple[Row, ...]


def write_report(folders: Sequence[Path], out: Path | None = None, labels: Sequence[str] = ()) -> Report:
    """Draw and write the report of the comparisons in ``folders``.

    Args:
        folders: run folders with a ``tradeoff.json``; several are merged, and runs of equal settings become seeds of
            one row.
        out: where the files go, by default the first folder.
        labels: a name for each folder, in place of its own label.

    Raises:
        ConfigError: for no folder, one named twice, one without ``tradeoff.json``, folders that cannot be compared, or
            another number of labels.
        CheckpointError: for a damaged ``tradeoff.json``.
    """
    if not folders:
        raise ConfigError("no run folder was given; expected at least one that `budget tradeoff` wrote: name it")
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice: expected each run once; leave one out")
    comparison = Comparison.merged([Comparison.read(folder) for folder in folders], labels)
    out = folders[0] if out is None else out
    random, cloud = comparison.settings.get("random_return"), None
    rows = summarise(comparison.points, random)
    picture = plot_tradeoff(
        rows, out / "tradeoff.png", f"What compute buys on {comparison.env_id}", comparison.convention
    )
    curves = plot_curves(rows, out / "curves.png", f"Returns while training on {comparison.env_id}")
    if random is not None and all(point.episodes for point in comparison.points):
        cloud = plot_cloud(rows, random, out / "cloud.png", f"Every episode on {comparison.env_id}")
    page = out / "report.html"
    write_text(page, render_page(comparison, rows, picture, curves, cloud))
    return Report(picture, curves, cloud, page, tuple(rows))


def terminal_table(rows: Sequence[Row], env_id: str, convention: str = "matmul") -> Table:
    """Return the table that ``budget tradeoff`` prints."""
    table = Table(
        title=Text(f"{env_id}: return against acting compute"),  # not markup, which names may look like
        caption=Text(f"{interval_note(rows)}; FLOPs of acting, {convention} convention. * Pareto front"),
        title_justify="left",
        caption_justify="left",
    )
    for index, name in enumerate(headings(rows)):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, cells(row)), style="dim" if row.baseline else None)
    return table


def render_page(
    comparison: Comparison, rows: Sequence[Row], picture: Path, curves: Path | None, cloud: Path | None
) -> str:
    """Return ``report.html``: pictures embedded, no script, no other file, readable in the dark."""
    title = escape(f"What compute buys on {comparison.env_id}")
    note = escape(f"{interval_note(rows)}; * on the Pareto front")
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="finding">{escape(finding(rows))}</p>',
        _image(picture, "Mean return against acting FLOPs per control step"),
        _html_table(headings(rows), [cells(row) for row in rows]),
        f"<p class=note>{note}. FLOPs are those of acting, {escape(comparison.convention)} convention, everything that "
        "runs to choose an action included. Savings are relative to the reference row.</p>",
    ]
    if curves is not None:
        parts += ["<h2>While training</h2>", _image(curves, "Evaluation return against environment steps")]
    if cloud is not None:
        parts += ["<h2>Every episode</h2>", _image(cloud, "Return of each episode against its FLOPs per control step")]
    parts += ["<h2>Every run, in evaluation</h2>", _html_table(RUN_HEADINGS, _run_cells(rows))]
    parts += ["<h2>How it was made</h2>", _provenance(comparison, rows)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


RUN_HEADINGS = ("method", "seed", "mean return", "FLOPs / step", "episodes", "steps", "FLOPs in all")


def _run_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            row_label(row),
            str(point.seed),
            number(point.mean_return),
            f"{point.flops_per_step:,.1f}",
            str(len(point.episodes)) if point.episodes else "–",
            f"{sum(episode['length'] for episode in point.episodes):,.0f}" if point.episodes else "–",
            compact(sum(episode["flops"] for episode in point.episodes)) if point.episodes else "–",
        )
        for row in rows
        for point in row.points
    ]


def _image(path: Path, alternative: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">'


def _html_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in headings)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _provenance(comparison: Comparison, rows: Sequence[Row]) -> str:
    seeds = sorted({point.seed for row in rows for point in row.points})
    facts = [
        ("environment", comparison.env_id),
        ("command", comparison.command or "not recorded"),
        ("seeds", ", ".join(map(str, seeds))),
        ("versions", ", ".join(f"{name} {version}" for name, version in comparison.versions.items()) or "not recorded"),
        *((key, str(value)) for key, value in comparison.settings.items()),
    ]
    items = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f"<dl>\n{items}\n</dl>"


STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
img { width: 100%; height: auto; background: white; border-radius: 6px; }
.finding { font-size: 1.1rem; margin: 0 0 1rem; }
.note, dt { color: color-mix(in srgb, currentColor 65%, transparent); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: right; padding: .35rem .6rem; white-space: nowrap;
         border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: 0; }
dd { margin: 0; font-family: ui-monospace, monospace; font-size: .85rem; white-space: pre-wrap;
     overflow-wrap: anywhere; }
"""
