"""A comparison made readable: a table for the terminal, three pictures and one self-contained page.

``write_report`` reads what ``budget tradeoff`` left in run folders; everything shown is computed from those points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from agents.report.cloud import plot_cloud
from agents.report.films import with_films
from agents.report.finding import finding
from agents.report.page import render_page
from agents.report.pictures import plot_curves, plot_tradeoff
from agents.report.rows import Row, interval_note, summarise
from agents.report.tables import cells, headings
from agents.report.tradeoff import Comparison
from budget_wrappers.errors import ConfigError
from budget_wrappers.files import write_text

# A report's parts have modules of their own, and are found here, too.
__all__ = ["Report", "cells", "finding", "headings", "render_page", "terminal_table", "write_report"]


@dataclass(frozen=True)
class Report:
    """Where a report lies.

    Attributes:
        picture: ``tradeoff.png``: return against compute.
        curves: ``curves.png``: return while training; None when no point has a curve.
        cloud: ``cloud.png``: cost and score of every episode; None where the return of random actions is not stored,
            or nothing was learnt beyond it.
        page: ``report.html``, which needs no other file.
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
    comparison = Comparison.merged([with_films(Comparison.read(folder), folder) for folder in folders], labels)
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
    split = "; 2 × …: two groups of seeds" if any(row.split for row in rows) else ""
    table = Table(
        title=Text(f"{env_id}: return against acting compute"),  # not markup, which names may look like
        caption=Text(f"{interval_note(rows)}; FLOPs of acting, {convention} convention. * Pareto front{split}"),
        title_justify="left",
        caption_justify="left",
    )
    for index, name in enumerate(headings(rows)):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, cells(row)), style="dim" if row.baseline else None)
    return table
